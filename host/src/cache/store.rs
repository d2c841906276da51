//! What all workers share of one cache: the values' bytes, the counters of changes, and the board on
//! which flights stand. It outlives a generation, so a reload keeps the values.
//!
//! A change is made in this order, under its key's lock: the value is stored (or taken away), then the
//! slot's counter of changes goes up, then the call returns. A reader takes the counter first and the
//! value second. So a copy that carries the newest count was read after that change.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use foldhash::fast::RandomState;
use parking_lot::{Mutex, MutexGuard};

use super::counters::Counters;
use super::entry::{Entry, Stamp};
use super::flight::{Flying, Landing};
use super::maps::{Maps, Sizes};
use crate::time_cache;

/// Counters of changes: a change of one key makes copies of one in so many others be read again.
const SLOTS: usize = 8192;
/// Locks; far more than workers, so that two seldom meet.
const SHARDS: usize = 64;

/// Flights by key.
pub(super) type Board = HashMap<Box<[u8]>, Flying>;

/// What stays of one cache whatever becomes of its configuration.
#[derive(Debug)]
pub(super) struct Common {
    hasher: RandomState,
    slots: Box<[AtomicU64]>,
    /// When it was emptied last, in milliseconds since 1970; later when that happened twice in one.
    epoch: AtomicU64,
    /// When the servers that share values began to hear of each other.
    trust: AtomicU64,
    /// The trust that began when the level which they share was found emptied.
    emptied: AtomicU64,
    written: AtomicU64,
    boards: Box<[Mutex<Board>]>,
    flights: AtomicU64,
    /// Callers that wait now.
    pub(super) waiting: AtomicUsize,
    pub(super) purges: super::purges::Purges,
    /// The maps of all generations that live; more than one only while an older generation ends.
    maps: Mutex<Vec<Weak<Maps>>>,
    several: AtomicBool,
}

/// What all workers share of one cache.
pub(super) struct Store {
    pub(super) common: Arc<Common>,
    pub(super) counters: Arc<Counters>,
    maps: Arc<Maps>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("values", &self.filled().0)
            .finish_non_exhaustive()
    }
}

/// A key with what follows from its hash.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) slot: u32,
    shard: usize,
}

impl Store {
    pub(super) fn new(sizes: Sizes) -> Self {
        let common = Common {
            hasher: RandomState::default(),
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            epoch: AtomicU64::new(time_cache::clock_ms()),
            trust: AtomicU64::new(time_cache::clock_ms()),
            emptied: AtomicU64::new(0),
            written: AtomicU64::new(0),
            boards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            flights: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            purges: super::purges::Purges::default(),
            maps: Mutex::default(),
            several: AtomicBool::new(false),
        };
        Self::with(Arc::new(common), Arc::default(), sizes)
    }

    /// Empty maps of other sizes for the next generation; changes, flights and counts are the same ones, so
    /// that what is changed by one generation is seen by the other.
    pub(super) fn resized(&self, sizes: Sizes) -> Self {
        Self::with(self.common.clone(), self.counters.clone(), sizes)
    }

    fn with(common: Arc<Common>, counters: Arc<Counters>, sizes: Sizes) -> Self {
        let maps = Arc::new(Maps::new(sizes, &counters));
        let mut all = common.maps.lock();
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&maps));
        common.several.store(all.len() > 1, Ordering::SeqCst);
        drop(all);
        Self {
            common,
            counters,
            maps,
        }
    }

    /// What other generations have of a key is none.
    fn remove_elsewhere(&self, key: &[u8]) {
        if !self.common.several.load(Ordering::SeqCst) {
            return;
        }
        let mut all = self.common.maps.lock();
        all.retain(|other| other.strong_count() > 0);
        self.common.several.store(all.len() > 1, Ordering::SeqCst);
        let others: Vec<_> = all.iter().filter_map(Weak::upgrade).collect();
        drop(all);
        for other in others {
            if !Arc::ptr_eq(&other, &self.maps) {
                other.remove(key);
            }
        }
    }

    /// How much there may be.
    pub(super) fn sizes(&self) -> Sizes {
        self.maps.sizes
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "parts of a hash, cut to their range"
    )]
    pub(super) fn place(&self, key: &[u8]) -> Place {
        let hash = self.common.hasher.hash_one(key);
        Place {
            slot: (hash as usize % SLOTS) as u32,
            shard: (hash >> 32) as usize % SHARDS,
        }
    }

    pub(super) fn board(&self, place: Place) -> MutexGuard<'_, Board> {
        self.common.boards[place.shard].lock()
    }

    pub(super) fn epoch(&self) -> u64 {
        self.common.epoch.load(Ordering::SeqCst)
    }

    pub(super) fn trust(&self) -> u64 {
        self.common.trust.load(Ordering::SeqCst)
    }

    /// Changes that other servers made may have been missed. `emptied`: what they share has been emptied,
    /// too, so what it lacks says nothing.
    pub(super) fn distrust(&self, emptied: bool) {
        let now = time_cache::clock_ms().max(self.trust() + 1);
        if emptied {
            self.common.emptied.store(now, Ordering::SeqCst);
        }
        self.common.trust.store(now, Ordering::SeqCst);
    }

    /// Whether what servers share was emptied after an entry of this trust.
    pub(super) fn emptied_since(&self, trust: u64) -> bool {
        self.common.emptied.load(Ordering::SeqCst) > trust
    }

    /// The time of a change; no two have the same.
    pub(super) fn written(&self) -> u64 {
        let now = time_cache::clock_ms();
        let next = |last: u64| Some(now.max(last + 1));
        let (take, look) = (Ordering::SeqCst, Ordering::SeqCst);
        match self.common.written.fetch_update(take, look, next) {
            Ok(last) | Err(last) => now.max(last + 1),
        }
    }

    /// Another server has changed a key. `change`: what a flight brings now was asked for before that;
    /// else it brought the value of a flight of its own, and what is here serves if nothing better is.
    pub(super) fn changed_elsewhere(&self, key: &[u8], change: bool) {
        let place = self.place(key);
        let mut board = self.board(place);
        match self.read(key) {
            Some(entry) if !change => {
                let doubtful = Entry {
                    trust: 0,
                    ..Entry::clone(&entry)
                };
                self.write(key, Arc::new(doubtful));
            }
            _ => self.remove(key),
        }
        self.changed(place.slot);
        let flying = match board.get_mut(key) {
            Some(flying) if flying.held => {
                flying.overtaken = true;
                None
            }
            Some(_) if change => board.remove(key),
            _ => None,
        };
        drop(board);
        if let Some(flying) = flying {
            flying.land(|| Landing::Again);
        }
    }

    /// Changes of a slot so far; no number comes twice, because all parts only grow.
    pub(super) fn version(&self, slot: u32) -> Option<u64> {
        let changes = self.common.slots.get(slot as usize)?.load(Ordering::SeqCst);
        Some(
            changes
                .wrapping_add(self.epoch())
                .wrapping_add(self.trust()),
        )
    }

    /// A change is seen by all when this returns.
    pub(super) fn changed(&self, slot: u32) {
        if let Some(slot) = self.common.slots.get(slot as usize) {
            slot.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// The stamp of what is read after this.
    pub(super) fn stamp(&self, slot: u32) -> Stamp {
        Stamp {
            slot,
            version: self.version(slot).unwrap_or(0),
            until: 0,
        }
    }

    /// What is under a key, in time or not.
    pub(super) fn read(&self, key: &[u8]) -> Option<Arc<Entry>> {
        let entry = self.maps.read(key)?;
        (entry.epoch == self.epoch()).then_some(entry)
    }

    /// Whether it fits at all; what does not is taken away, for it would be an older value.
    pub(super) fn write(&self, key: &[u8], entry: Arc<Entry>) -> bool {
        self.remove_elsewhere(key);
        self.maps.write(key, entry)
    }

    /// Whether something that was just written stays until there is newer.
    pub(super) fn stays(&self, key: &[u8], entry: &Entry) -> bool {
        self.maps.stays(key, entry)
    }

    pub(super) fn remove(&self, key: &[u8]) {
        self.remove_elsewhere(key);
        self.maps.remove(key);
    }

    /// The epoch that begins with an emptying.
    pub(super) fn next_epoch(&self) -> u64 {
        time_cache::clock_ms().max(self.epoch() + 1)
    }

    /// Nothing that was stored before is seen after this; its memory is freed bit by bit.
    pub(super) fn empty(&self, epoch: u64) {
        let before = self.common.epoch.fetch_max(epoch, Ordering::SeqCst);
        if before >= epoch {
            // Another emptied it at the same time: what came between is of neither's epoch.
            self.common.epoch.fetch_add(1, Ordering::SeqCst);
        }
        self.maps.empty();
    }

    pub(super) fn next_flight(&self) -> u64 {
        self.common.flights.fetch_add(1, Ordering::Relaxed)
    }

    /// How many values there are, and their bytes: an estimate.
    pub(super) fn filled(&self) -> (u64, u64) {
        self.maps.filled()
    }

    /// Does now what the maps do by and by.
    #[cfg(test)]
    pub(super) fn settle(&self) {
        self.maps.settle();
    }
}
