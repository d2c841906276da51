//! The maps of memory: three within one size, because one would let what nobody has, or what is new, stand
//! against what is used.
//!
//! - *values* admits by frequency: what is seldom used goes, new or old.
//! - *newest* has what was written last, whether it was admitted or not: what was just set is there when
//!   it is asked for, and earns its place by that. It shares the bytes of what both have.
//! - *negatives* has what there is no value for: a flood of keys that nobody has throws out its own.
//!
//! A key's writes come one after the other, under its lock. A reader without a lock may look while a key
//! moves from one map to another: that it misses costs a look under the lock.

use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use moka::policy::EvictionPolicy;

use super::counters::{Counter, Counters};
use super::entry::{Entry, FOR_EVER};
use crate::config::model::Cache as Config;
use crate::time_cache;

/// The newest have an eighth.
const NEWEST: u64 = 8;

type Map = moka::sync::Cache<Box<[u8]>, Arc<Entry>, RandomState>;

/// How much there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Of values; the longest value, too.
    pub(super) values: u64,
    /// Of those that were written last, admitted or not.
    pub(super) newest: u64,
    /// Of what there is no value for.
    pub(super) negatives: u64,
}

impl Sizes {
    /// The parts of a configuration's size.
    pub(super) fn of(config: &Config) -> Self {
        let newest = config.size / NEWEST;
        Self {
            values: config.size.saturating_sub(newest + config.negative),
            newest,
            negatives: config.negative,
        }
    }
}

#[expect(clippy::disallowed_types, reason = "the map's own clock")]
type Moment = std::time::Instant;

/// Lets a map forget an entry when it is no good for anything any more.
struct Keep;

impl Keep {
    fn left(entry: &Entry) -> Option<Duration> {
        if entry.keep == FOR_EVER {
            return None;
        }
        let left = entry.keep.saturating_sub(time_cache::clock_ms());
        Some(Duration::from_millis(left))
    }
}

impl moka::Expiry<Box<[u8]>, Arc<Entry>> for Keep {
    fn expire_after_create(
        &self,
        _key: &Box<[u8]>,
        entry: &Arc<Entry>,
        _now: Moment,
    ) -> Option<Duration> {
        Self::left(entry)
    }

    fn expire_after_update(
        &self,
        _key: &Box<[u8]>,
        entry: &Arc<Entry>,
        _now: Moment,
        _left: Option<Duration>,
    ) -> Option<Duration> {
        Self::left(entry)
    }
}

/// What memory holds.
#[derive(Debug)]
pub(super) struct Maps {
    values: Map,
    newest: Map,
    negatives: Map,
    pub(super) sizes: Sizes,
}

fn map(size: u64, policy: EvictionPolicy, evicted: Option<Arc<Counters>>) -> Map {
    let builder = moka::sync::Cache::<Box<[u8]>, Arc<Entry>>::builder()
        .max_capacity(size)
        .eviction_policy(policy)
        .weigher(|key, entry| u32::try_from(entry.weight(key)).unwrap_or(u32::MAX))
        .expire_after(Keep);
    let builder = match evicted {
        Some(counters) => builder.eviction_listener(move |_, _, cause| {
            if cause == moka::notification::RemovalCause::Size {
                counters.count(Counter::Evictions);
            }
        }),
        None => builder,
    };
    builder.build_with_hasher(RandomState::default())
}

impl Maps {
    pub(super) fn new(sizes: Sizes, counters: &Arc<Counters>) -> Self {
        let count = || Some(counters.clone());
        Self {
            values: map(sizes.values, EvictionPolicy::tiny_lfu(), count()),
            newest: map(sizes.newest, EvictionPolicy::lru(), None),
            negatives: map(sizes.negatives, EvictionPolicy::lru(), count()),
            sizes,
        }
    }

    pub(super) fn read(&self, key: &[u8]) -> Option<Arc<Entry>> {
        let newest = || self.newest.get(key);
        let negative = || self.negatives.get(key);
        self.values.get(key).or_else(newest).or_else(negative)
    }

    /// Whether it fits at all; what does not is taken away, for it would be an older value.
    pub(super) fn write(&self, key: &[u8], entry: Arc<Entry>) -> bool {
        let weight = entry.weight(key);
        if entry.value.is_none() {
            let fits = weight <= self.sizes.negatives;
            if fits {
                self.negatives.insert(key.into(), entry);
            } else {
                self.negatives.invalidate(key);
            }
            self.newest.invalidate(key);
            self.values.invalidate(key);
            return fits;
        }
        if weight > self.sizes.values {
            self.remove(key);
            return false;
        }
        if weight <= self.sizes.newest {
            self.newest.insert(key.into(), entry.clone());
        } else {
            self.newest.invalidate(key);
        }
        self.values.insert(key.into(), entry);
        self.negatives.invalidate(key);
        true
    }

    /// Whether something that was just written stays until there is newer: among the newest it does; what
    /// is too long for that is admitted, or not.
    pub(super) fn stays(&self, key: &[u8], entry: &Entry) -> bool {
        if entry.value.is_none() || entry.weight(key) <= self.sizes.newest {
            return true;
        }
        self.values.run_pending_tasks();
        self.values.contains_key(key)
    }

    pub(super) fn remove(&self, key: &[u8]) {
        self.values.invalidate(key);
        self.newest.invalidate(key);
        self.negatives.invalidate(key);
    }

    /// Frees what came before, bit by bit.
    pub(super) fn empty(&self) {
        self.values.invalidate_all();
        self.newest.invalidate_all();
        self.negatives.invalidate_all();
    }

    /// How many there are, and their bytes: an estimate.
    pub(super) fn filled(&self) -> (u64, u64) {
        let of = |map: &Map| (map.entry_count(), map.weighted_size());
        let (values, negatives) = (of(&self.values), of(&self.negatives));
        (values.0 + negatives.0, values.1 + negatives.1)
    }

    /// Does now what the maps do by and by.
    #[cfg(test)]
    pub(super) fn settle(&self) {
        for map in [&self.values, &self.newest, &self.negatives] {
            map.run_pending_tasks();
        }
    }
}
