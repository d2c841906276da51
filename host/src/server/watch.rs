//! Watching what a configuration depends on, because while somebody writes it nobody wants to send a
//! signal after every change.
//!
//! The system tells of changes in folders (editors and `kubectl` put new files in the place of old
//! ones); whether a file is another one is decided by looking at it. It is looked at before the
//! server reads it, so that a change during a reload leads to another reload, never to none.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::time::Instant;

use crate::config::Config;

/// A change is reported when so long nothing else has changed: editors write in several steps.
const QUIET: Duration = Duration::from_millis(50);
/// Nobody waits longer than this, however busy the folder is.
const MOST: Duration = Duration::from_millis(500);
/// The clock of files is a few milliseconds behind that of programs.
const COARSE: Duration = Duration::from_millis(20);

/// Entries of a folder of modules that are looked at when it is new; later the system tells.
const MOST_LOOKED_AT: usize = 10_000;

/// What a file looked like: device, number, length, time of change.
type Look = Option<(u64, u64, u64, SystemTime)>;

/// What is to be watched, and when it was read.
struct Watched {
    files: Vec<PathBuf>,
    /// Folders of Lua modules, with all that is below.
    modules: Vec<PathBuf>,
    read: SystemTime,
}

enum Note {
    /// Answered when the files are watched.
    Follow(Watched, Sender<()>),
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

    /// From now on the files of this configuration, which was read at `read`.
    pub(super) fn follow(&self, config: &Config, read: SystemTime) {
        let watched = Watched {
            files: config.files().map(absolute).collect(),
            modules: config.module_folders().iter().map(absolute).collect(),
            read,
        };
        let (done, answer) = channel();
        // The thread ends only with the watch.
        if self.notes.send(Note::Follow(watched, done)).is_ok() {
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
    looks: BTreeMap<PathBuf, Look>,
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
                Ok(Note::Follow(watched, done)) => {
                    let newer = self.follow(watched);
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
            let look = look(path);
            if look != *known {
                *known = look;
                changed.get_or_insert_with(|| path.clone());
            }
        }
        changed
    }

    /// Takes over what is to be watched; gives a new file that changed after it was read.
    fn follow(&mut self, watched: Watched) -> Option<PathBuf> {
        let mut folders = BTreeMap::new();
        for file in &watched.files {
            if let Some(folder) = file.parent() {
                folders.insert(folder.to_owned(), RecursiveMode::NonRecursive);
            }
        }
        for folder in watched.modules.iter().filter(|folder| folder.is_dir()) {
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
        let late = watched.read - COARSE;
        let mut newer = None;
        for folder in &watched.modules {
            if !self.modules.contains(folder) && newer.is_none() {
                newer = newer_module(folder, late, &mut { MOST_LOOKED_AT });
            }
        }
        self.modules = watched.modules;
        let looks = watched.files.into_iter().map(|path| {
            let known = self.looks.get(&path).copied();
            let look = known.unwrap_or_else(|| look(&path));
            (path, look)
        });
        let looks: BTreeMap<_, _> = looks.collect();
        let file = looks.iter().find(|(path, look)| {
            !self.looks.contains_key(*path) && look.is_some_and(|(_, _, _, time)| time >= late)
        });
        let newer = file.map(|(path, _)| path.clone()).or(newer);
        self.looks = looks;
        newer
    }
}

/// A Lua module below a folder that changed since; at most so many entries are looked at.
fn newer_module(folder: &Path, since: SystemTime, left: &mut usize) -> Option<PathBuf> {
    for entry in std::fs::read_dir(folder).ok()?.flatten() {
        *left = left.checked_sub(1)?;
        let path = entry.path();
        let Ok(found) = entry.metadata() else {
            continue;
        };
        if found.is_dir() {
            if let Some(newer) = newer_module(&path, since, left) {
                return Some(newer);
            }
        } else if path.extension().is_some_and(|extension| extension == "lua")
            && found.modified().is_ok_and(|time| time >= since)
        {
            return Some(path);
        }
    }
    None
}

fn look(path: &Path) -> Look {
    let found = std::fs::metadata(path).ok()?;
    Some((
        found.dev(),
        found.ino(),
        found.len(),
        found.modified().ok()?,
    ))
}
