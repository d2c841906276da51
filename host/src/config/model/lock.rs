//! `[lock.NAME]` as it is meant.

use std::sync::Arc;
use std::time::Duration;

use super::Redis;

/// `[lock.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// Its name.
    pub name: String,
    /// How long an owner keeps a lock unless it says so.
    pub hold: Duration,
    /// How long a caller waits unless it says so.
    pub wait: Duration,
    /// How many wait.
    pub waiters: usize,
    /// Where they live, if not in the process.
    pub remote: Option<RemoteLocks>,
}

/// Locks that several servers share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteLocks {
    /// Where.
    pub redis: Arc<Redis>,
    /// What their keys begin with.
    pub prefix: String,
}
