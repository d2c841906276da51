//! The caches of the process by name, because values outlive the generation whose configuration named
//! their cache.
//!
//! A generation that is built opens what it wants beside what serves; nothing of that is touched until the
//! generation [takes over](Opened::take_over), for its build may fail yet.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Cache;
use super::behind::Behind;
use super::disk::{self, Disk, Slot};
use super::maps::Sizes;
use super::store::Store;
use crate::config::model::{Cache as Config, DiskLevel};
use crate::observe::error_log::{self, Context, Level as LogLevel};

/// All caches of the process. Asked when a generation is built, never on the request path.
#[derive(Debug, Default)]
pub struct Registry {
    known: Arc<Mutex<Known>>,
    /// No level on disk is opened: the configuration is only looked at.
    dry: bool,
}

/// The levels on disk; a folder is used by one at a time.
type Folders = HashMap<PathBuf, Weak<Disk>>;

/// What the generation that serves has.
#[derive(Debug, Default)]
struct Known {
    open: HashMap<String, Open>,
    disks: Folders,
}

/// Why a level on disk is not to be had.
#[derive(Debug)]
pub struct Unusable {
    /// The configuration's line that names it.
    pub line: usize,
    /// Which, and why.
    pub why: String,
}

/// Writes what waits for a disk: the process ends.
pub fn close_all() {
    disk::close_all();
}

/// What outlives a generation of one cache.
#[derive(Debug)]
struct Open {
    config: Config,
    store: Arc<Store>,
    slot: Option<Slot>,
    behind: Arc<Behind>,
}

/// The caches of a generation that is built.
#[derive(Debug)]
pub struct Opened {
    /// In the configuration's order.
    pub caches: Vec<Arc<Cache>>,
    known: Arc<Mutex<Known>>,
    /// What there is to do when it takes over.
    next: Mutex<Vec<Next>>,
}

/// A cache that is to take the place of the one of its name.
#[derive(Debug)]
struct Next {
    open: Open,
    /// Its level on disk was opened for it.
    opened: bool,
    /// Values that are there already are to be compared with what other servers have.
    inherits: bool,
}

impl Registry {
    /// One that leaves what is on disk alone: another process may use it.
    #[must_use]
    pub fn dry() -> Self {
        Self {
            dry: true,
            ..Self::default()
        }
    }

    /// The caches of a configuration. One whose memory's size is as it was keeps its values, and one
    /// whose configuration is as it was keeps all.
    ///
    /// # Errors
    /// Where a level on disk cannot be used.
    pub fn open_all(&self, caches: &[Config]) -> Result<Opened, Unusable> {
        let mut known = self.known.lock();
        let mut opened = Opened {
            caches: Vec::new(),
            known: self.known.clone(),
            next: Mutex::default(),
        };
        for config in caches {
            let next = self.open(&mut known, config)?;
            let Open { store, behind, .. } = &next.open;
            let cache = Cache::new(config.clone(), store.clone(), behind.clone());
            opened.caches.push(Arc::new(cache));
            opened.next.get_mut().push(next);
        }
        Ok(opened)
    }

    fn open(&self, known: &mut Known, config: &Config) -> Result<Next, Unusable> {
        let sizes = Sizes::of(config);
        let before = known.open.get(&config.name);
        let store = match before {
            Some(open) if open.store.sizes() == sizes => open.store.clone(),
            Some(open) => Arc::new(open.store.resized(sizes)),
            None => Arc::new(Store::new(sizes)),
        };
        let own = before.and_then(|open| open.slot.as_ref());
        let slot = match &config.disk {
            Some(level) if !self.dry => match own.filter(|slot| slot.serves(&config.name, level)) {
                Some(slot) => Some(slot.clone()),
                None => Some(take_folder(&mut known.disks, &config.name, level)?),
            },
            _ => None,
        };
        let opened = slot
            .as_ref()
            .is_some_and(|slot| own != Some(slot) && slot.get().is_some());
        let behind = match before {
            Some(open) if open.config == *config && open.behind.is_on(slot.as_ref()) => {
                open.behind.clone()
            }
            open => {
                let before = open.map(|open| &*open.behind);
                Behind::open(config, &store, slot.clone(), before)
            }
        };
        let inherits = before.is_some_and(|open| !open.behind.hears_as(&behind));
        let open = Open {
            config: config.clone(),
            store,
            slot,
            behind,
        };
        Ok(Next {
            open,
            opened,
            inherits,
        })
    }
}

/// A slot with the level in a folder. It stays empty where another cache, or one of another size, has
/// the folder still.
fn take_folder(disks: &mut Folders, cache: &str, level: &DiskLevel) -> Result<Slot, Unusable> {
    let slot = Slot::default();
    let used = disks.get(&level.path).and_then(Weak::upgrade);
    if used.is_some_and(|disk| !disk.is_off()) {
        return Ok(slot);
    }
    let disk = Disk::open(cache, level).map_err(|why| Unusable {
        line: level.line,
        why: format!("[cache.{cache}] disk: {why}"),
    })?;
    disks.insert(level.path.clone(), Arc::downgrade(&disk));
    slot.put(disk);
    Ok(slot)
}

impl Opened {
    /// Its generation serves from now on. Those that it has no more are forgotten when nobody uses them.
    pub fn take_over(&self) {
        let next = std::mem::take(&mut *self.next.lock());
        if next.is_empty() && !self.caches.is_empty() {
            return;
        }
        let mut known = self.known.lock();
        for next in &next {
            if let (Some(slot), Some(level)) = (&next.open.slot, &next.open.config.disk)
                && slot.get().is_none()
            {
                known.put(&next.open, slot, level);
            }
            if next.inherits {
                next.open.behind.follow();
            }
        }
        known.open = next
            .into_iter()
            .map(|next| (next.open.config.name.clone(), next.open))
            .collect();
        known.disks.retain(|_, disk| disk.strong_count() > 0);
    }
}

impl Known {
    /// Ends the level that has the folder, and opens the next one there.
    fn put(&mut self, open: &Open, slot: &Slot, level: &DiskLevel) {
        if let Some(used) = self.disks.get(&level.path).and_then(Weak::upgrade) {
            used.retire();
        }
        let name = &open.config.name;
        match Disk::open(name, level) {
            Ok(disk) => {
                self.disks.insert(level.path.clone(), Arc::downgrade(&disk));
                open.store.common.purges.inherit(&disk.known);
                slot.put(disk);
            }
            Err(why) => error_log::write(
                LogLevel::Error,
                &Context::default(),
                format!("cache `{name}`: it goes on without its level on disk: {why}"),
            ),
        }
    }
}

impl Drop for Opened {
    /// The build came to nothing: what was opened for it is closed, so that the next can open it.
    fn drop(&mut self) {
        for next in self.next.get_mut().iter().filter(|next| next.opened) {
            if let Some(disk) = next.open.slot.as_ref().and_then(Slot::get) {
                disk.retire();
            }
        }
    }
}
