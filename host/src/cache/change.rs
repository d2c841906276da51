//! What changes a cache: a flight's end, `set`, `delete`, `purge`.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bytes::Bytes;

use super::entry::{CacheError, Entry, Found, Level, Options, Stamp, end_of};
use super::flight::{Landing, Ticket};
use super::hold::{Done, Hold};
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
            written: self.store.written(),
            trust: self.store.trust(),
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
    pub async fn fill(
        &self,
        ticket: &mut Ticket,
        value: Option<Bytes>,
        ttl: Option<u64>,
    ) -> Result<Stamp, CacheError> {
        let entry = Arc::new(self.entry(value, ttl, ticket.options));
        let millis = u64::try_from(ticket.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.store.counters.add(Counter::CallbackMillis, millis);
        let written = match self.behind.is_empty() {
            true => self.fill_memory(ticket, &entry),
            false => self.fill_all(ticket, &entry).await,
        };
        match written {
            Ok(Done { fits: true, stamp }) => {
                self.store.counters.count(Counter::Fills);
                Ok(self.stamped(&entry, stamp))
            }
            Ok(Done { fits: false, .. }) => {
                self.store.counters.count(Counter::TooLarge);
                Err(CacheError::TooLarge(self.store.sizes().values))
            }
            Err(error) => {
                self.store.counters.count(Counter::Lost);
                Err(error)
            }
        }
    }

    fn fill_memory(&self, ticket: &mut Ticket, entry: &Arc<Entry>) -> Result<Done, CacheError> {
        let (key, slot) = (ticket.key.clone(), ticket.place.slot);
        ticket.end(
            |store| {
                let fits = store.write(&key, entry.clone());
                store.changed(slot);
                let stamp = Some(store.stamp(slot));
                Done { fits, stamp }
            },
            |done| match done.fits {
                true => Landing::Stored(entry.clone(), done.stamp),
                false => Landing::Passed(entry.value.clone()),
            },
        )
    }

    /// Memory first, so that nobody who wants the value waits for the levels behind; Redis first where it
    /// decides whose value counts.
    async fn fill_all(&self, ticket: &mut Ticket, entry: &Arc<Entry>) -> Result<Done, CacheError> {
        let mut hold = ticket.hold()?;
        let claim = ticket.claim.take();
        let fits = claim.is_some() || hold.publish(entry);
        let stored = self
            .behind
            .store(&ticket.key, entry, ticket.seen, claim.as_ref())
            .await;
        if let Some(claim) = claim {
            claim.spend();
        }
        if !stored {
            self.store.counters.count(Counter::RemoteRefused);
            hold.finish(None);
            return Err(CacheError::Lost);
        }
        let done = hold.finish(Some(entry));
        let fits = fits && done.fits;
        Ok(Done { fits, ..done })
    }

    /// The stamp of a copy of what was just written.
    fn stamped(&self, entry: &Entry, stamp: Option<Stamp>) -> Stamp {
        let now = time_cache::clock_ms();
        stamp.map_or_else(Stamp::default, |stamp| {
            self.found(entry, Level::Callback, stamp, now).stamp
        })
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
                Some((entry, stamp)) => Landing::Stored(entry.clone(), Some(*stamp)),
                None => Landing::Failed(reason.clone()),
            },
        );
        let (entry, stamp) = served.ok().flatten()?;
        counters.count(Counter::Stale);
        Some(self.found(&entry, Level::Memory, stamp, now))
    }

    /// What [`fail`](Self::fail) would give, if it may, or what serves others meanwhile.
    #[must_use]
    pub fn old(&self, ticket: &Ticket) -> Option<Found> {
        let now = time_cache::clock_ms();
        let entry = ticket.old.as_ref()?;
        let stamp = Stamp {
            slot: ticket.place.slot,
            ..Stamp::default()
        };
        let serves = entry.until.saturating_add(self.config.revalidate) > now
            || self.may_serve(entry, ticket.options, now);
        serves.then(|| self.found(entry, Level::Memory, stamp, now))
    }

    /// Begins the lease of a flight anew.
    #[must_use]
    pub fn renew(&self, ticket: &mut Ticket) -> bool {
        ticket.renew()
    }

    /// Changes a key, in the levels behind first.
    async fn change(&self, key: &[u8], entry: Option<&Arc<Entry>>) -> Result<Stamp, CacheError> {
        Self::check(key)?;
        let done = match self.behind.is_empty() {
            true => self.change_memory(key, entry),
            false => self.change_all(key, entry).await,
        };
        if !done.fits {
            self.store.counters.count(Counter::TooLarge);
            return Err(CacheError::TooLarge(self.store.sizes().values));
        }
        Ok(match entry {
            Some(entry) => self.stamped(entry, done.stamp),
            None => done.stamp.unwrap_or_default(),
        })
    }

    /// What is stored, then the count, then those who wait are told.
    fn change_memory(&self, key: &[u8], entry: Option<&Arc<Entry>>) -> Done {
        let place = self.store.place(key);
        let mut board = self.store.board(place);
        let fits = match entry {
            // There is no level behind that would have it.
            Some(entry) => self.store.write(key, entry.clone()) && self.store.stays(key, entry),
            None => {
                self.store.remove(key);
                true
            }
        };
        self.store.changed(place.slot);
        let stamp = Some(self.store.stamp(place.slot));
        // What a flight brings now was asked for before this change.
        let flying = board.remove(key);
        drop(board);
        if let Some(flying) = flying {
            flying.land(|| match entry {
                Some(entry) if fits => Landing::Stored(entry.clone(), stamp),
                _ => Landing::Again,
            });
        }
        Done { fits, stamp }
    }

    async fn change_all(&self, key: &[u8], entry: Option<&Arc<Entry>>) -> Done {
        let hold = loop {
            match Hold::take(&self.store, key) {
                Ok(hold) => break hold,
                // However it ended, this change comes after it.
                Err(other) => drop(other.await),
            }
        };
        // What has no room in memory is kept nowhere: it would be read again and again.
        let fits = entry.filter(|entry| entry.weight(key) <= self.store.sizes().values);
        self.behind.change(key, fits).await;
        hold.finish(entry)
    }

    /// Stores; every worker sees it when this returns.
    ///
    /// # Errors
    /// When the key is none, or the value too long.
    pub async fn set(
        &self,
        key: &[u8],
        value: Option<Bytes>,
        options: Options,
    ) -> Result<Stamp, CacheError> {
        let entry = Arc::new(self.entry(value, None, options));
        let stamp = self.change(key, Some(&entry)).await?;
        self.store.counters.count(Counter::Sets);
        Ok(stamp)
    }

    /// Takes a key away; every worker sees it when this returns.
    ///
    /// # Errors
    /// When the key is none.
    pub async fn delete(&self, key: &[u8]) -> Result<Stamp, CacheError> {
        let stamp = self.change(key, None).await?;
        self.store.counters.count(Counter::Deletes);
        Ok(stamp)
    }

    /// Empties this cache, and no other; every worker sees it when this returns.
    pub async fn purge(&self) {
        let epoch = self.store.next_epoch();
        self.behind.purge(epoch).await;
        self.store.empty(epoch);
        self.store.counters.count(Counter::Purges);
    }
}
