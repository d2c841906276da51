//! `cache`: the caches of the configuration, within what `allow.cache` names.

use std::sync::Arc;

use bytes::Bytes;
use wasmtime::component::Resource;

use super::bindings::phasor::plugin::cache as wit;
use super::operation::{Outcome as Ended, Work, wrong_kind};
use super::{HostState, Operation, enter};
use crate::cache::{Cache, CacheError, Found, Level, Options, Outcome, Stamp, Ticket};
use crate::http_cache::{self, Purged};

/// A flight that a guest has.
#[derive(Debug)]
pub struct Flight {
    cache: Arc<Cache>,
    /// None when its end was begun.
    ticket: Option<Box<Ticket>>,
}

/// How an operation of this interface ended.
#[derive(Debug)]
pub enum CacheOutcome {
    /// Of a look-up.
    Got(Arc<Cache>, Result<Outcome, CacheError>),
    /// Of a change.
    Changed(Result<Stamp, CacheError>),
    /// Of a flight's end.
    Filled(Result<Stamp, CacheError>),
}

fn error(error: CacheError) -> wit::CacheError {
    match error {
        CacheError::Timeout => wit::CacheError::Timeout,
        CacheError::Busy => wit::CacheError::Busy,
        CacheError::InvalidKey => wit::CacheError::InvalidKey,
        CacheError::TooLarge(most) => wit::CacheError::TooLarge(most),
        CacheError::Lost => wit::CacheError::Lost,
        CacheError::Source(reason) => wit::CacheError::Source(reason),
    }
}

fn stamp(stamp: Stamp) -> wit::Stamp {
    wit::Stamp {
        slot: stamp.slot,
        version: stamp.version,
        until: stamp.until,
    }
}

fn found(found: Found) -> wit::Found {
    wit::Found {
        value: found.value.map(|value| value.to_vec()),
        level: match found.level {
            Level::Memory => wit::Level::Memory,
            Level::Disk => wit::Level::Disk,
            Level::Remote => wit::Level::Remote,
            Level::Callback => wit::Level::Callback,
        },
        stale: found.stale,
        remaining: found.remaining,
        stamp: stamp(found.stamp),
    }
}

fn of_answers(answers: &wit::Answers) -> Purged<'_> {
    match answers {
        wit::Answers::Key(key) => Purged::Key(key),
        wit::Answers::Prefix(prefix) => Purged::Prefix(prefix),
        wit::Answers::Tagged(tag) => Purged::Tag(tag),
    }
}

fn options(options: wit::Options) -> Options {
    Options {
        ttl: options.ttl,
        negative_ttl: options.negative_ttl,
        stale: options.stale,
        retry: options.retry,
        wait: options.wait,
    }
}

type Answer<T> = wasmtime::Result<Result<T, wit::CacheError>>;
type Begun = wasmtime::Result<Resource<Operation>>;
type Handle = Resource<Flight>;

impl HostState {
    fn cache(&self, id: u32) -> wasmtime::Result<&Arc<Cache>> {
        self.caches
            .get(id as usize)
            .ok_or_else(|| wasmtime::format_err!("`cache`: {id} was not given by `cache.open`"))
    }

    fn cache_got(
        &mut self,
        cache: Arc<Cache>,
        got: Result<Outcome, CacheError>,
    ) -> Answer<wit::Outcome> {
        match got {
            Ok(Outcome::Hit(hit)) => Ok(Ok(wit::Outcome::Hit(found(hit)))),
            Ok(Outcome::Miss(ticket)) => {
                let flight = self.table.push(Flight {
                    cache,
                    ticket: Some(ticket),
                })?;
                Ok(Ok(wit::Outcome::Miss(flight)))
            }
            Err(why) => Ok(Err(error(why))),
        }
    }

    /// Looks up without an operation where memory has the value.
    async fn cache_get(
        &mut self,
        id: u32,
        key: Vec<u8>,
        wanted: wit::Options,
        force: bool,
    ) -> Answer<wit::Outcome> {
        let cache = self.cache(id)?;
        if !force && let Some(hit) = cache.hit(&key) {
            return Ok(Ok(wit::Outcome::Hit(found(hit))));
        }
        let cache = cache.clone();
        let got = cache.get(&key, options(wanted), force).await;
        self.cache_got(cache, got)
    }

    fn cache_begin(&mut self, id: u32, key: Vec<u8>, wanted: wit::Options, force: bool) -> Begun {
        let cache = self.cache(id)?.clone();
        self.begin(Work::Task(Box::pin(async move {
            let got = cache.get(&key, options(wanted), force).await;
            Ended::Cache(CacheOutcome::Got(cache, got))
        })))
    }

    /// A change, begun; where memory is the only level it is over at once.
    fn cache_change<F>(&mut self, id: u32, change: impl FnOnce(Arc<Cache>) -> F) -> Begun
    where
        F: Future<Output = Result<Stamp, CacheError>> + Send + 'static,
    {
        let change = change(self.cache(id)?.clone());
        self.begin(Work::Task(Box::pin(async move {
            Ended::Cache(CacheOutcome::Changed(change.await))
        })))
    }
}

impl wit::Host for HostState {
    fn open(&mut self, name: String) -> Answer<wit::Opened> {
        enter!(self, "cache.open");
        let Some(cache) = self.plugin.caches.iter().find(|cache| cache.name() == name) else {
            return Ok(Err(wit::CacheError::UnknownCache));
        };
        if !self.plugin.allow.cache.allows(|allowed| *allowed == name) {
            self.refuse("cache", &name);
            return Ok(Err(wit::CacheError::Refused));
        }
        let items = cache.items();
        let known = self.caches.iter().position(|open| open.name() == name);
        let id = match known {
            Some(id) => id,
            None => {
                self.caches.push(cache.clone());
                self.caches.len() - 1
            }
        };
        let id = u32::try_from(id)?;
        Ok(Ok(wit::Opened { id, items }))
    }

    fn fresh(&mut self, id: u32, slot: u32, version: u64, until: u64) -> wasmtime::Result<bool> {
        enter!(self, "cache.fresh");
        Ok(self.cache(id)?.fresh(Stamp {
            slot,
            version,
            until,
        }))
    }

    fn unchanged(&mut self, id: u32, slot: u32, version: u64) -> wasmtime::Result<bool> {
        enter!(self, "cache.unchanged");
        Ok(self.cache(id)?.unchanged(slot, version))
    }

    fn peek(&mut self, id: u32, key: Vec<u8>, stale: bool) -> wasmtime::Result<Option<wit::Found>> {
        enter!(self, "cache.peek");
        Ok(self.cache(id)?.peek(&key, stale).map(found))
    }

    async fn get(&mut self, id: u32, key: Vec<u8>, wanted: wit::Options) -> Answer<wit::Outcome> {
        enter!(self, "cache.get");
        self.cache_get(id, key, wanted, false).await
    }

    fn begin_get(
        &mut self,
        id: u32,
        key: Vec<u8>,
        wanted: wit::Options,
    ) -> wasmtime::Result<wit::Looking> {
        enter!(self, "cache.begin-get");
        if let Some(hit) = self.cache(id)?.hit(&key) {
            return Ok(wit::Looking::Now(found(hit)));
        }
        let begun = self.cache_begin(id, key, wanted, false)?;
        Ok(wit::Looking::Later(begun))
    }

    async fn end_get(&mut self, op: Resource<Operation>) -> Answer<wit::Outcome> {
        enter!(self, "cache.end-get");
        match self.finish(op).await? {
            Ended::Cache(CacheOutcome::Got(cache, got)) => self.cache_got(cache, got),
            _ => Err(wrong_kind("cache.end-get")),
        }
    }

    async fn renew(&mut self, id: u32, key: Vec<u8>, wanted: wit::Options) -> Answer<wit::Outcome> {
        enter!(self, "cache.renew");
        self.cache_get(id, key, wanted, true).await
    }

    fn begin_renew(&mut self, id: u32, key: Vec<u8>, wanted: wit::Options) -> Begun {
        enter!(self, "cache.begin-renew");
        self.cache_begin(id, key, wanted, true)
    }

    async fn set(
        &mut self,
        id: u32,
        key: Vec<u8>,
        value: Option<Vec<u8>>,
        wanted: wit::Options,
    ) -> Answer<wit::Stamp> {
        enter!(self, "cache.set");
        let (cache, value) = (self.cache(id)?.clone(), value.map(Bytes::from));
        let done = cache.set(&key, value, options(wanted)).await;
        Ok(done.map(stamp).map_err(error))
    }

    fn begin_set(
        &mut self,
        id: u32,
        key: Vec<u8>,
        value: Option<Vec<u8>>,
        wanted: wit::Options,
    ) -> Begun {
        enter!(self, "cache.begin-set");
        let value = value.map(Bytes::from);
        self.cache_change(id, |cache| async move {
            cache.set(&key, value, options(wanted)).await
        })
    }

    async fn delete(&mut self, id: u32, key: Vec<u8>) -> Answer<wit::Stamp> {
        enter!(self, "cache.delete");
        let done = self.cache(id)?.clone().delete(&key).await;
        Ok(done.map(stamp).map_err(error))
    }

    fn begin_delete(&mut self, id: u32, key: Vec<u8>) -> Begun {
        enter!(self, "cache.begin-delete");
        self.cache_change(id, |cache| async move { cache.delete(&key).await })
    }

    async fn purge(&mut self, id: u32) -> Answer<wit::Stamp> {
        enter!(self, "cache.purge");
        self.cache(id)?.clone().purge().await;
        Ok(Ok(stamp(Stamp::default())))
    }

    fn begin_purge(&mut self, id: u32) -> Begun {
        enter!(self, "cache.begin-purge");
        self.cache_change(id, |cache| async move {
            cache.purge().await;
            Ok(Stamp::default())
        })
    }

    async fn purge_answers(&mut self, id: u32, answers: wit::Answers) -> Answer<wit::Stamp> {
        enter!(self, "cache.purge-answers");
        let purged = http_cache::purge(self.cache(id)?, of_answers(&answers)).await;
        Ok(purged.map(|()| stamp(Stamp::default())).map_err(error))
    }

    fn begin_purge_answers(&mut self, id: u32, answers: wit::Answers) -> Begun {
        enter!(self, "cache.begin-purge-answers");
        let cache = self.cache(id)?.clone();
        self.begin(Work::Task(Box::pin(async move {
            let purged = http_cache::purge(&cache, of_answers(&answers)).await;
            Ended::Cache(CacheOutcome::Changed(purged.map(|()| Stamp::default())))
        })))
    }

    async fn end_change(&mut self, op: Resource<Operation>) -> Answer<wit::Stamp> {
        enter!(self, "cache.end-change");
        match self.finish(op).await? {
            Ended::Cache(CacheOutcome::Changed(done)) => Ok(done.map(stamp).map_err(error)),
            _ => Err(wrong_kind("cache.end-change")),
        }
    }

    fn counters(&mut self, id: u32) -> wasmtime::Result<Vec<(String, u64)>> {
        enter!(self, "cache.counters");
        let all = self.cache(id)?.counters();
        Ok(all
            .into_iter()
            .map(|(name, count)| (name.to_owned(), count))
            .collect())
    }
}

impl wit::HostFlight for HostState {
    fn stale(&mut self, flight: Handle) -> wasmtime::Result<Option<wit::Found>> {
        enter!(self, "cache.flight");
        let Flight { cache, ticket } = self.table.get(&flight)?;
        let old = ticket.as_ref().and_then(|ticket| cache.old(ticket));
        Ok(old.map(found))
    }

    async fn fill(
        &mut self,
        flight: Handle,
        value: Option<Vec<u8>>,
        ttl: Option<u64>,
    ) -> Answer<wit::Stamp> {
        enter!(self, "cache.flight");
        let Flight { cache, ticket } = self.table.get_mut(&flight)?;
        let Some(ticket) = ticket else {
            return Ok(Err(wit::CacheError::Lost));
        };
        let done = cache.fill(ticket, value.map(Bytes::from), ttl).await;
        Ok(done.map(stamp).map_err(error))
    }

    fn begin_fill(&mut self, flight: Handle, value: Option<Vec<u8>>, ttl: Option<u64>) -> Begun {
        enter!(self, "cache.flight");
        let Flight { cache, ticket } = self.table.get_mut(&flight)?;
        let (cache, ticket) = (cache.clone(), ticket.take());
        self.begin(Work::Task(Box::pin(async move {
            let done = match ticket {
                Some(mut ticket) => cache.fill(&mut ticket, value.map(Bytes::from), ttl).await,
                None => Err(CacheError::Lost),
            };
            Ended::Cache(CacheOutcome::Filled(done))
        })))
    }

    async fn end_fill(&mut self, op: Resource<Operation>) -> Answer<wit::Stamp> {
        enter!(self, "cache.flight");
        match self.finish(op).await? {
            Ended::Cache(CacheOutcome::Filled(done)) => Ok(done.map(stamp).map_err(error)),
            _ => Err(wrong_kind("cache.flight.end-fill")),
        }
    }

    fn pass(&mut self, flight: Handle, value: Option<Vec<u8>>) -> Answer<()> {
        enter!(self, "cache.flight");
        let Flight { cache, ticket } = self.table.get_mut(&flight)?;
        let value = value.map(Bytes::from);
        let done = match ticket {
            Some(ticket) => cache.pass(ticket, value.as_ref()),
            None => Err(CacheError::Lost),
        };
        Ok(done.map_err(error))
    }

    fn fail(&mut self, flight: Handle, reason: String) -> wasmtime::Result<Option<wit::Found>> {
        enter!(self, "cache.flight");
        let Flight { cache, ticket } = self.table.get_mut(&flight)?;
        let served = ticket
            .as_mut()
            .and_then(|ticket| cache.fail(ticket, &reason));
        Ok(served.map(found))
    }

    fn renew(&mut self, flight: Handle) -> wasmtime::Result<bool> {
        enter!(self, "cache.flight");
        let Flight { cache, ticket } = self.table.get_mut(&flight)?;
        Ok(ticket.as_mut().is_some_and(|ticket| cache.renew(ticket)))
    }

    fn drop(&mut self, flight: Handle) -> wasmtime::Result<()> {
        self.table.delete(flight)?;
        Ok(())
    }
}
