//! Locks that live in a Redis which several servers share.
//!
//! The first of this process's line asks; while another server has the lock it is woken by the news of the
//! release. A look of its own, at the end of the other's hold and each second, is there for owners that
//! died and for news that were lost.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::LockError;
use super::lease::Guard;
use super::script::{ACQUIRE, LOOK, RELEASE};
use crate::config::model::{Lock as Config, RemoteLocks};
use crate::observe::error_log::Level as LogLevel;
use crate::observe::seldom::Seldom;
use crate::redis::feed::{self, Listener as _, Node};
use crate::redis::{self, RedisError, Script, Value, Waiters};
use crate::time_cache;

/// How long nobody looks by himself.
const SLOW: Duration = Duration::from_secs(1);
/// A lock is looked for so long after its hold's end.
const AFTER: Duration = Duration::from_millis(10);
/// When Redis has lost something nobody gets a lock for so long after the breaker's pause: servers find it
/// again and put back what their owners have.
const SETTLE: Duration = Duration::from_secs(1);
/// A Redis that forgets so often while it is asked is none to have a lock in.
pub(super) const LOOKS: u32 = 3;
/// Locks to be given back are remembered in any case, up to so many.
const LEAST: usize = 1024;
/// News of a release.
pub(super) const RELEASED: u8 = b'r';

pub(super) type Name = Box<[u8]>;
/// Whose a lock is: the server, and a number that it gives once.
pub(super) type Token = [u8; 16];

/// What is to be given back, when Redis can be asked.
#[derive(Debug, Clone)]
pub(super) struct Over {
    pub(super) name: Name,
    pub(super) token: Token,
    /// Then it is over by itself.
    pub(super) until: Instant,
}

/// What this server knows, should Redis lose it.
#[derive(Debug, Default)]
struct Known {
    /// The mark of what Redis knew when it was asked last.
    mark: Vec<u8>,
    /// The greatest number that it gave.
    greatest: u64,
    /// What owners of this server have, and until when.
    held: HashMap<Token, (Name, Instant)>,
}

/// The locks of one table in Redis.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) table: String,
    pub(super) config: RemoteLocks,
    most: usize,
    /// This one among all servers that share the locks.
    pub(super) node: Node,
    owners: AtomicU64,
    known: Mutex<Known>,
    over: Mutex<VecDeque<Over>>,
    /// There are locks to give back.
    pub(super) given_up: Arc<Notify>,
    /// There are none left.
    settled: Notify,
    pub(super) waiting: Waiters,
    feed: Once,
    said: Seldom,
}

/// What Redis says to who wants a lock.
enum Said {
    Yours(Guard),
    /// Another has it for so long.
    Theirs(Duration),
    /// Nobody gets one for so long: Redis has lost what it knew.
    Paused(Duration),
    /// It has to be asked what it knows.
    Look,
}

/// Redis knows no time of nothing.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

pub(super) fn text(number: u64) -> Vec<u8> {
    number.to_string().into_bytes()
}

impl Remote {
    pub(super) fn new(config: &Config, remote: &RemoteLocks) -> Arc<Self> {
        Arc::new(Self {
            table: config.name.clone(),
            config: remote.clone(),
            most: config.waiters.max(LEAST),
            node: feed::node(),
            owners: AtomicU64::new(0),
            known: Mutex::default(),
            over: Mutex::default(),
            given_up: Arc::default(),
            settled: Notify::default(),
            waiting: Waiters::default(),
            feed: Once::new(),
            said: Seldom::default(),
        })
    }

    /// Whether it serves a configuration.
    pub(super) fn serves(&self, config: &Config, remote: &RemoteLocks) -> bool {
        self.config == *remote && self.most == config.waiters.max(LEAST)
    }

    /// Waits until this process has the lock. `place` is asked for before it waits.
    pub(super) async fn acquire<P>(
        self: &Arc<Self>,
        name: &[u8],
        hold: Duration,
        deadline: Instant,
        place: impl Fn() -> Result<P, LockError>,
    ) -> Result<Guard, LockError> {
        self.feed.call_once(|| feed::start(self));
        let (mut waits, mut looks) = (None, 0);
        loop {
            // Before it asks, so that no news is missed.
            let mut news = self.waiting.listen(name);
            let (left, late) = match self.ask(name, hold).await? {
                Said::Yours(guard) => return Ok(guard),
                Said::Theirs(left) => (left, LockError::Timeout),
                Said::Paused(left) => (left, LockError::Unavailable),
                Said::Look if looks < LOOKS => {
                    looks += 1;
                    let looked = self.look().await;
                    looked.map_err(|error| self.failed("a lock was not asked for", &error))?;
                    continue;
                }
                Said::Look => return Err(LockError::Unavailable),
            };
            if Instant::now() >= deadline {
                return Err(late);
            }
            if waits.is_none() {
                waits = Some(place()?);
            }
            let look = Instant::now() + SLOW.min(left + AFTER);
            let woken = tokio::time::timeout_at(look.min(deadline), news.come()).await;
            if woken.is_err() && Instant::now() >= deadline {
                return Err(late);
            }
        }
    }

    async fn ask(self: &Arc<Self>, name: &[u8], hold: Duration) -> Result<Said, LockError> {
        let owner = self.owners.fetch_add(1, Ordering::Relaxed);
        let mut token = [0; 16];
        token[..8].copy_from_slice(&self.node);
        token[8..].copy_from_slice(&owner.to_be_bytes());
        let guard = Guard::asked(self, name, token, hold);
        let [counter, mark, pause] = self.table_keys();
        let keys = [counter, mark, pause, self.lock_key(name)];
        let (greatest, known) = self.knowledge();
        let arguments = [greatest, known, token.to_vec(), text(millis(hold))];
        let reply = self.run(&ACQUIRE, &keys, &arguments).await;
        match reply.as_ref().map(pair) {
            Ok(Some((1, number))) => {
                let number = u64::try_from(number).unwrap_or(0);
                let mut known = self.known.lock();
                known.greatest = known.greatest.max(number);
                drop(known);
                return Ok(Said::Yours(guard.held(number)));
            }
            // Redis may have heard it, and given the lock.
            Err(RedisError::Timeout | RedisError::Unavailable(_)) => drop(guard),
            Err(_) | Ok(_) => guard.spend(),
        }
        let reply = reply.map_err(|error| self.failed("a lock was not asked for", &error))?;
        match pair(&reply) {
            Some((0, left)) => Ok(Said::Theirs(rest(left))),
            Some((-1, left)) => Ok(Said::Paused(rest(left))),
            Some((-2, _)) => Ok(Said::Look),
            _ => {
                let error = RedisError::Failed("ERR no lock".to_owned());
                Err(self.failed("a lock was not asked for", &error))
            }
        }
    }

    /// Sees whether Redis has lost something, and puts back what owners of this server have.
    pub(super) async fn look(&self) -> Result<(), RedisError> {
        let (greatest, known) = self.knowledge();
        let fresh = [&self.node[..], &time_cache::clock_ms().to_be_bytes()].concat();
        let pause = text(millis(self.config.redis.pause + SETTLE));
        let arguments = [greatest, known.clone(), fresh, pause];
        let reply = self.run(&LOOK, &self.table_keys(), &arguments).await?;
        let Value::BulkString(mark) = reply else {
            return Err(RedisError::Failed("ERR no mark".to_owned()));
        };
        if !known.is_empty() && mark != known {
            let count = self.put_back().await?;
            let message = format!("Redis has lost what it knew: {count} locks are put back");
            self.note(LogLevel::Warn, &message);
        }
        self.known.lock().mark = mark;
        Ok(())
    }

    async fn put_back(&self) -> Result<usize, RedisError> {
        let now = Instant::now();
        let held: Vec<_> = {
            let known = self.known.lock();
            let all = known
                .held
                .iter()
                .map(|(token, held)| (*token, held.clone()));
            all.filter(|(_, (_, until))| *until > now).collect()
        };
        let count = held.len();
        let client = redis::client(&self.config.redis);
        for (token, (name, until)) in &held {
            let left = millis(until.saturating_duration_since(now));
            let mut set = redis::cmd("SET");
            set.arg(self.lock_key(name)).arg(token.as_slice());
            // Another one's stays another's.
            set.arg("PX").arg(left).arg("NX");
            client.clone().command(set).await?;
        }
        // What was released meanwhile was put back for nobody.
        let released: Vec<_> = {
            let known = self.known.lock();
            let gone = |token: &Token| !known.held.contains_key(token);
            held.into_iter().filter(|(token, _)| gone(token)).collect()
        };
        for (token, (name, until)) in released {
            self.give_up(Over { name, token, until });
        }
        Ok(count)
    }

    pub(super) fn keep(&self, name: &Name, token: Token, hold: Duration) {
        let until = Instant::now() + hold;
        self.known.lock().held.insert(token, (name.clone(), until));
    }

    /// It is not held any more; until when it would have been.
    pub(super) fn forget(&self, token: &Token) -> Option<Instant> {
        let held = self.known.lock().held.remove(token);
        held.map(|(_, until)| until)
    }

    /// The feed's thread gives it back.
    pub(super) fn give_up(&self, over: Over) {
        self.remember(over);
        self.given_up.notify_one();
    }

    fn remember(&self, over: Over) {
        let mut all = self.over.lock();
        if all.len() >= self.most {
            // Its hold ends it.
            all.pop_front();
        }
        all.push_back(over);
    }

    /// Gives back what is over, and tells those who wait for it. What Redis does not take stays.
    pub(super) async fn give_back(&self) -> Result<(), RedisError> {
        loop {
            let Some(over) = self.over.lock().front().cloned() else {
                self.settled.notify_waiters();
                return Ok(());
            };
            if over.until > Instant::now() {
                let head = [over.token.to_vec(), Vec::new()];
                let arguments = [&head[..], &self.release_news(&over.name)].concat();
                let keys = self.lease_keys(&over.name);
                self.run(&RELEASE, &keys, &arguments).await?;
                self.waiting.wake(&over.name);
            }
            let mut all = self.over.lock();
            // It may have been pushed out meanwhile.
            if all.front().is_some_and(|first| first.token == over.token) {
                all.pop_front();
            }
        }
    }

    /// Waits until all that is over was given back.
    pub(super) async fn all_given_back(&self) {
        loop {
            let mut settled = std::pin::pin!(self.settled.notified());
            // From here on it hears of what happens between the look and the wait.
            settled.as_mut().enable();
            if self.over.lock().is_empty() {
                return;
            }
            settled.await;
        }
    }

    fn knowledge(&self) -> (Vec<u8>, Vec<u8>) {
        let known = self.known.lock();
        (text(known.greatest), known.mark.clone())
    }

    pub(super) fn mark(&self) -> Vec<u8> {
        self.known.lock().mark.clone()
    }

    /// Where a release is told, and how.
    pub(super) fn release_news(&self, name: &[u8]) -> [Vec<u8>; 2] {
        [self.channel(), feed::frame(RELEASED, &self.node, name)]
    }

    pub(super) async fn run(
        &self,
        script: &Script,
        keys: &[Vec<u8>],
        arguments: &[Vec<u8>],
    ) -> Result<Value, RedisError> {
        let client = redis::client(&self.config.redis);
        script.run(&client, keys, arguments).await
    }

    pub(super) fn key(&self, kind: &str, name: &[u8]) -> Vec<u8> {
        [self.config.prefix.as_bytes(), kind.as_bytes(), name].concat()
    }

    pub(super) fn lease_keys(&self, name: &[u8]) -> [Vec<u8>; 2] {
        [self.lock_key(name), self.key("!mark", b"")]
    }

    fn lock_key(&self, name: &[u8]) -> Vec<u8> {
        self.key("=", name)
    }

    fn table_keys(&self) -> [Vec<u8>; 3] {
        ["!number", "!mark", "!pause"].map(|kind| self.key(kind, b""))
    }

    pub(super) fn failed(&self, what: &str, error: &RedisError) -> LockError {
        // The client itself says when its server goes and comes.
        if *error != RedisError::BreakerOpen && self.said.may_speak() {
            self.note(LogLevel::Warn, &format!("{what}: {error}"));
        }
        LockError::Unavailable
    }
}

fn pair(reply: &Value) -> Option<(i64, i64)> {
    match reply {
        Value::Array(parts) => match parts.as_slice() {
            [Value::Int(said), Value::Int(number)] => Some((*said, *number)),
            _ => None,
        },
        _ => None,
    }
}

/// A key of another's that has no end is looked at again and again.
fn rest(milliseconds: i64) -> Duration {
    u64::try_from(milliseconds).map_or(SLOW, Duration::from_millis)
}
