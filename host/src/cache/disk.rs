//! The level on disk: what a process had in memory when it ended, and what memory has no room for.
//!
//! The values are in a store of foyer's, which evicts whole blocks, the oldest first. Such a store alone
//! may give an older value of a key when it is opened again, so what overtook what is kept beside it, in
//! the [`ledger`]. A value is given only when its key, its sums and its turn are right.
//!
//! No worker touches the disk: the [`writer`]'s thread and a few others do. A worker waits for them where
//! it must, not longer than `timeout`, and drops what finds no room in the `queue`.

mod folder;
mod ledger;
mod purges;
mod shared;
mod value;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use foyer::Load;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::entry::Entry;
use super::purges::{Known, Record};
use crate::config::model::DiskLevel;
use crate::observe::error_log::Level as LogLevel;
use crate::time_cache;
use folder::{Folder, Layout, Past};
use shared::{Job, Opened, Purging, Shared, Write, add};
pub(super) use value::Held;
use value::decode;

/// Look-ups that are under way; one more is a miss.
const READS: usize = 256;
/// Doubts, by key: one too many costs a look into Redis.
const DOUBTS: usize = 8192;
/// How long a start waits for what is on disk; after that it is found bit by bit.
const OPENING: Duration = Duration::from_secs(1);
/// How long an emptying may take: it waits for the disk itself.
const EMPTYING: Duration = Duration::from_secs(5);
/// How long the end of a level is waited for.
const ENDING: Duration = Duration::from_secs(3);
/// How often it is looked whether a folder was given back.
const LOOK: Duration = Duration::from_millis(20);

/// The level on disk of one cache.
pub(super) struct Disk {
    shared: Arc<Shared>,
    path: PathBuf,
    jobs: mpsc::UnboundedSender<Job>,
    purging: mpsc::UnboundedSender<Purging>,
    reads: Arc<Semaphore>,
    /// The cache's epoch after its last emptying.
    epoch: AtomicU64,
    /// Until which turn values are to be compared with what servers share, by key.
    doubts: Box<[AtomicU64]>,
    /// The purges of before.
    pub(super) known: Arc<Known>,
}

/// Where a level stands once there is one: it is opened late where the folder was another's.
#[derive(Debug, Clone, Default)]
pub(super) struct Slot(Arc<OnceLock<Arc<Disk>>>);

impl PartialEq for Slot {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Slot {
    pub(super) fn get(&self) -> Option<&Arc<Disk>> {
        self.0.get()
    }

    pub(super) fn put(&self, disk: Arc<Disk>) {
        let _first = self.0.set(disk).is_ok();
    }

    /// Whether it serves a configuration as it is.
    pub(super) fn serves(&self, cache: &str, level: &DiskLevel) -> bool {
        self.get().is_some_and(|disk| disk.serves(cache, level))
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// The levels of this process, to be ended with it, and how many threads are not at their end.
static OPEN: Mutex<Vec<Weak<Disk>>> = Mutex::new(Vec::new());
static LIVE: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// Counts a thread as long as it lives.
struct Live;

impl Live {
    fn begin() -> Self {
        *LIVE.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        *LIVE.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        LIVE.1.notify_all();
    }
}

/// Writes what waits for any disk: the process ends.
pub(super) fn close_all() {
    let open = std::mem::take(&mut *OPEN.lock().unwrap_or_else(PoisonError::into_inner));
    for disk in open.iter().filter_map(Weak::upgrade) {
        disk.close();
    }
    let live = LIVE.0.lock().unwrap_or_else(PoisonError::into_inner);
    let _ended = LIVE.1.wait_timeout_while(live, ENDING, |live| *live > 0);
}

/// A folder; one that a level of this process is about to give back is waited for.
fn take(path: &Path) -> Result<Folder, String> {
    let deadline = Instant::now() + ENDING;
    loop {
        match Folder::take(path)? {
            Some(folder) => return Ok(folder),
            None if Instant::now() >= deadline => {
                return Err(format!("{}: this process uses it", path.display()));
            }
            None => {}
        }
        let live = LIVE.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _one_ended = LIVE.1.wait_timeout(live, LOOK);
    }
}

impl Disk {
    /// Opens what is there, or makes it.
    ///
    /// # Errors
    /// When the folder cannot be used, or another process uses it.
    pub(super) fn open(cache: &str, level: &DiskLevel) -> Result<Arc<Self>, String> {
        let folder = take(&level.path)?;
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", level.path.display());
        let layout = Layout::of(level.size);
        let (ledger, past) = folder.open(cache, layout).map_err(|error| failed(&error))?;
        let mut known = Known::default();
        let log =
            purges::PurgeLog::open(&folder.purges(), &mut known).map_err(|error| failed(&error))?;
        let shared = Arc::new(Shared::new(cache, folder, layout, ledger));
        if past == Past::ThrownAway {
            let message = format!(
                "{}: what was there is another cache's, of another `size`, or damaged: the level on disk begins empty",
                level.path.display()
            );
            shared.tell(LogLevel::Warn, &message);
        }
        let (jobs, work) = mpsc::unbounded_channel();
        let (purging, to_purge) = mpsc::unbounded_channel();
        let work = writer::Work {
            jobs: work,
            purging: to_purge,
            log: Arc::new(parking_lot::Mutex::new(log)),
            found: past == Past::Kept,
        };
        let opening = writer::start(shared.clone(), work).map_err(|error| failed(&error))?;
        opening.wait(OPENING).map_err(|error| failed(&error))?;
        let disk = Arc::new(Self {
            shared,
            path: level.path.clone(),
            jobs,
            purging,
            reads: Arc::new(Semaphore::new(READS)),
            epoch: AtomicU64::new(0),
            doubts: (0..DOUBTS).map(|_| AtomicU64::new(0)).collect(),
            known: Arc::new(known),
        });
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|other| other.strong_count() > 0);
        open.push(Arc::downgrade(&disk));
        drop(open);
        Ok(disk)
    }

    /// Whether it serves a configuration as it is.
    fn serves(&self, cache: &str, level: &DiskLevel) -> bool {
        self.path == level.path
            && self.shared.cache == cache
            && self.shared.layout.size == level.size
            && !self.shared.is_off()
    }

    /// Whether it has ended.
    pub(super) fn is_off(&self) -> bool {
        self.shared.is_off()
    }

    /// From now on it gives nothing and takes nothing.
    fn close(&self) {
        let _told = self.jobs.send(Job::Close).is_ok();
    }

    /// Ends it, so that its folder can be taken by the next; waits for that.
    pub(super) fn retire(&self) {
        self.shared.off.store(true, Ordering::SeqCst);
        self.close();
        let live = LIVE.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *live;
        let _ended = LIVE
            .1
            .wait_timeout_while(live, ENDING, |live| *live >= before);
    }

    /// The turn of what begins now.
    pub(super) fn turn(&self) -> u64 {
        self.shared.ledger.turn()
    }

    /// Looks for a key.
    pub(super) async fn load(&self, key: &[u8], timeout: Duration, most: u64) -> Option<Held> {
        let held = self.look(key, timeout, most).await;
        if held.is_none() {
            add(&self.shared.counts.misses, 1);
        }
        held
    }

    async fn look(&self, key: &[u8], timeout: Duration, most: u64) -> Option<Held> {
        let shared = &self.shared;
        let opened = shared.store.read().clone();
        let Opened { store, runtime } = opened.filter(|_| !shared.is_off())?;
        if !store.storage().may_contains(key) {
            return None;
        }
        // One who finds the disk busy asks the next level; what hangs in the disk is bounded so.
        let permit = self.reads.clone().try_acquire_owned().ok()?;
        let own = key.to_vec();
        let reading = runtime.spawn(async move {
            let loaded = store.storage().load(&own[..]).await;
            drop(permit);
            match loaded {
                Ok(Load::Entry { value, .. }) => Ok(Some(value)),
                Ok(Load::Piece { piece, .. }) => Ok(Some(piece.value().clone())),
                Ok(Load::Miss | Load::Throttled) => Ok(None),
                Err(error) => Err(error.to_string()),
            }
        });
        let value = match tokio::time::timeout(timeout, reading).await {
            Ok(Ok(Ok(value))) => value?,
            Ok(Ok(Err(error))) => return self.failed(&format!("a value was not read: {error}")),
            Ok(Err(_)) => return None,
            Err(_) => return self.failed("a value was not read: the disk takes too long"),
        };
        match decode(key, &value, most) {
            Ok(held) => {
                let counts = shared.ledger.counts(key, held.turn)
                    && held.entry.keep > time_cache::clock_ms();
                counts.then_some(held)
            }
            Err(why) => {
                let key = key.escape_ascii();
                self.failed(&format!("what the disk has for `{key}` is no value: {why}"))
            }
        }
    }

    fn failed<T>(&self, message: &str) -> Option<T> {
        add(&self.shared.counts.errors, 1);
        self.shared.say(LogLevel::Warn, message);
        None
    }

    /// Whether a value is known to be what all servers have.
    pub(super) fn trusts(&self, key: &[u8], held: &Held, trust: u64) -> bool {
        self.is_own(held)
            && held.entry.trust == trust
            && held.turn >= self.doubt(key).load(Ordering::SeqCst)
    }

    /// Whether a value was written by this process.
    pub(super) fn is_own(&self, held: &Held) -> bool {
        self.shared.ledger.is_own(held.turn)
    }

    fn doubt(&self, key: &[u8]) -> &AtomicU64 {
        &self.doubts[crc32fast::hash(key) as usize % DOUBTS]
    }

    /// Another server has brought a value of its own: what is here serves if nothing better is.
    pub(super) fn distrust(&self, key: &[u8]) {
        self.doubt(key).fetch_max(self.turn(), Ordering::SeqCst);
    }

    /// What is here of a key is none from now on; gives the turn of what comes instead. `surely`: also
    /// what this process does not know to be there.
    pub(super) fn overtake(&self, key: &[u8], surely: bool) -> u64 {
        let turn = self.turn();
        if surely || self.shared.may_have(key) {
            self.shared.ledger.overtake(key, turn);
            self.shared.ask(false);
        }
        turn
    }

    /// What is here of a key from before that turn is none.
    pub(super) fn overtake_before(&self, key: &[u8], turn: u64) {
        if self.shared.may_have(key) {
            self.shared.ledger.overtake(key, turn);
            self.shared.ask(false);
        }
    }

    /// A change is to be kept, however this process ends: waits until it is.
    pub(super) async fn keep(&self, timeout: Duration) {
        let number = self.shared.ask(false);
        self.written(number, timeout, "a change is not kept yet")
            .await;
    }

    async fn written(&self, number: u64, timeout: Duration, late: &str) {
        if self.shared.is_off() {
            return;
        }
        let mut done = self.shared.done.subscribe();
        let waited = tokio::time::timeout(timeout, done.wait_for(|done| *done >= number)).await;
        if waited.is_err() {
            let _none: Option<()> = self.failed(&format!("{late}: the disk takes too long"));
        }
    }

    /// Takes a value that came at that turn.
    pub(super) fn store(&self, key: &[u8], entry: &Arc<Entry>, turn: u64, level: &DiskLevel) {
        let shared = &self.shared;
        let now = time_cache::clock_ms();
        let short = entry.keep < now.saturating_add(level.min_ttl);
        // A purge of now takes its turn after it has set the epoch.
        if short || entry.epoch < self.epoch.load(Ordering::SeqCst) {
            return;
        }
        let value = entry.value.as_ref().map_or(0, Bytes::len);
        if (key.len() + value + 256) as u64 > shared.layout.longest {
            add(&shared.counts.dropped, 1);
            return;
        }
        self.send(key, Some(entry.clone()), turn, level.queue);
    }

    /// Takes a key away that was overtaken, so that it takes no room in tables.
    pub(super) fn remove(&self, key: &[u8], turn: u64, level: &DiskLevel) {
        if self.shared.may_have(key) {
            self.send(key, None, turn, level.queue);
        }
    }

    fn send(&self, key: &[u8], entry: Option<Arc<Entry>>, turn: u64, queue: usize) {
        let shared = &self.shared;
        let write = Write {
            key: key.into(),
            entry,
            turn,
        };
        let weight = write.weight();
        let before = shared.queued.fetch_add(weight, Ordering::SeqCst);
        if before.saturating_add(weight) > queue || shared.is_off() {
            shared.queued.fetch_sub(weight, Ordering::SeqCst);
            if write.entry.is_some() {
                add(&shared.counts.dropped, 1);
            }
            return;
        }
        shared.waiting(key).fetch_add(1, Ordering::SeqCst);
        let _sent = self.jobs.send(Job::Write(write)).is_ok();
    }

    /// Nothing that came before is given after this, however the process ends.
    pub(super) async fn purge(&self, epoch: u64) {
        let number = self.empty(epoch);
        self.written(number, EMPTYING, "the disk is not emptied yet")
            .await;
    }

    /// As [`purge`](Self::purge); the file follows.
    pub(super) fn empty(&self, epoch: u64) -> u64 {
        let before = self.epoch.fetch_max(epoch, Ordering::SeqCst);
        if before >= epoch {
            // As in memory: what came between two at the same time is of neither's epoch.
            self.epoch.fetch_add(1, Ordering::SeqCst);
        }
        self.shared.ledger.purge(self.turn());
        self.shared.ask(true)
    }

    /// A purge of answers is kept, however the process ends.
    pub(super) async fn purge_answers(&self, record: Record<'_>, known: Arc<Known>) {
        let Some(kept) = self.send_purge(record, known) else {
            return;
        };
        if tokio::time::timeout(EMPTYING, kept).await.is_err() {
            let _none: Option<()> = self.failed("a purge is not kept yet: the disk takes too long");
        }
    }

    /// As [`purge_answers`](Self::purge_answers); the file follows.
    pub(super) fn note_purge(&self, record: Record<'_>, known: Arc<Known>) {
        drop(self.send_purge(record, known));
    }

    fn send_purge(&self, record: Record<'_>, known: Arc<Known>) -> Option<oneshot::Receiver<()>> {
        let (done, kept) = oneshot::channel();
        let purging = Purging {
            member: record.member(),
            at: record.at(),
            known,
            done,
        };
        let sent = !self.shared.is_off() && self.purging.send(purging).is_ok();
        sent.then_some(kept)
    }

    /// What was counted, by name.
    pub(super) fn counted(&self, all: &mut Vec<(&'static str, u64)>) {
        let counts = &self.shared.counts;
        for (name, count) in [
            ("disk_misses", &counts.misses),
            ("disk_writes", &counts.writes),
            ("disk_dropped", &counts.dropped),
            ("disk_errors", &counts.errors),
            ("disk_bytes", &counts.bytes),
        ] {
            all.push((name, count.load(Ordering::Relaxed)));
        }
        all.push((
            "disk_waiting",
            self.shared.queued.load(Ordering::Relaxed) as u64,
        ));
    }
}
