//! `[lock.NAME]` as it is meant.

use std::time::Duration;

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
}
