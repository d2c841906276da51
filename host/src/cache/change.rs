//! What changes a cache: a flight's end, `set`, `delete`, `purge`.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bytes::Bytes;

use super::entry::{CacheError, Entry, Found, Level, Options, Stamp, end_of};
use super::flight::{Landing, Ticket};
use super::{Cache, Counter};
use crate::time_cache;

impl Cache {
    /// An entry with the times that the configuration and the call give it.
    fn entry(&self, value: Option<Bytes>, ttl: Option<u64>, options: Options) -> Entry {
        let now = time_cache::clock_ms();
        let ttl = ttl.unwrap_or_else(|| match value {
            Some(_) => options.ttl.unwrap_or(self.config.ttl),
            None => options.negative_ttl.unwrap_or(self.config.negative_ttl),
        });
        let ttl = self.jittered(ttl);
        let until = end_of(now, ttl);
        // A value that lives shorter than that is still to serve for a while.
        let ahead = self.config.refresh_ahead.min(ttl / 10 * 9);
        let stale = options.stale.unwrap_or(self.config.stale);
        Entry {
            value,
            until,
            due: until.saturating_sub(ahead),
            ended: until,
            keep: until.saturating_add(stale.max(self.config.revalidate)),
            epoch: self.store.epoch(),
        }
    }

    fn jittered(&self, ttl: u64) -> u64 {
        let most = ttl.saturating_mul(self.config.jitter) / 100;
        if most == 0 {
            return ttl;
        }
        // Half of the last millisecond would be for ever.
        (ttl - RandomState::new().hash_one(ttl) % (most + 1)).max(1)
    }

    /// Stores what the source gave, and gives it to all who wait.
    ///
    /// # Errors
    /// When the flight is lost, or the value too long: those who wait have got it even so.
    pub fn fill(
        &self,
        ticket: &mut Ticket,
        value: Option<Bytes>,
        ttl: Option<u64>,
    ) -> Result<Stamp, CacheError> {
        let entry = Arc::new(self.entry(value, ttl, ticket.options));
        let millis = u64::try_from(ticket.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.store.counters.add(Counter::CallbackMillis, millis);
        let (key, slot) = (ticket.key.clone(), ticket.place.slot);
        let written = ticket.end(
            |store| {
                let fits = store.write(&key, entry.clone());
                store.changed(slot);
                (fits, store.stamp(slot))
            },
            |(fits, _)| match fits {
                true => Landing::Stored(entry.clone()),
                false => Landing::Passed(entry.value.clone()),
            },
        );
        match written {
            Ok((true, stamp)) => {
                self.store.counters.count(Counter::Fills);
                let now = time_cache::clock_ms();
                Ok(self.found(&entry, Level::Callback, stamp, now).stamp)
            }
            Ok((false, _)) => {
                self.store.counters.count(Counter::TooLarge);
                Err(CacheError::TooLarge(self.store.size))
            }
            Err(error) => {
                self.store.counters.count(Counter::Lost);
                Err(error)
            }
        }
    }

    /// Gives a value to all who wait, and stores nothing.
    ///
    /// # Errors
    /// When the flight is lost.
    pub fn pass(&self, ticket: &mut Ticket, value: Option<&Bytes>) -> Result<(), CacheError> {
        ticket.end(|_| (), |()| Landing::Passed(value.cloned()))
    }

    /// The source failed: a value that may serve serves, to the caller and to all who wait; else they
    /// get the reason.
    pub fn fail(&self, ticket: &mut Ticket, reason: &str) -> Option<Found> {
        let counters = &self.store.counters;
        counters.count(Counter::Failures);
        let now = time_cache::clock_ms();
        let options = ticket.options;
        let retry = options.retry.unwrap_or(self.config.retry);
        let (key, slot) = (ticket.key.clone(), ticket.place.slot);
        let reason: Arc<str> = reason.into();
        let old = ticket.old.clone();
        let served = ticket.end(
            |store| {
                let old = store.read(&key).or(old)?;
                if old.until > now {
                    return Some((old, store.stamp(slot)));
                }
                if !self.may_serve(&old, options, now) {
                    return None;
                }
                let until = now.saturating_add(retry).min(old.keep);
                let back = Arc::new(Entry {
                    until,
                    due: until,
                    ..Entry::clone(&old)
                });
                store.write(&key, back.clone());
                store.changed(slot);
                Some((back, store.stamp(slot)))
            },
            |served| match served {
                Some((entry, _)) => Landing::Stored(entry.clone()),
                None => Landing::Failed(reason.clone()),
            },
        );
        let (entry, stamp) = served.ok().flatten()?;
        counters.count(Counter::Stale);
        Some(self.found(&entry, Level::Memory, stamp, now))
    }

    /// What [`fail`](Self::fail) would give, if it may.
    #[must_use]
    pub fn old(&self, ticket: &Ticket) -> Option<Found> {
        let now = time_cache::clock_ms();
        let entry = ticket.old.as_ref()?;
        let stamp = Stamp {
            slot: ticket.place.slot,
            ..Stamp::default()
        };
        let serves = entry.until > now || self.may_serve(entry, ticket.options, now);
        serves.then(|| self.found(entry, Level::Memory, stamp, now))
    }

    /// Begins the lease of a flight anew.
    #[must_use]
    pub fn renew(&self, ticket: &mut Ticket) -> bool {
        ticket.renew()
    }

    /// Changes a key: what is stored, then the count, then those who wait are told.
    fn change(&self, key: &[u8], entry: Option<&Arc<Entry>>) -> Result<Stamp, CacheError> {
        Self::check(key)?;
        let place = self.store.place(key);
        let mut board = self.store.board(place);
        let fits = match entry {
            Some(entry) => self.store.write(key, entry.clone()),
            None => {
                self.store.remove(key);
                true
            }
        };
        self.store.changed(place.slot);
        let stamp = self.store.stamp(place.slot);
        // What a flight brings now was asked for before this change.
        let flying = board.remove(key);
        drop(board);
        if let Some(flying) = flying {
            flying.land(|| match entry {
                Some(entry) if fits => Landing::Stored(entry.clone()),
                _ => Landing::Again,
            });
        }
        if !fits {
            self.store.counters.count(Counter::TooLarge);
            return Err(CacheError::TooLarge(self.store.size));
        }
        Ok(stamp)
    }

    /// Stores; every worker sees it when this returns.
    ///
    /// # Errors
    /// When the key is none, or the value too long.
    pub fn set(
        &self,
        key: &[u8],
        value: Option<Bytes>,
        options: Options,
    ) -> Result<Stamp, CacheError> {
        let entry = Arc::new(self.entry(value, None, options));
        let stamp = self.change(key, Some(&entry))?;
        self.store.counters.count(Counter::Sets);
        let now = time_cache::clock_ms();
        Ok(self.found(&entry, Level::Memory, stamp, now).stamp)
    }

    /// Takes a key away; every worker sees it when this returns.
    ///
    /// # Errors
    /// When the key is none.
    pub fn delete(&self, key: &[u8]) -> Result<Stamp, CacheError> {
        let stamp = self.change(key, None)?;
        self.store.counters.count(Counter::Deletes);
        Ok(stamp)
    }

    /// Empties this cache, and no other; every worker sees it when this returns.
    pub fn purge(&self) {
        self.store.empty();
        self.store.counters.count(Counter::Purges);
    }
}
