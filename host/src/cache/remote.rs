//! The level in Redis: values that several servers share, and the news of changes among them.
//!
//! What is read is told from what is not ours, and from what was emptied since; what is written is
//! refused by a script where another server changed the key meanwhile. Redis may be away at any time: then
//! a look-up is a miss, and changes wait in [`Pending`]. The [`feed`] hears what other servers change.

mod claims;
mod hear;
mod pending;
mod purges;
mod script;
mod write;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once, Weak};

use parking_lot::Mutex;

use crate::config::model::{Cache as Config, RemoteLevel};
use crate::observe::error_log::Level as LogLevel;
use crate::observe::seldom::Seldom;
use crate::redis::feed::{self, Listener as _, Node};
use crate::redis::{self, Client, RedisError, Script, Value};
use crate::time_cache;

use super::counters::Counter;
use super::disk::Slot;
use super::entry::Entry;
use super::record;
use super::store::Store;
pub(super) use claims::Claim;
use claims::Claims;
use pending::{Believed, Pending};
use script::SLOTS;

/// The emptying before the first.
const NO_GENERATION: u64 = 0;

/// What Redis said of a key when it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    generation: u64,
    count: u64,
}

/// What Redis says of a key.
#[derive(Debug)]
pub(super) enum Answer {
    /// Nothing: it is away.
    Away,
    /// It has no value.
    Absent(Option<Seen>),
    /// It has one.
    Found(Entry, Option<Seen>),
}

/// The level in Redis of one cache.
pub(super) struct Remote {
    pub(super) config: RemoteLevel,
    cache: String,
    most: u64,
    /// This one among all that share the values.
    node: Node,
    store: Weak<Store>,
    /// Hears of other servers' changes, too.
    disk: Option<Slot>,
    pending: Arc<Pending>,
    claims: Claims,
    feed: Once,
    /// What marks the Redis that was seen last; another one has forgotten everything.
    life: Mutex<Option<Vec<u8>>>,
    /// The newest purge of answers that is known here; 0: none of those in Redis.
    purged: AtomicU64,
    /// One reads what is missing, others wait for it.
    learning: tokio::sync::Mutex<()>,
    said: Seldom,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// What is told to other servers, by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    /// A key was changed.
    Changed = b'k' as isize,
    /// A flight brought a value.
    Filled = b'f' as isize,
    /// The cache was emptied.
    Purged = b'p' as isize,
    /// Answers were purged by prefix or tag.
    Answers = b't' as isize,
    /// A flight ended without a value.
    Released = b'r' as isize,
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::BulkString(bytes) => {
            let bytes: [u8; 8] = bytes.as_slice().try_into().ok()?;
            Some(u64::from_be_bytes(bytes))
        }
        _ => None,
    }
}

fn count(value: &Value) -> u64 {
    match value {
        Value::BulkString(bytes) => {
            let text = std::str::from_utf8(bytes).ok();
            text.and_then(|text| text.parse().ok()).unwrap_or(0)
        }
        _ => 0,
    }
}

impl Remote {
    pub(super) fn new(
        config: &Config,
        level: &RemoteLevel,
        (store, disk): (&Arc<Store>, Option<Slot>),
        before: Option<&Self>,
    ) -> Arc<Self> {
        let before = before.filter(|before| before.config.shares(level));
        Arc::new(Self {
            cache: config.name.clone(),
            most: store.sizes().values,
            node: feed::node(),
            store: Arc::downgrade(store),
            disk,
            pending: before.map_or_else(Arc::default, |before| before.pending.clone()),
            claims: Claims::default(),
            config: level.clone(),
            feed: Once::new(),
            life: Mutex::new(before.and_then(|before| before.life.lock().clone())),
            purged: AtomicU64::new(before.map_or(0, |before| before.purged.load(Ordering::SeqCst))),
            learning: tokio::sync::Mutex::default(),
            said: Seldom::default(),
        })
    }

    /// Whether it serves a configuration as it is.
    pub(super) fn serves(
        &self,
        level: &RemoteLevel,
        store: &Arc<Store>,
        disk: Option<&Slot>,
    ) -> bool {
        let same =
            std::ptr::eq(self.store.as_ptr(), Arc::as_ptr(store)) && self.disk.as_ref() == disk;
        same && self.config == *level && self.most == store.sizes().values
    }

    fn name(&self, kind: &str, key: &[u8]) -> Vec<u8> {
        [self.config.prefix.as_bytes(), kind.as_bytes(), key].concat()
    }

    fn value_key(&self, key: &[u8]) -> Vec<u8> {
        self.name("=", key)
    }

    fn gen_key(&self) -> Vec<u8> {
        self.name("!gen", b"")
    }

    fn counts_key(&self) -> Vec<u8> {
        self.name("!counts", b"")
    }

    /// What the scripts of a key name.
    fn keys(&self, key: &[u8]) -> [Vec<u8>; 4] {
        [
            self.value_key(key),
            self.gen_key(),
            self.counts_key(),
            self.claim_key(key),
        ]
    }

    fn claim_key(&self, key: &[u8]) -> Vec<u8> {
        self.name("!claim=", key)
    }

    fn channel(&self) -> Vec<u8> {
        self.name("!news", b"")
    }

    fn news(&self, news: News, rest: &[u8]) -> Vec<u8> {
        feed::frame(news as u8, &self.node, rest)
    }

    fn slot(key: &[u8]) -> u32 {
        crc32fast::hash(key) % SLOTS
    }

    fn count(&self, counter: Counter, by: u64) {
        if let Some(store) = self.store.upgrade() {
            store.counters.add(counter, by);
        }
    }

    /// A line in the log, not too often.
    fn say(&self, level: LogLevel, message: &str) {
        if self.said.may_speak() {
            self.note(level, message);
        }
    }

    fn client(&self) -> Arc<Client> {
        redis::client(&self.config.redis)
    }

    async fn run(
        &self,
        script: &Script,
        keys: &[Vec<u8>],
        arguments: &[Vec<u8>],
    ) -> Result<Value, RedisError> {
        script.run(&self.client(), keys, arguments).await
    }

    /// Looks for a key; `skip`: only for what [`fill`](Self::fill) has to know.
    pub(super) async fn load(self: &Arc<Self>, key: &[u8], skip: bool) -> Answer {
        self.follow();
        match self.pending.believed(key) {
            Believed::Unknown => {}
            Believed::Absent => return Answer::Absent(None),
            Believed::Found(entry) => return Answer::Found(Entry::clone(&entry), None),
        }
        let mut pipeline = redis::pipe();
        // First the count: a change after it is one that happened while the source was asked.
        pipeline
            .cmd("HGET")
            .arg(self.counts_key())
            .arg(Self::slot(key));
        let wanted = pipeline.cmd("MGET").arg(self.gen_key());
        if !skip {
            wanted.arg(self.value_key(key));
        }
        // After the value: a purge that comes later is heard.
        pipeline.cmd("HGET").arg(self.purged_key()).arg("#");
        let replies = match self.client().pipeline(pipeline).await {
            Ok(replies) => replies,
            Err(error) => {
                self.failed("a value was not read", &error);
                return Answer::Away;
            }
        };
        let [counted, Value::Array(values), purged] = replies.as_slice() else {
            self.say(LogLevel::Warn, "Redis refuses to read");
            self.count(Counter::RemoteErrors, 1);
            return Answer::Away;
        };
        let seen = Seen {
            generation: values.first().and_then(number).unwrap_or(NO_GENERATION),
            count: count(counted),
        };
        if let Err(error) = self.learn(count(purged)).await {
            self.failed("purges of other servers were not read", &error);
            return Answer::Away;
        }
        self.answer(key, values.get(1).unwrap_or(&Value::Nil), seen)
    }

    fn answer(&self, key: &[u8], value: &Value, seen: Seen) -> Answer {
        let entry = match value {
            Value::BulkString(bytes) => self.decoded(key, bytes, seen.generation),
            _ => None,
        };
        match entry {
            Some(entry) => Answer::Found(entry, Some(seen)),
            None => Answer::Absent(Some(seen)),
        }
    }

    fn failed(&self, what: &str, error: &RedisError) {
        self.count(Counter::RemoteErrors, 1);
        // The client itself says when its server goes and comes.
        if *error != RedisError::BreakerOpen {
            self.say(LogLevel::Warn, &format!("{what}: {error}"));
        }
    }

    /// A value's bytes as an entry, if they are one, and of now.
    fn decoded(&self, key: &[u8], bytes: &[u8], generation: u64) -> Option<Entry> {
        self.count(Counter::RemoteBytesRead, bytes.len() as u64);
        let record = match bytes.split_at_checked(8) {
            Some((own, record)) if own == generation.to_be_bytes() => record,
            Some((_, record)) if record::is_record(record) => return None,
            Some((_, record)) => record,
            None => bytes,
        };
        match record::decode(record, self.most) {
            Ok(entry) => (entry.keep > time_cache::clock_ms()).then_some(entry),
            Err(why) => {
                self.count(Counter::RemoteErrors, 1);
                let key = key.escape_ascii();
                self.say(
                    LogLevel::Warn,
                    &format!("what Redis has for `{key}` is no value: {why}"),
                );
                None
            }
        }
    }

    /// Changes that wait.
    pub(super) fn waiting(&self) -> u64 {
        self.pending.count()
    }

    /// Hears other servers from the first use on, or from now on.
    pub(super) fn follow(self: &Arc<Self>) {
        self.feed.call_once(|| feed::start(self));
    }
}
