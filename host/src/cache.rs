//! The tiered cache without Wasm: bytes in the process's memory, one flight per key, and the counters
//! of changes by which a copy in an instance is known to be fresh.
//!
//! A look-up goes through the levels: memory, then what stands behind it, then the caller's own source,
//! for which it gets the key's flight. All who ask meanwhile wait for that flight, each as long as it
//! wants. What an expired value may still do is decided here, too: serve while one caller brings a new
//! one (`revalidate`, `refresh_ahead`), or when the source fails (`stale`).

mod behind;
mod change;
mod counters;
mod disk;
mod entry;
mod flight;
mod hold;
mod maps;
mod purges;
mod record;
mod registry;
mod remote;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use behind::{Behind, Era, Shared, Sought, TooLate};
use counters::Counter;
pub use entry::{CacheError, Entry, Found, Level, Options, Stamp};
pub use flight::Ticket;
pub use purges::Purge;
pub use registry::{Opened, Registry, Unusable, close_all};

use crate::config::model::Cache as Config;
use crate::time_cache;
use flight::Landing;
use store::Store;

/// The longest key: as long as a shared dict's.
const KEY_LIMIT: usize = 65_535;

/// A cache as one generation's configuration wants it.
#[derive(Debug)]
pub struct Cache {
    config: Config,
    store: Arc<Store>,
    behind: Arc<Behind>,
}

/// A look-up's end.
#[derive(Debug)]
pub enum Outcome {
    /// A value.
    Hit(Found),
    /// The caller is to bring it.
    Miss(Box<Ticket>),
}

/// What the board says.
enum Boarding {
    Hit(Found),
    Flight(Ticket),
    Wait(tokio::sync::oneshot::Receiver<Landing>, Option<Instant>),
}

/// What a caller wants.
#[derive(Clone, Copy)]
struct Call {
    options: Options,
    force: bool,
    deadline: Instant,
}

/// What came of a flight before its source was asked.
enum Departure {
    /// A value, or the source is to be asked.
    Over(Outcome),
    /// The key was changed meanwhile.
    Again,
    /// Another server takes longer than the caller would wait.
    Late,
}

/// A place among those that wait.
struct Waiting<'s>(&'s Store);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.common.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Cache {
    fn new(config: Config, store: Arc<Store>, behind: Arc<Behind>) -> Self {
        Self {
            config,
            store,
            behind,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// How long a flight lasts unless it is renewed.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.config.lease
    }

    /// How many decoded values an instance keeps.
    #[must_use]
    pub fn items(&self) -> u32 {
        self.config.items
    }

    /// Whether a copy with this stamp is what the cache holds. All other times are compared with the clock;
    /// here the worker's time will do, which is never ahead: a copy serves until its loop's turn is over.
    #[must_use]
    pub fn fresh(&self, stamp: Stamp) -> bool {
        let fresh = stamp.until > time_cache::now_ms()
            && self.store.version(stamp.slot) == Some(stamp.version);
        if fresh {
            self.store.counters.count(Counter::InstanceHits);
        }
        fresh
    }

    /// Whether a slot has had no change since it had this version.
    #[must_use]
    pub fn unchanged(&self, slot: u32, version: u64) -> bool {
        self.store.version(slot) == Some(version)
    }

    /// All that was counted, by name, with what memory holds now.
    #[must_use]
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut all = self.store.counters.all();
        let (values, bytes) = self.store.filled();
        all.push(("l2_values", values));
        all.push(("l2_bytes", bytes));
        self.behind.filled(&mut all);
        all
    }

    fn check(key: &[u8]) -> Result<(), CacheError> {
        if key.is_empty() || key.len() > KEY_LIMIT {
            return Err(CacheError::InvalidKey);
        }
        Ok(())
    }

    fn found(&self, entry: &Entry, level: Level, mut stamp: Stamp, now: u64) -> Found {
        // A copy ends where somebody should bring a new value, so that the cache hears of it.
        let short = entry.value.as_ref().map_or(0, Bytes::len) as u64 <= self.config.longest;
        stamp.until = if short && entry.due > now {
            entry.due
        } else {
            0
        };
        Found {
            value: entry.value.clone(),
            level,
            stale: entry.is_stale(now),
            remaining: entry.remaining(now),
            stamp,
        }
    }

    /// Looks in memory only.
    #[must_use]
    pub fn peek(&self, key: &[u8], stale: bool) -> Option<Found> {
        let now = time_cache::clock_ms();
        let stamp = self.store.stamp(self.store.place(key).slot);
        let entry = self.store.read(key)?;
        (stale || entry.until > now).then(|| self.found(&entry, Level::Memory, stamp, now))
    }

    /// A value that serves without a question, if memory has one: the short way of [`get`](Self::get).
    #[must_use]
    pub fn hit(&self, key: &[u8]) -> Option<Found> {
        let now = time_cache::clock_ms();
        let stamp = self.store.stamp(self.store.place(key).slot);
        let entry = self.store.read(key)?;
        if entry.due <= now || entry.trust != self.store.trust() {
            return None;
        }
        self.count_hit(&entry, now);
        Some(self.found(&entry, Level::Memory, stamp, now))
    }

    /// Each answer is counted once, so that the levels add up to all that was answered.
    fn count_hit(&self, entry: &Entry, now: u64) {
        self.store.counters.count(match entry.is_stale(now) {
            true => Counter::Stale,
            false => Counter::MemoryHits,
        });
    }

    /// What to do about a key: under its lock, so that one caller at a time gets the flight.
    fn ask(&self, key: &[u8], force: bool) -> Result<Boarding, CacheError> {
        let place = self.store.place(key);
        let now = time_cache::clock_ms();
        let mut board = self.store.board(place);
        let stamp = self.store.stamp(place.slot);
        let entry = self.store.read(key);
        let trusted = |entry: &Arc<Entry>| !force && entry.trust == self.store.trust();
        if let Some(entry) = &entry
            && trusted(entry)
            && entry.due > now
        {
            self.count_hit(entry, now);
            return Ok(Boarding::Hit(self.found(entry, Level::Memory, stamp, now)));
        }
        // A flight from before the cache was emptied would bring what was emptied.
        let late = match board.get(key) {
            Some(flying) if flying.is_late(self.store.epoch()) => board.remove(key),
            _ => None,
        };
        let lease = board.get(key).map(|flying| flying.lease(self.config.lease));
        let over = lease.is_none_or(|lease| lease.is_some_and(|lease| lease <= Instant::now()));
        let outcome = match board.get_mut(key) {
            Some(flying) if !over => {
                let serves = |entry: &&Arc<Entry>| {
                    trusted(entry) && entry.until.saturating_add(self.config.revalidate) > now
                };
                match entry.as_ref().filter(serves) {
                    Some(entry) => {
                        self.count_hit(entry, now);
                        Ok(Boarding::Hit(self.found(entry, Level::Memory, stamp, now)))
                    }
                    None if self.store.common.waiting.load(Ordering::Relaxed)
                        >= self.config.waiters =>
                    {
                        self.store.counters.count(Counter::Refused);
                        Err(CacheError::Busy)
                    }
                    None => Ok(Boarding::Wait(flying.wait(), lease.flatten())),
                }
            }
            _ => {
                let ticket = Ticket::issue(&self.store, &mut board, key, place, entry);
                Ok(Boarding::Flight(ticket))
            }
        };
        drop(board);
        if let Some(late) = late {
            late.land(|| Landing::Again);
        }
        outcome
    }

    /// Looks in all levels; waits while another has the flight. `force` asks for the flight although
    /// a value is there.
    ///
    /// # Errors
    /// When there is neither a value nor a flight in time.
    pub async fn get(
        &self,
        key: &[u8],
        options: Options,
        force: bool,
    ) -> Result<Outcome, CacheError> {
        Self::check(key)?;
        let wait = options
            .wait
            .map_or(self.config.wait, Duration::from_millis)
            .min(LONGEST_WAIT);
        let deadline = Instant::now() + wait;
        let mut force = force;
        loop {
            let (receiver, lease) = match self.ask(key, force)? {
                Boarding::Hit(found) => return Ok(Outcome::Hit(found)),
                Boarding::Flight(ticket) => {
                    let call = Call {
                        options,
                        force,
                        deadline,
                    };
                    match self.depart(ticket, call).await {
                        Departure::Over(outcome) => return Ok(outcome),
                        Departure::Again => continue,
                        Departure::Late => return self.too_late(key, options),
                    }
                }
                Boarding::Wait(receiver, lease) => (receiver, lease),
            };
            self.store.common.waiting.fetch_add(1, Ordering::Relaxed);
            let waiting = Waiting(&self.store);
            let until = lease.map_or(deadline, |lease| lease.min(deadline));
            let landed = tokio::time::timeout_at(until, receiver).await;
            drop(waiting);
            match landed {
                Ok(Ok(Landing::Stored(entry, stamp))) => {
                    self.store.counters.count(Counter::Coalesced);
                    return Ok(Outcome::Hit(self.landed(key, &entry, stamp)));
                }
                Ok(Ok(Landing::Passed(value))) => {
                    self.store.counters.count(Counter::Coalesced);
                    return Ok(Outcome::Hit(passed(value)));
                }
                Ok(Ok(Landing::Failed(reason))) => {
                    return Err(CacheError::Source(reason.to_string()));
                }
                Ok(Ok(Landing::Turn(ticket))) => {
                    let call = Call {
                        options,
                        force,
                        deadline,
                    };
                    match self.depart(*ticket, call).await {
                        Departure::Over(outcome) => return Ok(outcome),
                        Departure::Again => {}
                        Departure::Late => return self.too_late(key, options),
                    }
                }
                // The one it waited for has been taken off the board: what is there now counts.
                Ok(Ok(Landing::Again) | Err(_)) => force = false,
                Err(_) if Instant::now() < deadline => {}
                Err(_) => return self.too_late(key, options),
            }
        }
    }

    /// Whoever has the flight looks through the levels behind before its source is asked.
    async fn depart(&self, mut ticket: Ticket, call: Call) -> Departure {
        ticket.options = call.options;
        if !self.behind.is_empty() {
            let era = self.era();
            let sought = self.behind.load(&ticket.key, era, call.force).await;
            if let Some(end) = self.arrive(&mut ticket, sought, era, call.force).await {
                return end;
            }
        }
        if self.behind.claims() {
            let era = self.era();
            let claimed = self.behind.claim(&ticket.key, era, call.deadline).await;
            match claimed {
                Ok(Some((claim, sought))) => {
                    ticket.claim = Some(claim);
                    if let Some(end) = self.arrive(&mut ticket, sought, era, call.force).await {
                        return end;
                    }
                }
                Ok(None) => {}
                Err(TooLate) => return Departure::Late,
            }
        }
        self.store.counters.count(Counter::Misses);
        Departure::Over(Outcome::Miss(Box::new(ticket)))
    }

    fn era(&self) -> Era {
        Era {
            epoch: self.store.epoch(),
            trust: self.store.trust(),
        }
    }

    /// Takes in what the levels behind have. `None`: it is not enough.
    async fn arrive(
        &self,
        ticket: &mut Ticket,
        sought: Sought,
        era: Era,
        force: bool,
    ) -> Option<Departure> {
        ticket.seen = sought.seen;
        let (found, level) = match sought.found {
            Some((entry, level)) => (Some(Arc::new(entry)), level),
            None => (self.believed(ticket, era, sought.shared), Level::Memory),
        };
        let entry = found?;
        let now = time_cache::clock_ms();
        if entry.due <= now || force {
            let serves = entry.until.saturating_add(self.config.revalidate) > now;
            ticket.found_old(&entry, serves);
            return None;
        }
        let Some(found) = self.promote(ticket, &entry, level, now) else {
            return Some(Departure::Again);
        };
        if sought.shared == Shared::Absent {
            // It was emptied: it gets back what is known to be good, unless there is newer by now.
            let (key, seen) = (&ticket.key, ticket.seen);
            self.behind.store(key, &entry, seen, None).await;
        }
        Some(Departure::Over(Outcome::Hit(found)))
    }

    /// What memory has, of which it was not known any more whether all servers have it: it serves
    /// again if the level that they share does not know better.
    fn believed(&self, ticket: &mut Ticket, era: Era, shared: Shared) -> Option<Arc<Entry>> {
        let old = ticket.old.clone()?;
        if old.trust == era.trust {
            return None;
        }
        if shared == Shared::Absent && !self.store.emptied_since(old.trust) {
            ticket.forget_old();
            return None;
        }
        Some(Arc::new(Entry {
            trust: era.trust,
            ..Entry::clone(&old)
        }))
    }

    /// Takes what a level behind had into memory, with the time it has left.
    fn promote(
        &self,
        ticket: &mut Ticket,
        entry: &Arc<Entry>,
        level: Level,
        now: u64,
    ) -> Option<Found> {
        let (key, slot) = (ticket.key.clone(), ticket.place.slot);
        let stamp = ticket.end(
            |store| {
                let fits = store.write(&key, entry.clone());
                store.changed(slot);
                fits.then(|| store.stamp(slot))
            },
            |stamp| Landing::Stored(entry.clone(), *stamp),
        );
        let stamp = stamp.ok()?;
        self.store.counters.count(match level {
            Level::Disk => Counter::DiskHits,
            Level::Remote => Counter::RemoteHits,
            Level::Memory | Level::Callback => Counter::MemoryHits,
        });
        let mut found = self.found(entry, level, stamp.unwrap_or_default(), now);
        if stamp.is_none() {
            found.stamp = Stamp::default();
        }
        Some(found)
    }

    /// What a waiter gets: its copy is fresh only if nothing has changed since. Should something have
    /// changed under a neighbouring key, it is looked up once more.
    fn landed(&self, key: &[u8], entry: &Arc<Entry>, written: Option<Stamp>) -> Found {
        let now = time_cache::clock_ms();
        if let Some(stamp) = written
            && self.unchanged(stamp.slot, stamp.version)
        {
            return self.found(entry, Level::Callback, stamp, now);
        }
        let stamp = self.store.stamp(self.store.place(key).slot);
        let current = self.store.read(key);
        let mut found = self.found(entry, Level::Callback, stamp, now);
        if !current.is_some_and(|current| Arc::ptr_eq(&current, entry)) {
            found.stamp.until = 0;
        }
        found
    }

    /// The time to wait is over: a stale value where one may serve.
    fn too_late(&self, key: &[u8], options: Options) -> Result<Outcome, CacheError> {
        self.store.counters.count(Counter::Timeouts);
        let now = time_cache::clock_ms();
        let mut stamp = self.store.stamp(self.store.place(key).slot);
        stamp.until = 0;
        match self.store.read(key) {
            Some(entry) if self.may_serve(&entry, options, now) => {
                self.store.counters.count(Counter::Stale);
                Ok(Outcome::Hit(self.found(&entry, Level::Memory, stamp, now)))
            }
            _ => Err(CacheError::Timeout),
        }
    }

    /// Whether a value may serve although its source did not answer.
    fn may_serve(&self, entry: &Entry, options: Options, now: u64) -> bool {
        let stale = options.stale.unwrap_or(self.config.stale);
        entry.ended.saturating_add(stale) > now
    }
}

/// A day: longer than any request, and short of what a clock can add.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

fn passed(value: Option<Bytes>) -> Found {
    Found {
        value,
        level: Level::Callback,
        stale: false,
        remaining: Some(0),
        stamp: Stamp::default(),
    }
}
