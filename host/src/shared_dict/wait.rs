//! Waiting for a change of a key, so that nobody has to poll. A dict that nobody waits at pays one
//! load per change.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::shard::Stored;
use super::{DictError, Mode, SharedDict, Store, Value};
use crate::time_cache;

/// How many may wait at a dict that nobody configured: those of tests.
const WAITERS: usize = 10_000;

/// Those who wait for one key.
#[derive(Debug, Default)]
struct Bench {
    seats: usize,
    bell: Arc<Notify>,
    /// Whose turn it is to add.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// Those who wait at one dict.
#[derive(Debug)]
pub(super) struct Waiters {
    count: AtomicUsize,
    most: AtomicUsize,
    keys: Mutex<HashMap<Box<[u8]>, Bench>>,
}

impl Default for Waiters {
    fn default() -> Self {
        Self {
            count: AtomicUsize::new(0),
            most: AtomicUsize::new(WAITERS),
            keys: Mutex::default(),
        }
    }
}

/// One who waits.
struct Seat<'d> {
    waiters: &'d Waiters,
    key: &'d [u8],
    bell: Arc<Notify>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut keys = self.waiters.keys.lock();
        if let Some(bench) = keys.get_mut(self.key) {
            bench.seats -= 1;
            if bench.seats == 0 {
                keys.remove(self.key);
            }
        }
        self.waiters.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Waiters {
    fn sit<'d>(&'d self, key: &'d [u8]) -> Result<Seat<'d>, DictError> {
        if self.count.fetch_add(1, Ordering::Relaxed) >= self.most.load(Ordering::Relaxed) {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return Err(DictError::Busy);
        }
        let mut keys = self.keys.lock();
        let bench = keys.entry(key.into()).or_default();
        bench.seats += 1;
        Ok(Seat {
            waiters: self,
            key,
            bell: Arc::clone(&bench.bell),
            turn: Arc::clone(&bench.turn),
        })
    }

    /// Called after a change. Who sits down later reads the value later, under the shard's lock, and
    /// sees the change: so the count needs no order of its own.
    pub(super) fn changed(&self, key: &[u8]) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        if let Some(bench) = self.keys.lock().get(key) {
            bench.bell.notify_waiters();
        }
    }

    pub(super) fn all_changed(&self) {
        for bench in self.keys.lock().values() {
            bench.bell.notify_waiters();
        }
    }
}

/// What no clock reaches is as good as for ever.
fn after(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(time)
        .unwrap_or(now + Duration::from_secs(1 << 32))
}

impl SharedDict {
    /// How many may wait at this dict at once.
    pub fn limit_waiters(&self, most: usize) {
        self.waiters.most.store(most, Ordering::Relaxed);
    }

    /// Wakes the one that waits for a key longest; false when nobody does.
    pub fn wake(&self, key: &[u8]) -> bool {
        let keys = self.waiters.keys.lock();
        let bench = keys.get(key);
        if let Some(bench) = bench {
            bench.bell.notify_one();
        }
        bench.is_some()
    }

    /// Waits until what is under `key` differs from `seen` (`Nil`: nothing), or until somebody wakes
    /// this waiter; false when the time is over before. It may return early.
    ///
    /// # Errors
    /// When the key is none or a list's, and when too many wait.
    pub async fn changed(
        &self,
        key: &[u8],
        seen: &Value,
        timeout: Duration,
    ) -> Result<bool, DictError> {
        let seat = self.waiters.sit(key)?;
        let deadline = after(timeout);
        loop {
            let mut bell = std::pin::pin!(seat.bell.notified());
            bell.as_mut().enable();
            let Some(left) = self.unchanged(key, seen)? else {
                return Ok(true);
            };
            let expiry = Instant::now().checked_add(left).unwrap_or(deadline);
            if timeout_at(deadline.min(expiry), bell).await.is_ok() {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(self.unchanged(key, seen)?.is_none());
            }
        }
    }

    /// Stores `value` as soon as nothing is under `key`. Those who wait to add under the same key have
    /// their turns in the order in which they came: only the first of them is woken. False when the time
    /// is over before.
    ///
    /// # Errors
    /// Those of `add`, but for `exists`; and when too many wait.
    pub async fn add_in_turn(
        &self,
        key: &[u8],
        value: &Value,
        ttl: u64,
        timeout: Duration,
    ) -> Result<bool, DictError> {
        let how = Store {
            mode: Mode::Add,
            ttl,
            flags: 0,
        };
        let add = || match self.store(key, value.clone(), how, time_cache::now_ms()) {
            Ok(_) => Ok(true),
            Err(DictError::Exists) => Ok(false),
            Err(error) => Err(error),
        };
        // Where nobody waits nobody is passed by.
        if self.waiters.count.load(Ordering::Relaxed) == 0 {
            let added = add()?;
            if added || timeout.is_zero() {
                return Ok(added);
            }
        }
        let seat = self.waiters.sit(key)?;
        let deadline = after(timeout);
        let Ok(_turn) = timeout_at(deadline, seat.turn.lock()).await else {
            return Ok(false);
        };
        loop {
            let mut bell = std::pin::pin!(seat.bell.notified());
            bell.as_mut().enable();
            if add()? {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            let until = self.left(key)?.map_or(deadline, after);
            let _rung = timeout_at(deadline.min(until), bell).await.is_ok();
        }
    }

    /// How long what is under a key will still live if nobody writes; `None` is for ever.
    fn left(&self, key: &[u8]) -> Result<Option<Duration>, DictError> {
        let now = time_cache::now_ms();
        let (lane, hash) = self.lane(key)?;
        let held = lane.lock();
        let Some(index) = held.shard.find_live(hash, key, now) else {
            return Ok(Some(Duration::ZERO));
        };
        Ok(match held.shard.entry(index).expires {
            0 => None,
            expires => Some(Duration::from_millis(expires.saturating_sub(now).max(1))),
        })
    }

    /// How long the value will still be `seen` if nobody writes; `None` when it is another one.
    fn unchanged(&self, key: &[u8], seen: &Value) -> Result<Option<Duration>, DictError> {
        let now = time_cache::now_ms();
        let (lane, hash) = self.lane(key)?;
        let held = lane.lock();
        let Some(index) = held.shard.find_live(hash, key, now) else {
            return Ok((*seen == Value::Nil).then_some(Duration::MAX));
        };
        let entry = held.shard.entry(index);
        match &entry.stored {
            Stored::List(_) => Err(DictError::IsAList),
            Stored::Plain(value) if value != seen => Ok(None),
            Stored::Plain(_) if entry.expires == 0 => Ok(Some(Duration::MAX)),
            Stored::Plain(_) => Ok(Some(Duration::from_millis(
                entry.expires.saturating_sub(now).max(1),
            ))),
        }
    }
}
