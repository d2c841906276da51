//! `[cache.NAME]` as it is meant.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Redis;

/// `[cache.NAME]`. Times in milliseconds, because a value's clock counts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// Its name.
    pub name: String,
    /// Decoded values per instance.
    pub items: u32,
    /// The longest value of which an instance keeps one.
    pub longest: u64,
    /// Bytes in the process.
    pub size: u64,
    /// Those of them that are for what there is no value for.
    pub negative: u64,
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
    /// The level on disk.
    pub disk: Option<DiskLevel>,
    /// The level in Redis.
    pub l3: Option<RemoteLevel>,
}

/// `disk`: values that survive a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskLevel {
    /// Its folder.
    pub path: PathBuf,
    /// Bytes on disk.
    pub size: u64,
    /// What is of use for a shorter time, in milliseconds, is not written.
    pub min_ttl: u64,
    /// Bytes that wait to be written.
    pub queue: usize,
    /// How long a caller waits for the disk.
    pub timeout: Duration,
    /// The line that names the folder.
    pub line: usize,
}

/// `l3`: values that several servers share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteLevel {
    /// Where.
    pub redis: Arc<Redis>,
    /// What its keys begin with.
    pub prefix: String,
    /// From how many bytes on a value is compressed.
    pub compress: usize,
    /// While Redis is away values wait with their keys; else only the keys do.
    pub queues: bool,
    /// Bytes of what waits.
    pub queue: u64,
    /// One server at a time asks the source of a key.
    pub cluster: bool,
    /// For how long it may be silent before another one does.
    pub lease: Duration,
}

impl RemoteLevel {
    /// Whether another one has the same values.
    #[must_use]
    pub fn shares(&self, other: &Self) -> bool {
        self.redis == other.redis && self.prefix == other.prefix
    }
}
