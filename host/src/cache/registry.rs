//! The caches of the process by name, because values outlive the generation whose configuration named
//! their cache.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Cache;
use super::behind::Behind;
use super::disk::{self, Disk};
use super::maps::Sizes;
use super::store::Store;
use crate::config::model::{Cache as Config, DiskLevel};

/// All caches of the process. Asked when a generation is built, never on the request path.
#[derive(Debug, Default)]
pub struct Registry {
    open: Mutex<HashMap<String, Open>>,
    /// The levels on disk; a folder is used by one at a time.
    disks: Mutex<HashMap<PathBuf, Weak<Disk>>>,
    /// No level on disk is opened: the configuration is only looked at.
    dry: bool,
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
    behind: Arc<Behind>,
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
    pub fn open_all(&self, caches: &[Config]) -> Result<Vec<Arc<Cache>>, Unusable> {
        let mut known = self.open.lock();
        let mut open = |config: &Config| {
            let disk = match &config.disk {
                Some(level) if !self.dry => Some(self.disk(&config.name, level)?),
                _ => None,
            };
            let sizes = Sizes::of(config);
            let before = known.remove(&config.name);
            let store = match &before {
                Some(open) if open.store.sizes() == sizes => open.store.clone(),
                Some(open) => Arc::new(open.store.resized(sizes)),
                None => Arc::new(Store::new(sizes)),
            };
            let behind = match &before {
                Some(open) if open.config == *config && open.behind.is_on(disk.as_ref()) => {
                    open.behind.clone()
                }
                open => {
                    let before = open.as_ref().map(|open| &*open.behind);
                    Behind::open(config, &store, disk, before)
                }
            };
            let open = Open {
                config: config.clone(),
                store: store.clone(),
                behind: behind.clone(),
            };
            known.insert(config.name.clone(), open);
            Ok(Arc::new(Cache::new(config.clone(), store, behind)))
        };
        caches.iter().map(&mut open).collect()
    }

    /// The level in a folder: what is open goes on, unless it is another cache's or of another size.
    fn disk(&self, cache: &str, level: &DiskLevel) -> Result<Arc<Disk>, Unusable> {
        let mut disks = self.disks.lock();
        disks.retain(|_, disk| disk.strong_count() > 0);
        if let Some(disk) = disks.get(&level.path).and_then(Weak::upgrade) {
            if disk.serves(cache, level) {
                return Ok(disk);
            }
            disk.retire();
        }
        let opened = Disk::open(cache, level).map_err(|why| Unusable {
            line: level.line,
            why: format!("[cache.{cache}] disk: {why}"),
        })?;
        disks.insert(level.path.clone(), Arc::downgrade(&opened));
        Ok(opened)
    }
}
