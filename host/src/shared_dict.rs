//! Shared dicts, because workers share nothing else that handlers can write: OpenResty's
//! `ngx.shared.DICT` by semantics, many short locks instead of one long one by construction.
//!
//! A dict is cut into shards by a keyed hash; an operation holds the one mutex of its key's shard,
//! for some tens of nanoseconds, and never two at once. What spans the dict is never locked as a
//! whole: the bytes in use are one atomic counter, so one large value may fill a dict of many
//! shards; the victim of an eviction comes from the shard whose oldest entry was unused for longest
//! (each shard publishes that moment), so that the order is least-recently-used to the millisecond
//! over all shards; `get_keys`, `flush_all` and `flush_expired` go shard by shard, piece by piece.
//! Dicts below one MiB have one shard, and with it the exact order. Memory is freed unlocked.
//!
//! Why not a lock-free map: reads reorder the list of use, so every operation writes; a mutex that
//! is held for less time than a cache miss costs is then the cheapest thing there is.
//! Why not one map per worker: a value must be seen by all workers when `set` returns.
//!
//! Time is an argument (`now`, milliseconds since the epoch), so that tests own the clock.
//! Left out: capabilities and names, which `api` and `registry` look after.

mod list;
mod registry;
mod room;
mod shard;
mod swap;
#[cfg(test)]
mod tests;
mod wait;

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use foldhash::quality::RandomState;
use parking_lot::{Mutex, MutexGuard};

pub use registry::{Dicts, Registry, Wanted};
use shard::{ENTRY_COST, Shard, Stored};
/// Keys are shorter than this, as in OpenResty: its key length has 16 bits.
pub const MAX_KEY_BYTES: usize = 65_535;
/// Enough that 16 workers seldom meet; a power of two, so that a mask chooses.
const SHARDS: usize = 16;
/// Below this a dict has one shard: few entries, and tests of eviction expect the exact order.
const ONE_SHARD_BELOW: usize = 1 << 20;
/// How many entries go under one hold of a lock when room is made.
const EVICTIONS_PER_HOLD: usize = 32;
/// How often a store makes room again because others took what it had freed.
const STORE_ATTEMPTS: usize = 100;

/// Why an operation failed; the text is OpenResty's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DictError {
    /// There is no such key, or it has expired.
    NotFound,
    /// `add` met a live entry.
    Exists,
    /// The entry does not fit, or would fit only by evicting live ones where that is forbidden.
    NoMemory,
    /// `incr` met something else.
    NotANumber,
    /// A plain operation met a list.
    IsAList,
    /// A list operation met a plain value.
    NotAList,
    /// The key is empty.
    EmptyKey,
    /// The key is longer than [`MAX_KEY_BYTES`].
    KeyTooLong,
    /// `add` or `replace` with nil, or a list element that is neither bytes nor a number.
    BadValue,
    /// As many wait at the dict as may.
    Busy,
}

impl std::fmt::Display for DictError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::Exists => "exists",
            Self::NoMemory => "no memory",
            Self::NotANumber => "not a number",
            Self::IsAList => "value is a list",
            Self::NotAList => "value not a list",
            Self::EmptyKey => "empty key",
            Self::KeyTooLong => "key too long",
            Self::BadValue => "bad value type",
            Self::Busy => "too many waits",
        })
    }
}

impl std::error::Error for DictError {}

/// What a dict holds. `Bytes` should own its memory: a slice of a larger buffer keeps all of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing: storing it deletes.
    Nil,
    /// A boolean.
    Boolean(bool),
    /// A number, a double as all of Lua's.
    Number(f64),
    /// A string.
    Bytes(Bytes),
}

/// A value with its flags.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The value, never `Nil`.
    pub value: Value,
    /// What the writer gave with it.
    pub flags: u32,
    /// It has expired.
    pub stale: bool,
}

/// How to store; the safe modes never evict live entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Whatever was there.
    Set,
    /// Whatever was there, without evicting.
    SafeSet,
    /// Only where nothing live is.
    Add,
    /// Only where nothing live is, without evicting.
    SafeAdd,
    /// Only over something live.
    Replace,
}

/// How a value is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Store {
    /// Over what.
    pub mode: Mode,
    /// Time to live in milliseconds; 0 is for ever.
    pub ttl: u64,
    /// Given back by `get`.
    pub flags: u32,
}

/// An end of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// `lpush`, `lpop`.
    Left,
    /// `rpush`, `rpop`.
    Right,
}

/// What a dict did, for the operator; each number only grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Reads that found a live value.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Live entries that went to make room.
    pub evictions: u64,
    /// Stores that failed for want of room.
    pub no_memory: u64,
}

/// One shard on cache lines of its own: neighbours' locks must not disturb it.
#[derive(Debug)]
#[repr(align(128))]
struct Lane {
    shard: Mutex<Shard>,
    oldest_use: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
}

impl Lane {
    fn lock(&self) -> LaneGuard<'_> {
        LaneGuard {
            shard: self.shard.lock(),
            lane: self,
        }
    }
}

/// A held shard; publishes the age of its oldest entry when it is let go.
struct LaneGuard<'a> {
    shard: MutexGuard<'a, Shard>,
    lane: &'a Lane,
}

impl Drop for LaneGuard<'_> {
    fn drop(&mut self) {
        self.lane
            .oldest_use
            .store(self.shard.oldest_use(), Ordering::Relaxed);
    }
}

/// A dict that all workers see.
#[derive(Debug)]
pub struct SharedDict {
    capacity: AtomicUsize,
    used: AtomicUsize,
    no_memory: AtomicU64,
    lanes: Box<[Lane]>,
    hasher: RandomState,
    waiters: wait::Waiters,
}

impl SharedDict {
    /// A dict of `capacity` bytes; entries are charged with their key, value and a fixed overhead.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let count = if capacity < ONE_SHARD_BELOW {
            1
        } else {
            SHARDS
        };
        let lane = || Lane {
            shard: Mutex::new(Shard::new()),
            oldest_use: AtomicU64::new(u64::MAX),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
        };
        Self {
            capacity: AtomicUsize::new(capacity),
            used: AtomicUsize::new(0),
            no_memory: AtomicU64::new(0),
            lanes: std::iter::repeat_with(lane).take(count).collect(),
            hasher: RandomState::default(),
            waiters: wait::Waiters::default(),
        }
    }

    /// Another capacity with the same contents; what is too much goes with the next stores.
    pub fn resize(&self, capacity: usize) {
        self.capacity.store(capacity, Ordering::Relaxed);
    }

    /// `get` and `get_stale`: the value, if it is live (or still there, `with_stale`).
    pub fn get(&self, key: &[u8], with_stale: bool, now: u64) -> Result<Option<Entry>, DictError> {
        self.read(key, with_stale, now, |value, flags, stale| Entry {
            value: value.clone(),
            flags,
            stale,
        })
    }

    /// As [`Self::get`] without a copy: `read` sees the value in place, while the lock is held, so it
    /// must be short: a copy into guest memory.
    pub fn read<R>(
        &self,
        key: &[u8],
        with_stale: bool,
        now: u64,
        read: impl FnOnce(&Value, u32, bool) -> R,
    ) -> Result<Option<R>, DictError> {
        let (lane, hash) = self.lane(key)?;
        let mut held = lane.lock();
        let found = held
            .shard
            .find(hash, key)
            .map(|index| (index, !held.shard.is_live(index, now)));
        let Some((index, stale)) = found.filter(|&(_, stale)| with_stale || !stale) else {
            lane.misses.fetch_add(1, Ordering::Relaxed);
            return Ok(None);
        };
        if stale {
            lane.misses.fetch_add(1, Ordering::Relaxed);
        } else {
            // What has expired gains no time by being read.
            held.shard.touch(index, now);
            lane.hits.fetch_add(1, Ordering::Relaxed);
        }
        let entry = held.shard.entry(index);
        match &entry.stored {
            Stored::List(_) => Err(DictError::IsAList),
            Stored::Plain(value) => Ok(Some(read(value, entry.flags, stale))),
        }
    }

    /// `set`, `safe_set`, `add`, `safe_add`, `replace`. True when other live entries were evicted.
    /// Setting nil deletes. What does not fit deletes, too.
    pub fn store(&self, key: &[u8], value: Value, how: Store, now: u64) -> Result<bool, DictError> {
        let Store { mode, ttl, flags } = how;
        let (lane, hash) = self.lane(key)?;
        if value == Value::Nil {
            return match mode {
                Mode::Set | Mode::SafeSet => self.delete(key).map(|()| false),
                Mode::Add | Mode::SafeAdd | Mode::Replace => Err(DictError::BadValue),
            };
        }
        let safe = matches!(mode, Mode::SafeSet | Mode::SafeAdd);
        let stored = Stored::Plain(value);
        let cost = ENTRY_COST + key.len() + stored.cost();
        let mut forcible = false;
        for _ in 0..STORE_ATTEMPTS {
            let mut held = lane.lock();
            let found = held.shard.find(hash, key);
            let live = found.is_some_and(|index| held.shard.is_live(index, now));
            match mode {
                Mode::Add | Mode::SafeAdd if live => return Err(DictError::Exists),
                Mode::Replace if !live => return Err(DictError::NotFound),
                Mode::Set | Mode::SafeSet | Mode::Add | Mode::SafeAdd | Mode::Replace => {}
            }
            let former = found.map_or(0, |index| held.shard.entry(index).cost());
            if self.reserve(cost, former) {
                let (index, old) = held.shard.place(found, (hash, key), stored, now);
                held.shard.entry_mut(index).flags = flags;
                held.shard.set_expiry(index, expiry(ttl, now));
                drop(held);
                drop(old);
                self.waiters.changed(key);
                return Ok(forcible);
            }
            drop(held);
            let room = self.make_room(cost.saturating_sub(former), key, safe, now);
            match room {
                Ok(evicted) => forcible |= evicted,
                Err(error) => return self.forget(key, mode, error),
            }
        }
        self.forget(key, mode, self.refuse())
    }

    /// Adds to a number. `init` stands for an absent one: its value and its time to live in
    /// milliseconds (0: for ever). Gives the new number, and whether live entries were evicted.
    pub fn incr(
        &self,
        key: &[u8],
        by: f64,
        init: Option<(f64, u64)>,
        now: u64,
    ) -> Result<(f64, bool), DictError> {
        let (lane, hash) = self.lane(key)?;
        loop {
            let mut held = lane.lock();
            if let Some(index) = held.shard.find_live(hash, key, now) {
                let Stored::Plain(Value::Number(number)) = &mut held.shard.entry_mut(index).stored
                else {
                    return Err(DictError::NotANumber);
                };
                *number += by;
                let sum = *number;
                held.shard.touch(index, now);
                drop(held);
                self.waiters.changed(key);
                return Ok((sum, false));
            }
            drop(held);
            let (init, ttl) = init.ok_or(DictError::NotFound)?;
            let sum = init + by;
            match self.store(
                key,
                Value::Number(sum),
                Store {
                    mode: Mode::Add,
                    ttl,
                    flags: 0,
                },
                now,
            ) {
                // Another worker was first: add to its number.
                Err(DictError::Exists) => {}
                stored => return stored.map(|forcible| (sum, forcible)),
            }
        }
    }

    /// Takes an entry away, a list too; no error when there is none.
    pub fn delete(&self, key: &[u8]) -> Result<(), DictError> {
        let (lane, hash) = self.lane(key)?;
        let mut held = lane.lock();
        let found = held.shard.find(hash, key);
        let old = found.map(|index| held.shard.remove(index));
        drop(held);
        self.release(old.as_ref().map_or(0, shard::Entry::cost));
        self.waiters.changed(key);
        Ok(())
    }

    /// Milliseconds left; 0 is for ever.
    pub fn ttl(&self, key: &[u8], now: u64) -> Result<u64, DictError> {
        let (lane, hash) = self.lane(key)?;
        let held = lane.lock();
        let index = held
            .shard
            .find_live(hash, key, now)
            .ok_or(DictError::NotFound)?;
        Ok(held.shard.entry(index).expires.saturating_sub(now))
    }

    /// Gives an entry a new time to live in milliseconds; 0 is for ever.
    pub fn expire(&self, key: &[u8], ttl: u64, now: u64) -> Result<(), DictError> {
        let (lane, hash) = self.lane(key)?;
        let mut held = lane.lock();
        let index = held
            .shard
            .find_live(hash, key, now)
            .ok_or(DictError::NotFound)?;
        held.shard.set_expiry(index, expiry(ttl, now));
        drop(held);
        self.waiters.changed(key);
        Ok(())
    }

    /// Expires everything, in a step per shard. What is stored meanwhile may go with it or stay.
    pub fn flush_all(&self) {
        for lane in &self.lanes {
            lane.lock().shard.flush();
        }
        self.waiters.all_changed();
    }

    /// Frees at most `max` expired entries (0: all), and says how many.
    pub fn flush_expired(&self, max: usize, now: u64) -> usize {
        let max = if max == 0 { usize::MAX } else { max };
        let mut freed = 0;
        for lane in &self.lanes {
            freed += self.sweep(lane, max - freed, now);
        }
        freed
    }

    /// At most `max` keys of live entries (0: all), in no order. Holds no lock for long: keys that
    /// come or go meanwhile may be missing.
    #[must_use]
    pub fn get_keys(&self, max: usize, now: u64) -> Vec<Bytes> {
        let max = if max == 0 { usize::MAX } else { max };
        let mut keys = Vec::new();
        for lane in &self.lanes {
            let mut next = Some(0);
            while let Some(start) = next {
                let held = lane.lock();
                next = held.shard.keys_from(start, max, now, &mut keys);
            }
        }
        keys
    }

    /// The configured size in bytes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity.load(Ordering::Relaxed)
    }

    /// The bytes that are free.
    #[must_use]
    pub fn free_space(&self) -> usize {
        self.capacity()
            .saturating_sub(self.used.load(Ordering::Relaxed))
    }

    /// How many entries there are, expired ones too.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lanes.iter().map(|lane| lane.lock().shard.len()).sum()
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What this dict did so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let sum = |of: fn(&Lane) -> &AtomicU64| {
            self.lanes
                .iter()
                .map(|lane| of(lane).load(Ordering::Relaxed))
                .sum()
        };
        Stats {
            hits: sum(|lane| &lane.hits),
            misses: sum(|lane| &lane.misses),
            evictions: sum(|lane| &lane.evictions),
            no_memory: self.no_memory.load(Ordering::Relaxed),
        }
    }

    fn lane(&self, key: &[u8]) -> Result<(&Lane, u64), DictError> {
        match key.len() {
            0 => Err(DictError::EmptyKey),
            1..=MAX_KEY_BYTES => {
                let hash = self.hasher.hash_one(key);
                // The table uses the lowest bits and the highest seven.
                let middle = usize::try_from((hash >> 32) & 0xffff).unwrap_or(0);
                Ok((&self.lanes[middle & (self.lanes.len() - 1)], hash))
            }
            _ => Err(DictError::KeyTooLong),
        }
    }
}

/// When something stored now expires; 0 is never.
fn expiry(ttl: u64, now: u64) -> u64 {
    if ttl == 0 { 0 } else { now.saturating_add(ttl) }
}
