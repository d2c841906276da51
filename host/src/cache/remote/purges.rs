//! Purges by prefix and by tag among servers: Redis keeps a bounded record of them, numbered, so that
//! who starts later, or was cut off, hears of them, too.
//!
//! A purge is told on the channel with its number. Each look into Redis also reads the newest number: where
//! it is not the one known here, the record is read before the value is used. So nothing that comes from
//! Redis is older than a purge that this server has not heard of.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::counters::Counter;
use super::super::disk::Slot;
use super::super::purges::{Known, MOST, Record};
use super::script::{PURGE_ANSWERS, SINCE};
use super::write::is_away;
use super::{News, Remote, count};
use crate::observe::error_log::Level as LogLevel;
use crate::redis::{RedisError, Value};
use crate::time_cache;

/// Records that are sent at a time.
const BATCH: usize = 64;

impl Remote {
    /// The newest number is in it, beside the moments.
    pub(super) fn purged_key(&self) -> Vec<u8> {
        self.name("!purged", b"")
    }

    fn purges_key(&self) -> Vec<u8> {
        self.name("!purges", b"")
    }

    /// Tells the other servers, and those that come later.
    pub(in crate::cache) async fn purge_answers(self: &Arc<Self>, record: Record<'_>) {
        self.follow();
        let (member, at) = (record.member(), record.at());
        if let Err(error) = self.send_answers(&member, at, true).await {
            self.failed(
                "a purge of answers was not told to other servers yet",
                &error,
            );
            if !is_away(&error) {
                // It has no room for it, say; an emptying needs none.
                self.purge(time_cache::clock_ms()).await;
            } else if !self.pending.add_answers(&member, at, self.config.queue) {
                self.say_full();
            }
        }
    }

    /// Sends one; `tell`: other servers do not know it.
    pub(super) async fn send_answers(
        &self,
        member: &[u8],
        at: u64,
        tell: bool,
    ) -> Result<(), RedisError> {
        let channel = if tell { self.channel() } else { Vec::new() };
        let arguments = [
            member.to_vec(),
            at.to_string().into_bytes(),
            channel,
            self.news(News::Answers, b""),
            MOST.to_string().into_bytes(),
        ];
        let keys = [self.purges_key(), self.purged_key()];
        let number = count(&self.run(&PURGE_ANSWERS, &keys, &arguments).await?);
        self.is_next(number);
        Ok(())
    }

    /// Takes in the number of a purge that is known here. Where others are missing the next look into
    /// Redis finds that out.
    fn is_next(&self, number: u64) {
        let (take, look) = (Ordering::SeqCst, Ordering::SeqCst);
        let _missing = self
            .purged
            .compare_exchange(number.wrapping_sub(1), number, take, look);
    }

    /// What another server purged just now: its number, its moment, its member.
    pub(super) fn heard_answers(&self, rest: &[u8]) {
        let Some((number, rest)) = rest.split_first_chunk::<8>() else {
            return;
        };
        let Some((at, member)) = rest.split_first_chunk::<8>() else {
            return;
        };
        if let Some(record) = Record::of_member(member, u64::from_be_bytes(*at)) {
            self.take_in(&[record.heard(time_cache::clock_ms())]);
            self.is_next(u64::from_be_bytes(*number));
        }
    }

    /// Adds to what memory and disk refuse. The disk follows: what it has from before this process serves
    /// after a look into Redis.
    fn take_in(&self, records: &[Record<'_>]) {
        let Some(store) = self.store.upgrade() else {
            return;
        };
        let mut new = Known::default();
        for record in records {
            new.add(*record);
        }
        let known = store.common.purges.inherit(&new);
        if let Some(disk) = self.disk.as_ref().and_then(Slot::get) {
            for record in new.records() {
                disk.note_purge(record, known.clone());
            }
        }
    }

    /// Reads the purges that are missing here, if the newest number is another one.
    pub(super) async fn learn(&self, newest: u64) -> Result<(), RedisError> {
        if newest == 0 || newest == self.purged.load(Ordering::SeqCst) {
            return Ok(());
        }
        let _one = self.learning.lock().await;
        let before = self.purged.load(Ordering::SeqCst);
        if newest == before {
            return Ok(());
        }
        let keys = [self.purges_key(), self.purged_key()];
        let since = [before.to_string().into_bytes()];
        let Value::Array(parts) = self.run(&SINCE, &keys, &since).await? else {
            return Err(RedisError::Failed("ERR no purges".to_owned()));
        };
        let Some((number, parts)) = parts.split_first() else {
            return Err(RedisError::Failed("ERR no purges".to_owned()));
        };
        let records: Vec<_> = parts
            .chunks_exact(2)
            .filter_map(|pair| match pair {
                [Value::BulkString(member), at] => Record::of_member(member, count(at)),
                _ => None,
            })
            .filter(|record| self.is_news(*record))
            // A server that has just started has asked for nothing yet.
            .map(|record| match before {
                0 => record,
                _ => record.heard(time_cache::clock_ms()),
            })
            .collect();
        if !records.is_empty() {
            self.take_in(&records);
            self.count(Counter::Heard, records.len() as u64);
        }
        self.purged.store(count(number), Ordering::SeqCst);
        Ok(())
    }

    fn is_news(&self, record: Record<'_>) -> bool {
        let store = self.store.upgrade();
        store.is_some_and(|store| !store.common.purges.known().has(record))
    }

    /// Compares with the newest number of Redis; one that was emptied gets back what is known here.
    pub(super) async fn compare_purges(&self, emptied: bool) -> Result<(), RedisError> {
        if emptied && let Some(store) = self.store.upgrade() {
            self.purged.store(0, Ordering::SeqCst);
            let known = store.common.purges.known();
            let all: Vec<_> = known.records().collect();
            for some in all.chunks(BATCH) {
                let sends = some.iter().map(|record| {
                    let (member, at) = (record.member(), record.at());
                    async move { self.send_answers(&member, at, false).await }
                });
                futures_util::future::try_join_all(sends).await?;
            }
        }
        let mut newest = crate::redis::cmd("HGET");
        newest.arg(self.purged_key()).arg("#");
        let newest = count(&self.client().command(newest).await?);
        self.learn(newest).await
    }

    /// Sends those that waited.
    pub(super) async fn flush_answers(&self) -> Result<(), RedisError> {
        for (member, at) in self.pending.next_answers(BATCH) {
            match self.send_answers(&member, at, true).await {
                Err(error) if is_away(&error) => return Err(error),
                Err(error) => {
                    self.failed("a purge that waited was not told", &error);
                    self.pending.purge(time_cache::clock_ms());
                }
                Ok(()) => self.pending.sent_answers(&member, at),
            }
        }
        Ok(())
    }

    pub(super) fn say_full(&self) {
        self.say(
            LogLevel::Warn,
            "too many changes wait for Redis: the cache will be emptied there",
        );
    }
}
