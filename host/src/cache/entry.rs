//! What a cache holds under a key, and what a look-up gives: their times are absolute, in
//! milliseconds since the epoch, so that an entry can move between levels and keep its end.

use bytes::Bytes;

/// The end of what lives for ever.
pub(super) const FOR_EVER: u64 = u64::MAX;

/// A value, or that there is none, with its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The value; none is remembered, too.
    pub value: Option<Bytes>,
    /// Until when it serves without a question.
    pub until: u64,
    /// From when on somebody should bring a new one: `until`, or earlier.
    pub due: u64,
    /// When its time to live was over: later than `until` never, earlier when it was brought back.
    pub ended: u64,
    /// Until when it is kept for the case that its source fails.
    pub keep: u64,
    /// The emptying of the cache after which it came, in milliseconds since 1970.
    pub epoch: u64,
    /// When it was made, in milliseconds since 1970, and later than what this process made before.
    pub written: u64,
    /// Since when what other servers change is heard of without a gap; of an older one it is not known
    /// whether it is what all have.
    pub trust: u64,
}

impl Entry {
    /// Whether it is past its own time to live, brought back or not.
    #[must_use]
    pub fn is_stale(&self, now: u64) -> bool {
        self.ended <= now
    }

    /// Milliseconds left; `None` is for ever.
    #[must_use]
    pub fn remaining(&self, now: u64) -> Option<i64> {
        if self.until == FOR_EVER {
            return None;
        }
        let signed = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
        Some(signed(self.until) - signed(now))
    }

    /// What it takes of the memory: itself, its key and the tables around it.
    #[must_use]
    pub fn weight(&self, key: &[u8]) -> u64 {
        /// Measured on the maps: two nodes, the table's slot, two shared counts.
        const OVERHEAD: usize = 256;
        let value = self.value.as_ref().map_or(0, Bytes::len);
        (OVERHEAD + key.len() + value) as u64
    }
}

/// The end of a time to live; 0 is for ever.
#[must_use]
pub(super) fn end_of(now: u64, ttl: u64) -> u64 {
    match ttl {
        0 => FOR_EVER,
        ttl => now.saturating_add(ttl),
    }
}

/// Where a value was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// In the process's memory.
    Memory,
    /// On disk.
    Disk,
    /// In Redis.
    Remote,
    /// The source was asked, by this caller or by another for whom it waited.
    Callback,
}

/// What tells whether a copy is still what the cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Where its changes are counted.
    pub slot: u32,
    /// How many there were.
    pub version: u64,
    /// When it expires; 0: it must not be kept.
    pub until: u64,
}

/// What a look-up gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The value; none is an answer, too.
    pub value: Option<Bytes>,
    /// Where it was.
    pub level: Level,
    /// Past its time to live.
    pub stale: bool,
    /// Milliseconds left; `None` is for ever.
    pub remaining: Option<i64>,
    /// For a copy.
    pub stamp: Stamp,
}

/// Why there is neither a value nor a flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheError {
    /// Another's flight took too long.
    Timeout,
    /// As many wait as may.
    Busy,
    /// Empty or too long.
    InvalidKey,
    /// Longer than that.
    TooLarge(u64),
    /// The flight is another's now.
    Lost,
    /// The source's error, told by whoever asked it.
    Source(String),
}

/// What a call wants otherwise than the configuration.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// How long a value lives.
    pub ttl: Option<u64>,
    /// How long the lack of one lives.
    pub negative_ttl: Option<u64>,
    /// How long past its end a value may serve when its source fails.
    pub stale: Option<u64>,
    /// How long a failed source is left alone.
    pub retry: Option<u64>,
    /// How long to wait.
    pub wait: Option<u64>,
}
