//! What is written to Redis: what a flight brought, changes, emptyings; and what becomes of them while
//! Redis is away.

use std::sync::Arc;

use super::super::counters::Counter;
use super::super::entry::{Entry, FOR_EVER};
use super::super::record;
use super::pending::Change;
use super::script::{CHANGE, FILL, PURGE};
use super::{Claim, News, Remote, Seen};
use crate::redis::{RedisError, Value};
use crate::time_cache;

impl Remote {
    /// Milliseconds that Redis keeps it: as long as it is good for anything.
    fn keep(entry: &Entry) -> Option<u64> {
        if entry.keep == FOR_EVER {
            return Some(0);
        }
        let left = entry.keep.saturating_sub(time_cache::clock_ms());
        (left > 0).then_some(left)
    }

    /// What a flight brought. False: another server changed the key since `seen`.
    pub(in crate::cache) async fn fill(
        &self,
        key: &[u8],
        entry: &Arc<Entry>,
        seen: Option<Seen>,
        claim: Option<&Claim>,
    ) -> bool {
        let change = || Change {
            entry: self.config.queues.then(|| entry.clone()),
            written: entry.written,
        };
        if self.pending.has(key) {
            // What waits is sent before; with nothing to add to it the older change stands.
            if self.config.queues {
                self.postpone(key, change());
            }
            return true;
        }
        let Some(keep) = Self::keep(entry) else {
            return true;
        };
        let record = record::encode(entry, self.config.compress);
        let (generation, count) = match seen {
            Some(seen) => (seen.generation.to_be_bytes(), seen.count.to_string()),
            None => ([0; 8], "?".to_owned()),
        };
        let length = record.len() as u64;
        let arguments = [
            record,
            keep.to_string().into_bytes(),
            self.channel(),
            self.news(News::Filled, key),
            Self::slot(key).to_string().into_bytes(),
            generation.to_vec(),
            count.into_bytes(),
            claim.map(Claim::token).unwrap_or_default(),
        ];
        match self.run(&FILL, &self.keys(key), &arguments).await {
            Ok(Value::Int(0)) => false,
            Ok(_) => {
                self.count(Counter::RemoteBytesWritten, length);
                true
            }
            Err(error) => {
                self.failed("a value was not written", &error);
                if is_away(&error) && self.config.queues {
                    self.postpone(key, change());
                }
                true
            }
        }
    }

    fn postpone(&self, key: &[u8], change: Change) {
        self.count(Counter::RemoteLater, 1);
        if !self.pending.add(key, change, self.config.queue) {
            self.say_full();
        }
    }

    /// A value set, or a key taken away.
    pub(in crate::cache) async fn change(self: &Arc<Self>, key: &[u8], entry: Option<&Arc<Entry>>) {
        self.follow();
        let written = entry.map_or_else(time_cache::clock_ms, |entry| entry.written);
        let waiting = Change {
            entry: entry.filter(|_| self.config.queues).cloned(),
            written,
        };
        if self.pending.has(key) {
            self.postpone(key, waiting);
            return;
        }
        if let Err(error) = self.send(key, entry, None).await {
            self.failed("a change was not written", &error);
            if is_away(&error) {
                self.postpone(key, waiting);
            }
        }
    }

    /// Sends a change; `late` is when it was made.
    pub(super) async fn send(
        &self,
        key: &[u8],
        entry: Option<&Arc<Entry>>,
        late: Option<u64>,
    ) -> Result<Value, RedisError> {
        let keep = entry.and_then(|entry| Self::keep(entry));
        let record = match (entry, keep) {
            (Some(entry), Some(_)) => record::encode(entry, self.config.compress),
            _ => Vec::new(),
        };
        self.count(Counter::RemoteBytesWritten, record.len() as u64);
        let late = late.map(|written| written.to_string()).unwrap_or_default();
        let arguments = [
            record,
            keep.unwrap_or(0).to_string().into_bytes(),
            self.channel(),
            self.news(News::Changed, key),
            Self::slot(key).to_string().into_bytes(),
            late.into_bytes(),
        ];
        self.run(&CHANGE, &self.keys(key), &arguments).await
    }

    /// Empties the cache for all servers.
    pub(in crate::cache) async fn purge(self: &Arc<Self>, epoch: u64) {
        self.follow();
        if let Err(error) = self.send_purge(epoch).await {
            self.failed("the cache was not emptied in Redis yet", &error);
            self.pending.purge(epoch);
        }
    }

    pub(super) async fn send_purge(&self, epoch: u64) -> Result<Value, RedisError> {
        let arguments = [
            epoch.to_be_bytes().to_vec(),
            self.channel(),
            self.news(News::Purged, b""),
        ];
        self.run(&PURGE, &[self.gen_key()], &arguments).await
    }
}

/// Whether it may come to pass later.
pub(super) fn is_away(error: &RedisError) -> bool {
    matches!(
        error,
        RedisError::Timeout
            | RedisError::Unavailable(_)
            | RedisError::BreakerOpen
            | RedisError::Busy
    ) || matches!(error, RedisError::Failed(text) if ["LOADING", "READONLY", "MASTERDOWN", "NOREPLICAS"]
        .iter()
        .any(|code| text.starts_with(code)))
}
