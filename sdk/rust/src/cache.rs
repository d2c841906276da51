//! The tiered cache (`[cache.NAME]`): decoded values in the instance, bytes in the process, and a
//! source that is asked once however many want the value. Needs `allow.cache`.
//!
//! ```no_run
//! use phasor_plugin::{Answer, cache::Cache};
//!
//! #[phasor_plugin::content]
//! fn product() -> Answer {
//!     let products: Cache<String> = match Cache::open("products") {
//!         Ok(products) => products,
//!         Err(error) => return Answer::text(format!("{error:?}")),
//!     };
//!     match products.get("42", || Ok(Some("a lamp".to_owned()))) {
//!         Ok(Some(product)) => Answer::text((*product).clone()),
//!         Ok(None) => Answer::text("no such product"),
//!         Err(error) => Answer::text(format!("{error:?}")),
//!     }
//! }
//! ```
//!
//! An open [`Cache`] keeps decoded values; hold it over requests (`thread_local!`) to profit by that.
//! A kept value is given only while the host says that nothing has changed it, in any worker.

mod copies;

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::time::Duration;

use crate::bindings::phasor::plugin::cache as host;
use crate::bindings::phasor::plugin::operation::wait_any;
use crate::time::millis;
use crate::timers;
use copies::Copies;

pub use host::{CacheError, Level};

/// What a cache can hold: bytes there, a value here.
pub trait Cached: Sized {
    /// As bytes.
    fn encode(&self) -> Vec<u8>;
    /// From bytes; `None` when they are no such value: then the source is asked again.
    fn decode(bytes: Vec<u8>) -> Option<Self>;
}

impl Cached for Vec<u8> {
    fn encode(&self) -> Vec<u8> {
        self.clone()
    }

    fn decode(bytes: Vec<u8>) -> Option<Self> {
        Some(bytes)
    }
}

impl Cached for String {
    fn encode(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn decode(bytes: Vec<u8>) -> Option<Self> {
        Self::from_utf8(bytes).ok()
    }
}

/// What a call wants otherwise than `[cache.NAME]` says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// How long a value lives; zero is for ever.
    pub ttl: Option<Duration>,
    /// How long it is remembered that there is none; zero is for ever.
    pub negative_ttl: Option<Duration>,
    /// How long past its time a value may still serve when its source fails.
    pub stale: Option<Duration>,
    /// How long the source of a stale value is left alone after it failed.
    pub retry: Option<Duration>,
    /// How long to wait for another's flight.
    pub wait: Option<Duration>,
}

impl Options {
    fn lower(&self) -> host::Options {
        let least = |time: Option<Duration>| time.map(millis);
        host::Options {
            ttl: least(self.ttl),
            negative_ttl: least(self.negative_ttl),
            stale: least(self.stale),
            retry: least(self.retry),
            wait: least(self.wait),
        }
    }
}

/// Which answers of routes a purge is for.
#[derive(Clone, Copy, Debug)]
pub enum Answers<'a> {
    /// Those of one URI: `http://example.com/path?query`, or what the route's `key` makes of it.
    Key(&'a str),
    /// Those whose key begins so.
    Prefix(&'a str),
    /// Those that name this tag in `Surrogate-Key` or `Cache-Tag`.
    Tag(&'a str),
}

/// What a source gave.
#[derive(Debug)]
pub struct Fresh<T> {
    /// The value; none is remembered, too.
    pub value: Option<T>,
    /// Its own time to live; zero is for ever.
    pub ttl: Option<Duration>,
    /// Whether it is to be stored at all.
    pub store: bool,
}

impl<T> From<Option<T>> for Fresh<T> {
    fn from(value: Option<T>) -> Self {
        Self {
            value,
            ttl: None,
            store: true,
        }
    }
}

/// A value, and where it came from.
#[derive(Debug)]
pub struct Found<T> {
    /// The value; none is an answer, too.
    pub value: Option<Rc<T>>,
    /// Where it was: `None` is this instance itself.
    pub level: Option<Level>,
    /// Past its time to live, and given because that is allowed now.
    pub stale: bool,
}

/// Several parts as one key in which they cannot run into each other.
#[must_use]
pub fn key(parts: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut key = Vec::new();
    for part in parts {
        let part = part.as_ref();
        key.extend_from_slice(&(part.len() as u64).to_le_bytes());
        key.extend_from_slice(part);
    }
    key
}

/// A cache of the configuration, with the values that this instance has decoded.
pub struct Cache<T> {
    id: u32,
    /// Shared with what goes on in the background.
    copies: Rc<RefCell<Copies<T>>>,
}

impl<T> core::fmt::Debug for Cache<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Cache").field("id", &self.id).finish()
    }
}

impl<T: Cached> Cache<T> {
    /// Opens a cache by name.
    pub fn open(name: &str) -> Result<Self, CacheError> {
        let opened = host::open(name)?;
        Ok(Self {
            id: opened.id,
            copies: Rc::new(RefCell::new(Copies::new(opened.items))),
        })
    }

    /// The value, or what `source` gives; one at a time asks the source of a key, all others wait for
    /// what it gives.
    pub fn get(
        &self,
        key: impl AsRef<[u8]>,
        source: impl FnOnce() -> Result<Option<T>, String>,
    ) -> Result<Option<Rc<T>>, CacheError> {
        let fresh = || source().map(Fresh::from);
        Ok(self.get_with(key, Options::default(), fresh)?.value)
    }

    /// [`get`](Self::get) with options, from a source that may say how long its value lives; tells
    /// where the value was.
    pub fn get_with(
        &self,
        key: impl AsRef<[u8]>,
        options: Options,
        source: impl FnOnce() -> Result<Fresh<T>, String>,
    ) -> Result<Found<T>, CacheError> {
        let key = key.as_ref();
        self.find(key, options, source, |flight, source| {
            self.fly(key, &flight, source)
        })
    }

    /// What an instance or a level has; who gets the flight does `miss`.
    fn find<S: FnOnce() -> Result<Fresh<T>, String>>(
        &self,
        key: &[u8],
        options: Options,
        source: S,
        miss: impl FnOnce(host::Flight, S) -> Result<Found<T>, CacheError>,
    ) -> Result<Found<T>, CacheError> {
        if let Some(value) = self.kept(key) {
            return Ok(Found {
                value,
                level: None,
                stale: false,
            });
        }
        match self.look(key, options)? {
            host::Outcome::Hit(found) => match self.decoded(key, found) {
                Some(found) => Ok(found),
                None => self.renew_with(key, options, source),
            },
            host::Outcome::Miss(flight) => miss(flight, source),
        }
    }

    /// [`get_with`](Self::get_with) that waits neither when the flight is this caller's: where the older
    /// value may serve (`revalidate`, `refresh_ahead`, `stale`), and is over for no longer than `late`, it
    /// is given at once, and `source` is called [afterwards](timers::afterwards) in this instance, without a
    /// request. The plugin has to serve the phase `timer`; else the source is called now.
    pub fn get_background(
        &self,
        key: impl AsRef<[u8]>,
        options: Options,
        late: Duration,
        source: impl FnOnce() -> Result<Fresh<T>, String> + 'static,
    ) -> Result<Found<T>, CacheError>
    where
        T: 'static,
    {
        let key = key.as_ref();
        self.find(key, options, source, |flight, source| {
            self.fly_afterwards(key, flight, late, source)
        })
    }

    /// Gives the older value, and brings the new one when the handler has returned; where either cannot be,
    /// brings it now.
    fn fly_afterwards(
        &self,
        key: &[u8],
        flight: host::Flight,
        late: Duration,
        source: impl FnOnce() -> Result<Fresh<T>, String> + 'static,
    ) -> Result<Found<T>, CacheError>
    where
        T: 'static,
    {
        let late = i64::try_from(millis(late)).unwrap_or(i64::MAX);
        let old = flight
            .stale()
            .filter(|old| old.remaining.is_none_or(|left| left > -late))
            .and_then(|old| self.decoded(key, old));
        let Some(old) = old else {
            return self.fly(key, &flight, source);
        };
        let token = match timers::begin_afterwards() {
            Ok(token) => token,
            Err(why) => {
                crate::warn!("cache: no refresh in the background: {why:?}");
                return self.fly(key, &flight, source);
            }
        };
        let own = Self {
            id: self.id,
            copies: self.copies.clone(),
        };
        let key: Box<[u8]> = key.into();
        let bring = move || {
            if let Err(why) = own.fly(&key, &flight, source) {
                crate::error!("cache: a refresh in the background failed: {why:?}");
            }
        };
        timers::leave(token, Box::new(bring));
        Ok(old)
    }

    /// Looks in all levels; what memory has costs no wait.
    fn look(&self, key: &[u8], options: Options) -> Result<host::Outcome, CacheError> {
        match host::begin_get(self.id, key, options.lower()) {
            host::Looking::Now(found) => Ok(host::Outcome::Hit(found)),
            host::Looking::Later(operation) => host::end_get(operation),
        }
    }

    /// Asks the source although a value is there, and stores what it gives.
    pub fn renew_with(
        &self,
        key: impl AsRef<[u8]>,
        options: Options,
        source: impl FnOnce() -> Result<Fresh<T>, String>,
    ) -> Result<Found<T>, CacheError> {
        let key = key.as_ref();
        match host::renew(self.id, key, options.lower())? {
            host::Outcome::Hit(found) => self.taken(key, found),
            host::Outcome::Miss(flight) => self.fly(key, &flight, source),
        }
    }

    fn kept(&self, key: &[u8]) -> Option<Option<Rc<T>>> {
        let copies = self.copies.borrow();
        let kept = copies.find(key)?;
        let host::Stamp {
            slot,
            version,
            until,
        } = kept.stamp;
        host::fresh(self.id, slot, version, until).then(|| kept.value.clone())
    }

    fn decoded(&self, key: &[u8], found: host::Found) -> Option<Found<T>> {
        let value = match found.value {
            Some(bytes) => Some(Rc::new(T::decode(bytes)?)),
            None => None,
        };
        // What is stale is said to be so each time.
        if !found.stale {
            let mut copies = self.copies.borrow_mut();
            copies.keep(key, value.clone(), found.stamp);
        }
        Some(Found {
            value,
            level: Some(found.level),
            stale: found.stale,
        })
    }

    /// What was found, where it is too late to ask the source again.
    fn taken(&self, key: &[u8], found: host::Found) -> Result<Found<T>, CacheError> {
        self.decoded(key, found)
            .ok_or_else(|| CacheError::Source("what was stored is no such value".into()))
    }

    fn fly(
        &self,
        key: &[u8],
        flight: &host::Flight,
        source: impl FnOnce() -> Result<Fresh<T>, String>,
    ) -> Result<Found<T>, CacheError> {
        let fresh = match source() {
            Ok(fresh) => fresh,
            Err(reason) => {
                let old = flight.fail(&reason);
                let old = old.and_then(|old| self.decoded(key, old));
                return old.ok_or(CacheError::Source(reason));
            }
        };
        let bytes = fresh.value.as_ref().map(Cached::encode);
        let value = fresh.value.map(Rc::new);
        let stamp = if fresh.store {
            flight.fill(bytes.as_deref(), fresh.ttl.map(millis))
        } else {
            flight.pass(bytes.as_deref())?;
            Err(CacheError::Lost)
        };
        // Not stored (too long, or changed meanwhile): the caller has its value even so.
        match stamp {
            Ok(stamp) => self.copies.borrow_mut().keep(key, value.clone(), stamp),
            Err(_) => self.copies.borrow_mut().forget(key),
        }
        Ok(Found {
            value,
            level: Some(Level::Callback),
            stale: false,
        })
    }

    /// Several keys at once, in their order. `source` is called with the keys that this caller is to
    /// bring, all together, and gives a result for each; no flight of this caller is open while it
    /// waits for those of others, so two such calls do not wait for each other.
    pub fn get_bulk<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        options: Options,
        mut source: impl FnMut(&[&K]) -> Vec<Result<Fresh<T>, String>>,
    ) -> Vec<Result<Found<T>, CacheError>> {
        let mut results: Vec<Option<Result<Found<T>, CacheError>>> = Vec::new();
        results.resize_with(keys.len(), || None);
        let mut begun = Vec::new();
        for (place, key) in keys.iter().enumerate() {
            match self.kept(key.as_ref()) {
                Some(value) => {
                    results[place] = Some(Ok(Found {
                        value,
                        level: None,
                        stale: false,
                    }));
                }
                None => match host::begin_get(self.id, key.as_ref(), options.lower()) {
                    host::Looking::Later(operation) => begun.push((place, operation)),
                    host::Looking::Now(found) => {
                        results[place] = Some(self.taken(key.as_ref(), found));
                    }
                },
            }
        }
        while !begun.is_empty() {
            let (mut ready, later): (Vec<_>, Vec<_>) = begun
                .into_iter()
                .partition(|(_, operation)| operation.ready());
            begun = later;
            if ready.is_empty() {
                let operations: Vec<_> = begun.iter().map(|(_, operation)| operation).collect();
                let _ready = wait_any(&operations);
                continue;
            }
            let mut flights = Vec::new();
            for (place, operation) in ready.drain(..) {
                match host::end_get(operation) {
                    Ok(host::Outcome::Miss(flight)) => flights.push((place, flight)),
                    Ok(host::Outcome::Hit(found)) => {
                        results[place] = Some(self.taken(keys[place].as_ref(), found));
                    }
                    Err(error) => results[place] = Some(Err(error)),
                }
            }
            if flights.is_empty() {
                continue;
            }
            let missing: Vec<&K> = flights.iter().map(|(place, _)| &keys[*place]).collect();
            let mut fresh = source(&missing).into_iter();
            for (place, flight) in flights {
                let none = || Err("the source gave too few results".into());
                let one = fresh.next().unwrap_or_else(none);
                results[place] = Some(self.fly(keys[place].as_ref(), &flight, || one));
            }
        }
        let lost = || Err(CacheError::Lost);
        results
            .into_iter()
            .map(|result| result.unwrap_or_else(lost))
            .collect()
    }

    /// What the process's memory holds, and the time that is left (`None`: for ever; negative: over).
    /// `stale` gives an expired value, too. Asks nobody.
    pub fn peek(&self, key: impl AsRef<[u8]>, stale: bool) -> Option<(Option<T>, Option<i64>)> {
        let found = host::peek(self.id, key.as_ref(), stale)?;
        let value = match found.value {
            Some(bytes) => Some(T::decode(bytes)?),
            None => None,
        };
        Some((value, found.remaining))
    }

    /// Stores; every worker sees it when this returns.
    pub fn set(
        &self,
        key: impl AsRef<[u8]>,
        value: Option<T>,
        options: Options,
    ) -> Result<(), CacheError> {
        let key = key.as_ref();
        let bytes = value.as_ref().map(Cached::encode);
        self.copies.borrow_mut().forget(key);
        let stamp = host::set(self.id, key, bytes.as_deref(), options.lower())?;
        let mut copies = self.copies.borrow_mut();
        copies.keep(key, value.map(Rc::new), stamp);
        Ok(())
    }

    /// Takes a key away; every worker sees it when this returns.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<(), CacheError> {
        self.copies.borrow_mut().forget(key.as_ref());
        host::delete(self.id, key.as_ref())?;
        Ok(())
    }

    /// Empties this cache, and no other; every worker sees it when this returns.
    pub fn purge(&self) -> Result<(), CacheError> {
        host::purge(self.id)?;
        Ok(())
    }

    /// Purges answers of routes (`cache` on a route) that this cache keeps; no worker serves them when
    /// this returns.
    pub fn purge_answers(&self, answers: Answers<'_>) -> Result<(), CacheError> {
        let answers = match answers {
            Answers::Key(key) => host::Answers::Key(key.as_bytes()),
            Answers::Prefix(prefix) => host::Answers::Prefix(prefix.as_bytes()),
            Answers::Tag(tag) => host::Answers::Tagged(tag.as_bytes()),
        };
        host::purge_answers(self.id, answers)?;
        Ok(())
    }

    /// What was counted since the process started, by name.
    #[must_use]
    pub fn counters(&self) -> Vec<(String, u64)> {
        host::counters(self.id)
    }
}
