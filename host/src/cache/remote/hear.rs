//! Hears what other servers change.
//!
//! Each change in Redis is told on a channel by the script that makes it. After a lost connection changes
//! may have been missed: all that memory has is *distrusted*, which means that it serves again
//! after one look into Redis, key by key, when it is asked for. Redis may have been emptied meanwhile:
//! then it knows nothing against a value, and gets it back.

use std::sync::Arc;

use tokio::sync::Notify;

use super::super::counters::Counter;
use super::super::disk::Slot;
use super::write::is_away;
use super::{News, Remote};
use crate::config::model::Redis;
use crate::observe::error_log::{self, Context, Level as LogLevel};
use crate::redis::feed::{Listener, Node};
use crate::redis::{self, RedisError, Value};
use crate::time_cache;

/// Changes that are sent at a time.
const BATCH: usize = 64;

impl Listener for Remote {
    const THREAD: &str = "cache-feed";
    const WHAT: &str = "changes of other servers are";

    fn redis(&self) -> &Arc<Redis> {
        &self.config.redis
    }

    fn channel(&self) -> Vec<u8> {
        self.channel()
    }

    fn node(&self) -> &Node {
        &self.node
    }

    fn hurry(&self) -> &Arc<Notify> {
        &self.claims.given_up
    }

    /// What this server has is compared with what Redis has, from now on.
    async fn greet(&self) -> Result<(), RedisError> {
        self.flush().await?;
        let now = self.life().await?;
        let before = self.life.lock().clone();
        let emptied = before.is_some_and(|before| before != now);
        self.compare_purges(emptied).await?;
        *self.life.lock() = Some(now);
        if let Some(store) = self.store.upgrade() {
            store.distrust(emptied);
        }
        Ok(())
    }

    fn heard(&self, kind: u8, rest: &[u8]) {
        let Some(store) = self.store.upgrade() else {
            return;
        };
        // What is on disk first: memory asks there for what it has not.
        let disk = self.disk.as_ref().and_then(Slot::get);
        match kind {
            kind if kind == News::Changed as u8 => {
                if let Some(disk) = disk {
                    disk.overtake(rest, true);
                }
                store.changed_elsewhere(rest, true);
            }
            kind if kind == News::Filled as u8 => {
                if let Some(disk) = disk {
                    disk.distrust(rest);
                }
                store.changed_elsewhere(rest, false);
            }
            kind if kind == News::Purged as u8 => {
                let epoch = store.next_epoch();
                if let Some(disk) = disk {
                    disk.empty(epoch);
                }
                store.empty(epoch);
            }
            kind if kind == News::Answers as u8 => self.heard_answers(rest),
            kind if kind == News::Released as u8 => {}
            _ => return,
        }
        self.claims.waiting.wake(rest);
        store.counters.count(Counter::Heard);
    }

    async fn hurried(&self) -> Result<(), RedisError> {
        self.release_claims().await
    }

    async fn turn(&self) -> Result<(), RedisError> {
        // Emptied while the connection lives: it gets back its mark and the record of purges, so that who
        // was cut off meanwhile finds them.
        if self.life.lock().is_some() && self.mark().await?.is_none() {
            self.greet().await?;
        }
        self.renew_claims().await?;
        self.flush().await
    }

    /// Those who wait for another server's flight would wait in vain.
    fn lost(&self) {
        self.claims.waiting.wake_all();
    }

    fn note(&self, level: LogLevel, message: &str) {
        let message = format!("cache `{}`: {message}", self.cache);
        error_log::write(level, &Context::default(), message);
    }
}

impl Remote {
    fn life_key(&self) -> Vec<u8> {
        self.name("!life", b"")
    }

    /// The mark of this Redis, if it has one.
    async fn mark(&self) -> Result<Option<Vec<u8>>, RedisError> {
        let mut mark = redis::cmd("GET");
        mark.arg(self.life_key());
        Ok(match self.client().command(mark).await? {
            Value::BulkString(life) => Some(life),
            _ => None,
        })
    }

    /// The mark of this Redis; a new one if it has none.
    async fn life(&self) -> Result<Vec<u8>, RedisError> {
        let mut pipeline = redis::pipe();
        let mark = [&self.node[..], &time_cache::clock_ms().to_be_bytes()].concat();
        pipeline
            .cmd("SET")
            .arg(self.life_key())
            .arg(mark)
            .arg("NX")
            .cmd("GET")
            .arg(self.life_key());
        let replies = self.client().pipeline(pipeline).await?;
        Ok(match replies.into_iter().nth(1) {
            Some(Value::BulkString(life)) => life,
            // Its memory is full, say: then it cannot be told whether it was emptied.
            _ => Vec::new(),
        })
    }

    /// Sends what waits: an emptying first, for it is older than all changes after it.
    async fn flush(&self) -> Result<(), RedisError> {
        while self.pending.any() {
            let purge = self.pending.next_purge();
            if let Some(epoch) = purge {
                self.send_purge(epoch).await?;
            }
            let changes = self.pending.next(BATCH);
            let sends = changes
                .iter()
                .map(|(key, change)| self.send(key, change.entry.as_ref(), Some(change.written)));
            for sent in futures_util::future::join_all(sends).await {
                match sent {
                    Err(error) if is_away(&error) => return Err(error),
                    // What Redis refuses it will refuse again.
                    Err(error) => self.failed("a change that waited was not written", &error),
                    Ok(_) => {}
                }
            }
            self.pending.sent(purge, &changes);
            self.flush_answers().await?;
        }
        Ok(())
    }
}
