//! Counts what happens in a cache, in as many copies as threads come by, because one number that all
//! workers write would cost a hit more than its look-up.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

macro_rules! counters {
    ($($variant:ident $name:literal),+ $(,)?) => {
        /// What is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Counter { $(#[doc = $name] $variant),+ }

        /// The names, in the order of [`Counter`].
        pub(super) const NAMES: &[&str] = &[$($name),+];
    };
}

counters! {
    InstanceHits "l1_hits",
    MemoryHits "l2_hits",
    DiskHits "disk_hits",
    RemoteHits "l3_hits",
    Misses "misses",
    Stale "stale",
    Coalesced "coalesced",
    Timeouts "timeouts",
    Refused "busy",
    Fills "fills",
    Lost "lost",
    Failures "failures",
    CallbackMillis "callback_milliseconds",
    TooLarge "too_large",
    Sets "sets",
    Deletes "deletes",
    Purges "purges",
    Evictions "evictions",
    RemoteErrors "l3_errors",
    RemoteRefused "l3_refused",
    RemoteLater "l3_later",
    RemoteBytesRead "l3_bytes_read",
    RemoteBytesWritten "l3_bytes_written",
    Heard "l3_heard",
}

const COPIES: usize = 16;

/// A cache line's own, so that two workers do not take it from each other.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Copy([AtomicU64; NAMES.len()]);

/// The counters of one cache.
#[derive(Debug, Default)]
pub(super) struct Counters([Copy; COPIES]);

/// This thread's copy.
fn copy() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static MINE: Cell<usize> = const { Cell::new(usize::MAX) });
    MINE.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Ordering::Relaxed) % COPIES);
        }
        mine.get()
    })
}

impl Counters {
    /// One more.
    pub(super) fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Some more.
    pub(super) fn add(&self, counter: Counter, by: u64) {
        self.0[copy()].0[counter as usize].fetch_add(by, Ordering::Relaxed);
    }

    /// All, by name.
    #[must_use]
    pub(super) fn all(&self) -> Vec<(&'static str, u64)> {
        NAMES
            .iter()
            .enumerate()
            .map(|(place, name)| {
                let of = |copy: &Copy| copy.0[place].load(Ordering::Relaxed);
                (*name, self.0.iter().map(of).sum())
            })
            .collect()
    }
}
