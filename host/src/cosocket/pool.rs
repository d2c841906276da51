//! Idle connections of a worker, by plugin and name: bounded, the one used longest ago goes first,
//! and with a backlog a pool also bounds the connections in use and lets callers queue.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::{Equivalent, HashMap};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::options::FOR_EVER;
use super::transport::Transport;
use super::{SocketError, Stream};
use crate::time_cache;

/// How often idle connections are looked at: one that its server closed does not stay open longer.
const SWEEP: Duration = Duration::from_secs(1);

/// A pool's name, under its plugin's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key(Arc<(String, String)>);

impl Key {
    pub(super) fn new(owner: &str, name: &str) -> Self {
        Self(Arc::new((owner.to_owned(), name.to_owned())))
    }

    /// The plugin.
    fn owner(&self) -> &str {
        &self.0.0
    }
}

/// A key that is looked for without being made.
#[derive(Hash)]
struct Sought<'a>(&'a str, &'a str);

impl Equivalent<Key> for Sought<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.0 == key.0.0 && self.1 == key.0.1
    }
}

/// A connection at rest.
#[derive(Debug)]
pub(super) struct Idle {
    transport: Transport,
    lease: Option<Lease>,
    reused: u32,
    until: Instant,
    /// Of the pool, should it have to be made again.
    bounds: Bounds,
}

impl Idle {
    pub(super) fn into_stream(self, key: Key) -> Stream {
        let place = Place {
            key,
            bounds: self.bounds,
            lease: self.lease,
        };
        Stream::new(self.transport, place, self.reused + 1)
    }
}

/// How many connections may be idle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// In a pool that is not there yet, if somebody said so.
    pub(super) size: Option<usize>,
    /// If nobody did.
    pub(super) usual: usize,
    /// In all of the plugin's.
    pub(super) most: usize,
}

impl Bounds {
    fn size(self) -> usize {
        self.size.unwrap_or(self.usual)
    }
}

/// Where a connection goes when it is kept alive.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) key: Key,
    pub(super) bounds: Bounds,
    pub(super) lease: Option<Lease>,
}

impl Place {
    fn new(key: Key, bounds: Bounds, lease: Option<Lease>) -> Self {
        Self { key, bounds, lease }
    }
}

/// One of the connections that a pool with a backlog may have; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Lease(Key);

impl Drop for Lease {
    fn drop(&mut self) {
        release(&self.0);
    }
}

/// What a caller in the queue gets.
#[derive(Debug)]
pub(super) enum Grant {
    Idle(Idle),
    Dial(Lease),
}

/// What a pool has for a caller.
pub(super) enum Claim {
    Idle(Stream),
    /// Nothing: connect; the lease is there if the pool counts.
    Dial(Place),
    /// All its connections are in use.
    Wait(Place, oneshot::Receiver<Grant>),
}

#[derive(Default)]
struct Pool {
    size: usize,
    backlog: Option<usize>,
    /// Oldest first.
    idle: VecDeque<Idle>,
    /// Leases that are out; those of idle connections are among them.
    leased: usize,
    queue: VecDeque<oneshot::Sender<Grant>>,
}

impl Pool {
    fn is_empty(&self) -> bool {
        self.idle.is_empty() && self.leased == 0 && self.queue.is_empty()
    }

    /// The connection that was used last and is still good.
    fn newest(&mut self, idle_in_all: &mut usize, stale: &mut Vec<Idle>) -> Option<Idle> {
        let now = time_cache::instant();
        while let Some(mut idle) = self.idle.pop_back() {
            *idle_in_all -= 1;
            if idle.until > now && idle.transport.is_quiet() {
                return Some(idle);
            }
            stale.push(idle);
        }
        None
    }

    /// Who waits first and is still there.
    fn next_waiter(&mut self) -> Option<oneshot::Sender<Grant>> {
        while let Some(waiter) = self.queue.pop_front() {
            if !waiter.is_closed() {
                return Some(waiter);
            }
        }
        None
    }
}

/// A worker's pools.
#[derive(Default)]
struct Pools {
    by_key: HashMap<Key, Pool, foldhash::fast::RandomState>,
    /// Idle connections of all of them.
    idle: usize,
}

impl Pools {
    /// Idle connections of one plugin's; those of all are known, and mostly are few enough.
    fn has_room(&self, owner: &str, most: usize) -> bool {
        self.idle < most
            || self
                .by_key
                .iter()
                .filter(|(key, _)| key.owner() == owner)
                .map(|(_, pool)| pool.idle.len())
                .sum::<usize>()
                < most
    }
}

thread_local! {
    static POOLS: RefCell<Pools> = RefCell::default();
    static SWEEPING: Cell<bool> = const { Cell::new(false) };
}

/// Asks a pool for a connection. A new pool takes its size and `backlog`; an old one keeps its own.
pub(super) fn claim(
    owner: &str,
    name: &str,
    bounds: Bounds,
    backlog: Option<usize>,
) -> Result<Claim, SocketError> {
    // What is found stale is dropped outside of the borrow: its lease comes back here.
    let mut stale = Vec::new();
    let claim = POOLS.with_borrow_mut(|pools| {
        let known = pools.by_key.get_key_value_mut(&Sought(owner, name));
        let (key, pool) = match (known, backlog) {
            (Some((key, pool)), _) => (key.clone(), pool),
            (None, None) => {
                let key = Key::new(owner, name);
                return Ok(Claim::Dial(Place::new(key, bounds, None)));
            }
            (None, backlog) => {
                let key = Key::new(owner, name);
                let place = pools.by_key.entry(key.clone());
                (
                    key,
                    place.or_insert_with(|| new_pool(bounds.size(), backlog)),
                )
            }
        };
        if let Some(idle) = pool.newest(&mut pools.idle, &mut stale) {
            return Ok(Claim::Idle(idle.into_stream(key)));
        }
        let Some(backlog) = pool.backlog else {
            return Ok(Claim::Dial(Place::new(key, bounds, None)));
        };
        let ending = stale.iter().filter(|idle| idle.lease.is_some()).count();
        let leased = pool.leased.saturating_sub(ending);
        if leased < pool.size {
            pool.leased += 1;
            let lease = Some(Lease(key.clone()));
            return Ok(Claim::Dial(Place::new(key, bounds, lease)));
        }
        pool.queue.retain(|waiter| !waiter.is_closed());
        if pool.queue.len() >= backlog {
            return Err(SocketError::other("too many waiting connect operations"));
        }
        let (sender, receiver) = oneshot::channel();
        pool.queue.push_back(sender);
        Ok(Claim::Wait(Place::new(key, bounds, None), receiver))
    });
    drop(stale);
    claim
}

fn new_pool(size: usize, backlog: Option<usize>) -> Pool {
    Pool {
        size,
        backlog,
        ..Pool::default()
    }
}

/// Puts a connection at rest, or gives it to who waits for one.
pub(super) fn give_back(place: Place, transport: Transport, reused: u32, idle: Duration) {
    let idle = if idle.is_zero() { FOR_EVER } else { idle };
    let Place { key, bounds, lease } = place;
    let mut entry = Idle {
        transport,
        lease,
        reused,
        until: time_cache::instant() + idle,
        bounds,
    };
    let evicted = POOLS.with_borrow_mut(|pools| {
        let has_room = pools.has_room(key.owner(), bounds.most);
        let pool = pools
            .by_key
            .entry(key)
            .or_insert_with(|| new_pool(bounds.size(), None));
        entry.bounds.size = Some(pool.size);
        while let Some(waiter) = pool.next_waiter() {
            match waiter.send(Grant::Idle(entry)) {
                Ok(()) => return None,
                Err(Grant::Idle(back)) => entry = back,
                Err(Grant::Dial(_)) => return None,
            }
        }
        let full = pool.idle.len() >= pool.size || !has_room;
        let evicted = full.then(|| pool.idle.pop_front()).flatten();
        if full && evicted.is_none() {
            return Some(entry);
        }
        pool.idle.push_back(entry);
        pools.idle += usize::from(evicted.is_none());
        evicted
    });
    drop(evicted);
    if !SWEEPING.replace(true) {
        tokio::task::spawn_local(sweep_while_needed());
    }
}

/// A counted connection has ended: who waits may make another.
fn release(key: &Key) {
    let granted = POOLS.try_with(|pools| {
        let Ok(mut pools) = pools.try_borrow_mut() else {
            return None;
        };
        let pool = pools.by_key.get_mut(key)?;
        pool.leased = pool.leased.saturating_sub(1);
        if let Some(waiter) = pool.next_waiter() {
            pool.leased += 1;
            return Some((waiter, Lease(key.clone())));
        }
        if pool.is_empty() {
            pools.by_key.remove(key);
        }
        None
    });
    if let Ok(Some((waiter, lease))) = granted {
        // A waiter that has left drops the lease, and the next one gets it.
        drop(waiter.send(Grant::Dial(lease)));
    }
}

/// Closes what is too old or was closed by the other side; forgets empty pools.
fn sweep() -> bool {
    let mut stale = Vec::new();
    let more = POOLS.with_borrow_mut(|pools| {
        let now = Instant::now();
        for pool in pools.by_key.values_mut() {
            let mut at = 0;
            while let Some(idle) = pool.idle.get_mut(at) {
                if idle.until > now && idle.transport.is_quiet() {
                    at += 1;
                } else {
                    stale.extend(pool.idle.remove(at));
                }
            }
        }
        pools.idle -= stale.len();
        pools.by_key.retain(|_, pool| !pool.is_empty());
        pools.idle > 0
    });
    drop(stale);
    more
}

/// When the next idle connection is too old.
fn next_end() -> Option<Instant> {
    POOLS.with_borrow(|pools| {
        pools
            .by_key
            .values()
            .flat_map(|pool| &pool.idle)
            .map(|idle| idle.until)
            .min()
    })
}

async fn sweep_while_needed() {
    loop {
        let next = Instant::now() + SWEEP;
        tokio::time::sleep_until(next_end().map_or(next, |end| end.min(next))).await;
        if !sweep() {
            SWEEPING.set(false);
            return;
        }
    }
}
