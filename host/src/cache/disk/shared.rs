//! What the thread of a level on disk and the workers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use foyer::HybridCache;
use parking_lot::RwLock;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};

use super::super::entry::Entry;
use super::super::purges::Known;
use super::folder::{Folder, Layout};
use super::ledger::Ledger;
use crate::observe::error_log::{self, Context, Level as LogLevel};
use crate::observe::seldom::Seldom;

/// Counts of values that wait, by key.
const WAITING: usize = 8192;

pub(super) type Store = HybridCache<Vec<u8>, Bytes>;

/// A store that is open, and where its work is done.
#[derive(Clone)]
pub(super) struct Opened {
    pub(super) store: Store,
    pub(super) runtime: Handle,
}

/// What is counted of a level.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) misses: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) bytes: AtomicU64,
}

pub(super) fn add(count: &AtomicU64, by: u64) {
    count.fetch_add(by, Ordering::Relaxed);
}

/// What the level's thread is told.
pub(super) enum Job {
    Write(Write),
    /// What waits is written, then the folder is given back.
    Close,
}

/// A value for the disk; none takes the key away.
pub(super) struct Write {
    pub(super) key: Box<[u8]>,
    pub(super) entry: Option<Arc<Entry>>,
    pub(super) turn: u64,
}

impl Write {
    pub(super) fn weight(&self) -> usize {
        let entry = self.entry.as_ref();
        let value = entry.map_or(256, |entry| entry.weight(&self.key));
        usize::try_from(value).unwrap_or(usize::MAX)
    }
}

/// A purge of answers, which is acknowledged.
pub(super) struct Purging {
    /// What it is, without its moment.
    pub(super) member: Vec<u8>,
    pub(super) at: u64,
    pub(super) known: Arc<Known>,
    pub(super) done: oneshot::Sender<()>,
}

/// What the thread and the workers share.
pub(super) struct Shared {
    pub(super) cache: String,
    pub(super) folder: Folder,
    pub(super) layout: Layout,
    pub(super) ledger: Ledger,
    pub(super) store: RwLock<Option<Opened>>,
    pub(super) counts: Counts,
    /// Values that wait, by key.
    pub(super) waiting: Box<[AtomicUsize]>,
    /// Bytes that wait.
    pub(super) queued: AtomicUsize,
    /// Neither read nor written any more.
    pub(super) off: AtomicBool,
    /// How often the ledger was to be written, and whether on the disk itself.
    pub(super) asked: AtomicU64,
    pub(super) sync: AtomicBool,
    pub(super) wake: Notify,
    pub(super) done: watch::Sender<u64>,
    pub(super) said: Seldom,
}

impl Shared {
    pub(super) fn new(cache: &str, folder: Folder, layout: Layout, ledger: Ledger) -> Self {
        Self {
            cache: cache.to_owned(),
            folder,
            layout,
            ledger,
            store: RwLock::new(None),
            counts: Counts::default(),
            waiting: (0..WAITING).map(|_| AtomicUsize::new(0)).collect(),
            queued: AtomicUsize::new(0),
            off: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            sync: AtomicBool::new(false),
            wake: Notify::new(),
            done: watch::Sender::new(0),
            said: Seldom::default(),
        }
    }

    pub(super) fn waiting(&self, key: &[u8]) -> &AtomicUsize {
        &self.waiting[crc32fast::hash(key) as usize % WAITING]
    }

    pub(super) fn is_off(&self) -> bool {
        self.off.load(Ordering::SeqCst)
    }

    /// A line in the log, not too often.
    pub(super) fn say(&self, level: LogLevel, message: &str) {
        if self.said.may_speak() {
            self.tell(level, message);
        }
    }

    pub(super) fn tell(&self, level: LogLevel, message: &str) {
        let message = format!("cache `{}`: {message}", self.cache);
        error_log::write(level, &Context::default(), message);
    }

    /// The ledger is to be written; gives the number to wait for.
    pub(super) fn ask(&self, sync: bool) -> u64 {
        if sync {
            self.sync.store(true, Ordering::SeqCst);
        }
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        self.wake.notify_one();
        number
    }

    /// Whether something older of a key may be found.
    pub(super) fn may_have(&self, key: &[u8]) -> bool {
        self.waiting(key).load(Ordering::SeqCst) > 0
            || match &*self.store.read() {
                Some(opened) => opened.store.storage().may_contains(key),
                None => true,
            }
    }
}
