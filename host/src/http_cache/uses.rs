//! Counts how often keys were asked for, in a table of fixed size: what is asked for once only need
//! not be stored. Two keys may share a counter: then one of them is stored a little early.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

const COUNTERS: usize = 1 << 16;

/// The counters of a route.
#[derive(Debug)]
pub struct Uses {
    hasher: RandomState,
    counters: Box<[AtomicU8]>,
    counted: AtomicUsize,
}

impl Default for Uses {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            counters: (0..COUNTERS).map(|_| AtomicU8::new(0)).collect(),
            counted: AtomicUsize::new(0),
        }
    }
}

impl Uses {
    /// One more; gives how many there were.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "part of a hash, cut to the table's size"
    )]
    pub fn count(&self, key: &[u8]) -> u8 {
        // Old keys make room: all counts are halved now and then.
        if self.counted.fetch_add(1, Ordering::Relaxed) >= COUNTERS * 8 {
            self.counted.store(0, Ordering::Relaxed);
            for counter in &self.counters {
                let _halved = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                    Some(count / 2)
                });
            }
        }
        let place = self.hasher.hash_one(key) as usize % COUNTERS;
        let more = |count: u8| Some(count.saturating_add(1));
        let counter = &self.counters[place];
        let before = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        before.unwrap_or(u8::MAX).saturating_add(1)
    }
}
