//! Watching what a configuration depends on, because while somebody writes it nobody wants to send a
//! signal after every change.
//!
//! The system tells of changes in folders (editors and `kubectl` put new files in the place of old
//! ones); whether a file is another one is decided by looking at it. What a file looked like is noted
//! when the server reads it or before, so that a change during a reload leads to another reload, never
//! to none, and a file that was written shortly before the start leads to none.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::Context as _;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::time::Instant;

use crate::config::{Config, Look};

/// A change is reported when so long nothing else has changed: editors write in several steps.
const QUIET: Duration = Duration::from_millis(50);
/// Nobody waits longer than this, however busy the folder is.
const MOST: Duration = Duration::from_millis(500);

/// Entries of a folder of modules that are looked at when it is new; later the system tells.
const MOST_LOOKED_AT: usize = 10_000;

/// What a generation is built from, as it was before.
pub(super) struct Seen {
    files: BTreeMap<PathBuf, Option<Look>>,
    /// Folders of Lua modules, each with the modules at any depth.
    modules: BTreeMap<PathBuf, Modules>,
}

/// The Lua modules below a folder; `None`: there are too many to look at.
type Modules = Option<BTreeMap<PathBuf, Option<Look>>>;

impl Seen {
    /// Looks at everything that has not been read yet: to be called before the build.
    pub(super) fn before_build(config: &Config) -> Self {
        let mut files = BTreeMap::new();
        for (path, look) in config.files() {
            let path = absolute(path);
            // Of a file that was read twice the first look counts: what came later is a change.
            if let Entry::Vacant(place) = files.entry(path) {
                let look = look.or_else(|| Look::at(place.key()));
                place.insert(look);
            }
        }
        let folders = config.module_folders().into_iter().map(absolute);
        let modules = folders.map(|folder| {
            let modules = modules_below(&folder);
            (folder, modules)
        });
        Self {
            files,
            modules: modules.collect(),
        }
    }
}

enum Note {
    /// Answered when the files are watched.
    Follow(Seen, Sender<()>),
    Event(notify::Result<notify::Event>),
}

/// A running watch; it ends when it is dropped.
pub(super) struct Watch {
    notes: Sender<Note>,
}

impl Watch {
    /// Starts. `changed` is called with the path of a file that has changed.
    ///
    /// # Errors
    /// When the system has no watch to give.
    pub(super) fn start(changed: impl Fn(&Path) + Send + 'static) -> anyhow::Result<Self> {
        let (notes, received) = channel();
        let events = notes.clone();
        let watcher = notify::recommended_watcher(move |event| {
            // Nobody listens when the watch has ended.
            drop(events.send(Note::Event(event)));
        })
        .context("watch files")?;
        std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || {
                Follower {
                    watcher,
                    folders: BTreeMap::new(),
                    modules: Vec::new(),
                    looks: BTreeMap::new(),
                }
                .run(&received, changed);
            })?;
        Ok(Self { notes })
    }

    /// From now on what this generation was built from.
    pub(super) fn follow(&self, seen: Seen) {
        let (done, answer) = channel();
        // The thread ends only with the watch.
        if self.notes.send(Note::Follow(seen, done)).is_ok() {
            let _watched = answer.recv().is_ok();
        }
    }
}

fn absolute(path: impl AsRef<Path>) -> PathBuf {
    std::path::absolute(path.as_ref()).unwrap_or_else(|_| path.as_ref().to_owned())
}

struct Follower {
    watcher: RecommendedWatcher,
    folders: BTreeMap<PathBuf, RecursiveMode>,
    modules: Vec<PathBuf>,
    looks: BTreeMap<PathBuf, Option<Look>>,
}

impl Follower {
    fn run(mut self, notes: &Receiver<Note>, changed: impl Fn(&Path)) {
        // A Lua module that an event named; it needs no look.
        let mut module = None;
        let mut quiet_at: Option<(Instant, Instant)> = None;
        loop {
            let note = match quiet_at {
                None => notes.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some((quiet, most)) => {
                    notes.recv_timeout(quiet.min(most).saturating_duration_since(Instant::now()))
                }
            };
            match note {
                Ok(Note::Follow(seen, done)) => {
                    let newer = self.follow(seen);
                    // The supervisor waits for it.
                    let _told = done.send(()).is_ok();
                    if let Some(path) = newer {
                        changed(&path);
                    }
                }
                Ok(Note::Event(event)) => {
                    let Some(path) = self.matters(event) else {
                        continue;
                    };
                    module = path.or(module);
                    let now = Instant::now();
                    let most = quiet_at.map_or(now + MOST, |(_, most)| most);
                    quiet_at = Some((now + QUIET, most));
                }
                Err(RecvTimeoutError::Timeout) => {
                    quiet_at = None;
                    let file = self.look();
                    if let Some(path) = file.or_else(|| module.take()) {
                        changed(&path);
                    }
                    module = None;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// `None`: nothing can have changed. `Some(None)`: look. `Some(Some(path))`: this module has.
    fn matters(&self, event: notify::Result<notify::Event>) -> Option<Option<PathBuf>> {
        // What the system could not tell is found by looking.
        let Ok(event) = event else { return Some(None) };
        let written = matches!(
            event.kind,
            EventKind::Access(notify::event::AccessKind::Close(
                notify::event::AccessMode::Write
            ))
        );
        if matches!(event.kind, EventKind::Access(_)) && !written {
            return None;
        }
        let is_module = |path: &&PathBuf| {
            path.extension().is_some_and(|extension| extension == "lua")
                && self.modules.iter().any(|folder| path.starts_with(folder))
        };
        Some(event.paths.iter().find(is_module).cloned())
    }

    /// Looks at all files; gives one that is not what it was.
    fn look(&mut self) -> Option<PathBuf> {
        let mut changed = None;
        for (path, known) in &mut self.looks {
            let (same, now) = Look::again(*known, path);
            *known = now;
            if !same {
                changed.get_or_insert_with(|| path.clone());
            }
        }
        changed
    }

    /// Takes over what is to be watched; gives a new file that is not what was read. A change of a
    /// file that was watched already has been told of, or will be.
    fn follow(&mut self, seen: Seen) -> Option<PathBuf> {
        self.watch(&seen);
        let is_new = |path: &PathBuf| !self.looks.contains_key(path);
        let mut new = seen.files.iter().filter(|(path, _)| is_new(path));
        let file = new.find(|(path, look)| !Look::again(**look, path).0);
        let mut new = seen
            .modules
            .iter()
            .filter(|(folder, _)| !self.modules.contains(folder));
        let changed = file.map(|(path, _)| path.clone());
        let changed = changed.or_else(|| new.find_map(|(folder, known)| other(folder, known)));
        self.modules = seen.modules.into_keys().collect();
        let looks = seen.files.into_iter().map(|(path, look)| {
            let known = self.looks.get(&path).copied();
            (path, known.unwrap_or(look))
        });
        self.looks = looks.collect();
        changed
    }

    /// Has the system tell of what happens in the folders.
    fn watch(&mut self, seen: &Seen) {
        let mut folders = BTreeMap::new();
        for file in seen.files.keys() {
            if let Some(folder) = file.parent() {
                folders.insert(folder.to_owned(), RecursiveMode::NonRecursive);
            }
        }
        for folder in seen.modules.keys().filter(|folder| folder.is_dir()) {
            folders.insert(folder.clone(), RecursiveMode::Recursive);
        }
        for (folder, mode) in &self.folders {
            if folders.get(folder) != Some(mode) {
                // It may be gone already.
                drop(self.watcher.unwatch(folder));
            }
        }
        for (folder, mode) in &folders {
            if self.folders.get(folder) != Some(mode)
                && let Err(error) = self.watcher.watch(folder, *mode)
            {
                super::note(
                    super::Level::Error,
                    format!("changes below {} are not seen: {error}", folder.display()),
                );
            }
        }
        self.folders = folders;
    }
}

/// A Lua module below a folder that is not what it was.
fn other(folder: &Path, known: &Modules) -> Option<PathBuf> {
    let (known, now) = (known.as_ref()?, modules_below(folder)?);
    let gone = known
        .iter()
        .find(|(path, look)| !Look::again(**look, path).0);
    let new = || now.keys().find(|path| !known.contains_key(*path));
    gone.map(|(path, _)| path).or_else(new).cloned()
}

fn modules_below(folder: &Path) -> Modules {
    let mut modules = BTreeMap::new();
    add_modules(folder, &mut { MOST_LOOKED_AT }, &mut modules).then_some(modules)
}

/// `false`: there are too many.
fn add_modules(
    folder: &Path,
    left: &mut usize,
    modules: &mut BTreeMap<PathBuf, Option<Look>>,
) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return true;
    };
    for entry in entries.flatten() {
        let Some(less) = left.checked_sub(1) else {
            return false;
        };
        *left = less;
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if !add_modules(&path, left, modules) {
                return false;
            }
        } else if path.extension().is_some_and(|extension| extension == "lua") {
            let look = Look::at(&path);
            modules.insert(path, look);
        }
    }
    true
}
