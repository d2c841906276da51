//! The levels behind memory, in the order in which they are asked, because what a process forgets when
//! it ends, or what another server has found already, need not be asked of the source again.
//!
//! A level is added as a field of [`Behind`]: opened in [`Behind::open`], asked in [`Behind::load`]
//! (nearest first), written in [`Behind::store`], [`Behind::remove`] and [`Behind::purge`]. It keeps
//! four promises, from which those of the cache follow:
//!
//! - What fails in it is a miss with a line in the log, never an error, and takes a bounded time.
//! - For one key, `store` and `remove` come one after the other (a [`Hold`](super::hold::Hold) sees to
//!   that); when one has returned, `load` gives nothing older. Between `load` and the promotion of what it
//!   gave a change may come: then the flight is lost, and nothing is promoted.
//! - After `purge(epoch)` has returned, `load` gives nothing of an older [`Entry::epoch`], after a restart
//!   neither. Epochs are milliseconds since 1970, so they grow over restarts. A level that knows purges
//!   another way (a generation in Redis) sets the entry's epoch to the one it is given.
//! - Entries keep their times: they are absolute, so a promoted value has what was left of its ttl. What is
//!   past its `keep` is not given.
//!
//! A future that is dropped halfway may have written or not.

use std::sync::Arc;

use super::entry::{Entry, Level};
use crate::config::model::Cache as Config;

/// The levels behind memory.
#[derive(Debug, Default)]
pub(super) struct Behind {}

/// What a level behind said of a key when it was asked, to be shown to it when a value comes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {}

/// What the levels behind have.
#[derive(Debug, Default)]
pub(super) struct Sought {
    /// A value, in time or past it.
    pub(super) found: Option<(Entry, Level)>,
    /// For [`Behind::store`].
    pub(super) seen: Seen,
}

impl Behind {
    /// The levels that a configuration names; those of `before` that stay as they were go on.
    pub(super) fn open(_config: &Config, before: Option<&Self>) -> Arc<Self> {
        let _nothing = before;
        Arc::default()
    }

    /// Whether there is none: then nothing has to wait.
    pub(super) fn is_empty(&self) -> bool {
        true
    }

    /// Looks for a key, nearest level first. `skip`: its value is not wanted, only what
    /// [`store`](Self::store) has to know.
    pub(super) async fn load(&self, _key: &[u8], _epoch: u64, _skip: bool) -> Sought {
        Sought::default()
    }

    /// Writes to all levels.
    pub(super) async fn store(&self, _key: &[u8], _entry: &Arc<Entry>, _seen: Seen) {}

    /// Takes a key out of all levels.
    pub(super) async fn remove(&self, _key: &[u8]) {}

    /// Empties all levels of what is older than this epoch.
    pub(super) async fn purge(&self, _epoch: u64) {}
}
