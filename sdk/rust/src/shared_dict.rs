//! Shared dicts (`[shared.NAME]`): values that all workers see. Needs `allow.shared`.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::bindings::phasor::plugin::shared_dict as host;
use crate::task::Pending;

pub use host::{DictError, Mode, Side};

/// What a dict holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Lua's `nil`.
    Nil,
    /// A truth value.
    Boolean(bool),
    /// A number, as in Lua.
    Number(f64),
    /// A string, as in Lua: any bytes.
    Bytes(Vec<u8>),
}

impl Value {
    /// The number, if it is one.
    #[must_use]
    pub const fn as_number(&self) -> Option<f64> {
        if let Self::Number(number) = self {
            return Some(*number);
        }
        None
    }

    /// The bytes, if they are some.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        if let Self::Bytes(bytes) = self {
            return Some(bytes);
        }
        None
    }

    fn as_param(&self) -> host::ValueParam<'_> {
        match self {
            Self::Nil => host::ValueParam::Nil,
            Self::Boolean(truth) => host::ValueParam::Boolean(*truth),
            Self::Number(number) => host::ValueParam::Number(*number),
            Self::Bytes(bytes) => host::ValueParam::Bytes(bytes),
        }
    }
}

impl From<host::ValueResult> for Value {
    fn from(value: host::ValueResult) -> Self {
        match value {
            host::ValueResult::Nil => Self::Nil,
            host::ValueResult::Boolean(truth) => Self::Boolean(truth),
            host::ValueResult::Number(number) => Self::Number(number),
            host::ValueResult::Bytes(bytes) => Self::Bytes(bytes),
        }
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Boolean(truth)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<i32> for Value {
    fn from(number: i32) -> Self {
        Self::Number(f64::from(number))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(f64::from(number))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Bytes(text.as_bytes().to_vec())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Bytes(text.into_bytes())
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

/// A value with what stands beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The value.
    pub value: Value,
    /// The caller's own flags.
    pub flags: u32,
    /// Whether it has expired.
    pub stale: bool,
}

impl From<host::Entry> for Entry {
    fn from(entry: host::Entry) -> Self {
        Self {
            value: entry.value.into(),
            flags: entry.flags,
            stale: entry.stale,
        }
    }
}

/// A dict, found once by name; keep it.
#[derive(Debug)]
pub struct Dict(host::Dict);

impl Dict {
    /// Finds a dict by its name in the configuration.
    pub fn open(name: &str) -> Result<Self, DictError> {
        host::Dict::open(name).map(Self)
    }

    /// The live value under a key.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>, DictError> {
        let entry = self.0.get(key.as_ref(), false)?;
        Ok(entry.map(|entry| entry.value.into()))
    }

    /// The value with its flags, also when it has expired and is still there.
    pub fn get_stale(&self, key: impl AsRef<[u8]>) -> Result<Option<Entry>, DictError> {
        Ok(self.0.get(key.as_ref(), true)?.map(Entry::from))
    }

    /// Stores a value for ever.
    pub fn set(&self, key: impl AsRef<[u8]>, value: impl Into<Value>) -> Result<(), DictError> {
        self.store(Mode::Set, key, value, None, 0).map(drop)
    }

    /// Stores a value for a time.
    pub fn set_for(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Value>,
        ttl: Duration,
    ) -> Result<(), DictError> {
        self.store(Mode::Set, key, value, Some(ttl), 0).map(drop)
    }

    /// Stores a value if there is no live one under the key.
    pub fn add(&self, key: impl AsRef<[u8]>, value: impl Into<Value>) -> Result<(), DictError> {
        self.store(Mode::Add, key, value, None, 0).map(drop)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the contract's `store` has as many"
    )]
    /// Stores in any way. True when other live entries were evicted.
    pub fn store(
        &self,
        mode: Mode,
        key: impl AsRef<[u8]>,
        value: impl Into<Value>,
        ttl: Option<Duration>,
        flags: u32,
    ) -> Result<bool, DictError> {
        let value = value.into();
        self.0
            .store(mode, key.as_ref(), value.as_param(), millis(ttl), flags)
    }

    /// Adds to a number; `init` stands for an absent one. Gives the new number.
    pub fn incr(
        &self,
        key: impl AsRef<[u8]>,
        by: f64,
        init: Option<f64>,
    ) -> Result<f64, DictError> {
        self.0
            .incr(key.as_ref(), by, init, 0)
            .map(|(number, _)| number)
    }

    /// `incr` of a number that, when it was absent, lives for a time: a counter per window.
    pub fn incr_for(
        &self,
        key: impl AsRef<[u8]>,
        by: f64,
        init: f64,
        ttl: Duration,
    ) -> Result<f64, DictError> {
        let ttl = millis(Some(ttl));
        self.0
            .incr(key.as_ref(), by, Some(init), ttl)
            .map(|(number, _)| number)
    }

    /// Stores `new` if what is there equals `old`, in one step; [`Value::Nil`] stands for "nothing"
    /// in both. False when something else is there.
    pub fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        old: impl Into<Value>,
        new: impl Into<Value>,
        ttl: Option<Duration>,
    ) -> Result<bool, DictError> {
        let (old, new) = (old.into(), new.into());
        self.0
            .compare_and_swap(key.as_ref(), old.as_param(), new.as_param(), millis(ttl), 0)
    }

    /// Waits until what is under a key is another value than `seen`, expiry included, or until
    /// [`Dict::wake`] chooses this waiter; false when the time is over before. It may end early.
    pub fn wait(
        &self,
        key: impl AsRef<[u8]>,
        seen: impl Into<Value>,
        timeout: Duration,
    ) -> Pending<Result<bool, DictError>> {
        let (seen, timeout) = (seen.into(), millis(Some(timeout)));
        let operation = host::begin_wait(&self.0, key.as_ref(), seen.as_param(), timeout);
        Pending::new(operation, host::end_wait)
    }

    /// Stores a value as soon as nothing is under the key. Those who wait here for the same key have their
    /// turns in the order in which they came; false when the time is over before.
    pub fn add_in_turn(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Value>,
        ttl: Option<Duration>,
        timeout: Duration,
    ) -> Pending<Result<bool, DictError>> {
        let (value, ttl, timeout) = (value.into(), millis(ttl), millis(Some(timeout)));
        let operation =
            host::begin_add_in_turn(&self.0, key.as_ref(), value.as_param(), ttl, timeout);
        Pending::new(operation, host::end_wait)
    }

    /// Wakes the one that waits for a key longest; false when nobody does.
    #[must_use]
    pub fn wake(&self, key: impl AsRef<[u8]>) -> bool {
        self.0.wake(key.as_ref())
    }

    /// Takes an entry away.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<(), DictError> {
        self.0.delete(key.as_ref())
    }

    /// The time that is left; `None` is for ever.
    pub fn ttl(&self, key: impl AsRef<[u8]>) -> Result<Option<Duration>, DictError> {
        let left = self.0.ttl(key.as_ref())?;
        Ok((left > 0).then(|| Duration::from_millis(left)))
    }

    /// Gives an entry a new time to live; `None` is for ever.
    pub fn expire(&self, key: impl AsRef<[u8]>, ttl: Option<Duration>) -> Result<(), DictError> {
        self.0.expire(key.as_ref(), millis(ttl))
    }

    /// Pushes onto a list, and gives its length.
    pub fn push(
        &self,
        side: Side,
        key: impl AsRef<[u8]>,
        value: impl Into<Value>,
    ) -> Result<u32, DictError> {
        self.0.push(side, key.as_ref(), value.into().as_param())
    }

    /// Pops from a list.
    pub fn pop(&self, side: Side, key: impl AsRef<[u8]>) -> Result<Option<Value>, DictError> {
        Ok(self.0.pop(side, key.as_ref())?.map(Value::from))
    }

    /// A list's length; 0 when there is none.
    pub fn list_len(&self, key: impl AsRef<[u8]>) -> Result<u32, DictError> {
        self.0.len(key.as_ref())
    }

    /// Expires everything at once.
    pub fn flush_all(&self) {
        self.0.flush_all();
    }

    /// Frees at most `max` expired entries (0: all), and says how many.
    pub fn flush_expired(&self, max: u32) -> u32 {
        self.0.flush_expired(max)
    }

    /// At most `max` keys (0: all).
    #[must_use]
    pub fn keys(&self, max: u32) -> Vec<Vec<u8>> {
        self.0.get_keys(max)
    }

    /// The configured size in bytes.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.0.capacity()
    }

    /// The bytes that are free.
    #[must_use]
    pub fn free_space(&self) -> u64 {
        self.0.free_space()
    }
}

/// The host's 0 is for ever, so the shortest time is a millisecond.
fn millis(ttl: Option<Duration>) -> u64 {
    let Some(ttl) = ttl else { return 0 };
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1)
}
