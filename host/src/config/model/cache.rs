//! `[cache.NAME]` as it is meant.

use std::time::Duration;

/// `[cache.NAME]`. Times in milliseconds, because a value's clock counts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// Its name.
    pub name: String,
    /// Decoded values per instance.
    pub items: u32,
    /// Bytes in the process.
    pub size: u64,
    /// How long a value lives; 0 is for ever.
    pub ttl: u64,
    /// How long the lack of one lives; 0 is for ever.
    pub negative_ttl: u64,
    /// How long past its end a value may serve when its source fails.
    pub stale: u64,
    /// How long a failed source is left alone.
    pub retry: u64,
    /// How long past its end a value serves while one caller brings a new one.
    pub revalidate: u64,
    /// How long before its end one caller brings a new one.
    pub refresh_ahead: u64,
    /// By how many percent a ttl is cut at most.
    pub jitter: u64,
    /// How long a caller waits.
    pub wait: Duration,
    /// How many wait.
    pub waiters: usize,
    /// How long a flight lasts.
    pub lease: Duration,
}
