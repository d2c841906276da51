//! The line of one process: who is first asks first, and gets the lock when its owner is done or its hold
//! is over.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use foldhash::fast::RandomState;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::LockError;

/// Locks of the map; far more than workers, so that two seldom meet.
const SHARDS: usize = 64;

/// One that is held.
#[derive(Debug)]
struct Held {
    owner: u64,
    until: Instant,
    waiters: VecDeque<Waiter>,
}

/// One in line, with the hold it wants.
#[derive(Debug)]
struct Waiter {
    hold: Duration,
    tell: oneshot::Sender<Guard>,
}

type Shard = HashMap<Box<[u8]>, Held>;

/// What all workers share of the locks of one table; it outlives a generation, so a reload frees none.
#[derive(Debug)]
pub(super) struct Store {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    owners: AtomicU64,
    waiting: AtomicUsize,
}

/// The right to go on; dropping it hands it to the next in line.
#[derive(Debug)]
pub(super) struct Guard {
    store: Arc<Store>,
    name: Box<[u8]>,
    owner: u64,
    hold: Duration,
}

/// A place among those that wait.
pub(super) struct Waiting<'s>(&'s Store);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the first look says.
enum Asked {
    Got(Guard),
    Wait(oneshot::Receiver<Guard>, Instant),
}

impl Store {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::default(),
            owners: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "a part of a hash, cut to its range"
    )]
    fn shard(&self, name: &[u8]) -> MutexGuard<'_, Shard> {
        self.shards[self.hasher.hash_one(name) as usize % SHARDS].lock()
    }

    fn owner(&self) -> u64 {
        self.owners.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn guard(self: &Arc<Self>, name: &[u8], owner: u64, hold: Duration) -> Guard {
        Guard {
            store: self.clone(),
            name: name.into(),
            owner,
            hold,
        }
    }

    /// The lock, or a place in line.
    fn ask(self: &Arc<Self>, name: &[u8], hold: Duration, line: bool) -> Result<Asked, LockError> {
        let mut shard = self.shard(name);
        let until = Instant::now() + hold;
        let Some(held) = shard.get_mut(name) else {
            let owner = self.owner();
            let waiters = VecDeque::new();
            let held = Held {
                owner,
                until,
                waiters,
            };
            shard.insert(name.into(), held);
            return Ok(Asked::Got(self.guard(name, owner, hold)));
        };
        held.waiters.retain(|waiter| !waiter.tell.is_closed());
        if held.until <= Instant::now() && held.waiters.is_empty() {
            held.owner = self.owner();
            held.until = until;
            return Ok(Asked::Got(self.guard(name, held.owner, hold)));
        }
        if !line {
            return Err(LockError::Timeout);
        }
        let (tell, receiver) = oneshot::channel();
        held.waiters.push_back(Waiter { hold, tell });
        Ok(Asked::Wait(receiver, held.until))
    }

    /// Waits for a lock, in line; no wait is one look.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        name: &[u8],
        hold: Duration,
        wait: Duration,
        most: usize,
    ) -> Result<Guard, LockError> {
        let (mut receiver, mut until) = match self.ask(name, hold, !wait.is_zero())? {
            Asked::Got(guard) => return Ok(guard),
            Asked::Wait(receiver, until) => (receiver, until),
        };
        let _place = self.place(most)?;
        let deadline = Instant::now() + wait;
        loop {
            match tokio::time::timeout_at(until.min(deadline), &mut receiver).await {
                Ok(Ok(guard)) => return Ok(guard),
                Ok(Err(_)) => return Err(LockError::Timeout),
                Err(_) if Instant::now() >= deadline => return Err(LockError::Timeout),
                Err(_) => until = self.pass(name, None).unwrap_or(deadline),
            }
        }
    }

    /// A place among those that wait, if there are less than `most`.
    pub(super) fn place(&self, most: usize) -> Result<Waiting<'_>, LockError> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let place = Waiting(self);
        if before >= most {
            return Err(LockError::Busy);
        }
        Ok(place)
    }

    /// No lock of this name is held.
    #[cfg(test)]
    pub(super) fn is_free(&self, name: &[u8]) -> bool {
        self.shard(name).get(name).is_none()
    }

    /// Hands the lock to the first in line if it is `owner`'s, or if its hold is over. Says until when it
    /// is held.
    fn pass(self: &Arc<Self>, name: &[u8], owner: Option<u64>) -> Option<Instant> {
        let mut shard = self.shard(name);
        let held = shard.get_mut(name)?;
        let due = match owner {
            Some(owner) => held.owner == owner,
            None => held.until <= Instant::now(),
        };
        if !due {
            return Some(held.until);
        }
        let next = loop {
            match held.waiters.pop_front() {
                Some(waiter) if waiter.tell.is_closed() => {}
                next => break next,
            }
        };
        let Some(next) = next else {
            shard.remove(name);
            return None;
        };
        held.owner = self.owner();
        held.until = Instant::now() + next.hold;
        let (guard, until) = (self.guard(name, held.owner, next.hold), held.until);
        drop(shard);
        // Who left just now drops the guard, and so hands it on.
        let _heard = next.tell.send(guard).is_ok();
        Some(until)
    }
}

impl Guard {
    pub(super) fn fencing(&self) -> u64 {
        self.owner
    }

    /// Begins the hold anew; `None` is the hold with which it began.
    pub(super) fn renew(&self, hold: Option<Duration>) -> Result<(), LockError> {
        let hold = hold.unwrap_or(self.hold);
        let mut shard = self.store.shard(&self.name);
        match shard.get_mut(&self.name) {
            Some(held) if held.owner == self.owner => {
                held.until = Instant::now() + hold;
                Ok(())
            }
            _ => Err(LockError::Lost),
        }
    }

    /// Gives the lock back and says whether it was held until now.
    pub(super) fn release(self) -> Result<(), LockError> {
        let held = self.store.shard(&self.name);
        let mine = held
            .get(&self.name)
            .is_some_and(|held| held.owner == self.owner);
        drop(held);
        if mine { Ok(()) } else { Err(LockError::Lost) }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.store.pass(&self.name, Some(self.owner));
    }
}
