//! Redis by its name in the configuration (`[redis.NAME]`). Needs `allow.redis`.
//!
//! Every function begins its call and gives a [`Pending`]: await it, or `.wait()` for it.

use alloc::string::String;
use alloc::vec::Vec;

use crate::bindings::phasor::plugin::redis as host;
use crate::task::Pending;

pub use host::RedisError;

/// What Redis answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Nothing.
    Nil,
    /// A truth value.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Double(f64),
    /// A short text of Redis itself, such as `OK`.
    Status(String),
    /// A string.
    Bytes(Vec<u8>),
    /// An error in the place of a value.
    Failed(String),
    /// A list.
    List(Vec<Self>),
    /// A map.
    Map(Vec<(Self, Self)>),
    /// A set.
    Set(Vec<Self>),
}

impl Reply {
    /// The bytes of a string.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Status(text) => Some(text.as_bytes()),
            _ => None,
        }
    }

    /// A number, also when it is written in a string.
    #[must_use]
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            Self::Bytes(bytes) => core::str::from_utf8(bytes).ok()?.parse().ok(),
            _ => None,
        }
    }

    fn build(values: &mut impl Iterator<Item = host::Value>) -> Self {
        let Some(value) = values.next() else {
            return Self::Nil;
        };
        let mut list = |count: u32| (0..count).map(|_| Self::build(values)).collect();
        match value {
            host::Value::Nil => Self::Nil,
            host::Value::Boolean(truth) => Self::Boolean(truth),
            host::Value::Integer(number) => Self::Integer(number),
            host::Value::Double(number) => Self::Double(number),
            host::Value::Status(text) => Self::Status(text),
            host::Value::Bytes(bytes) => Self::Bytes(bytes),
            host::Value::Failed(text) => Self::Failed(text),
            host::Value::BeginList(count) => Self::List(list(count)),
            host::Value::BeginSet(count) => Self::Set(list(count)),
            host::Value::BeginMap(count) => {
                let pairs = (0..count).map(|_| (Self::build(values), Self::build(values)));
                Self::Map(pairs.collect())
            }
        }
    }
}

impl From<host::Reply> for Reply {
    fn from(reply: host::Reply) -> Self {
        match reply {
            host::Reply::Single(value) => Self::build(&mut core::iter::once(value)),
            host::Reply::Nested(values) => Self::build(&mut values.into_iter()),
        }
    }
}

fn one(
    operation: crate::bindings::phasor::plugin::operation::Operation,
) -> Result<Reply, RedisError> {
    host::end_command(operation).map(Reply::from)
}

fn all(
    operation: crate::bindings::phasor::plugin::operation::Operation,
) -> Result<Vec<Reply>, RedisError> {
    let replies = host::end_pipeline(operation)?;
    Ok(replies.into_iter().map(Reply::from).collect())
}

/// A command's words.
pub type Command = Vec<Vec<u8>>;

fn words(words: &[impl AsRef<[u8]>]) -> Vec<&[u8]> {
    words.iter().map(AsRef::as_ref).collect()
}

/// One command: its name, then its arguments.
pub fn command(redis: &str, command: &[impl AsRef<[u8]>]) -> Pending<Result<Reply, RedisError>> {
    Pending::new(host::begin_command(redis, &words(command)), one)
}

/// The string under a key.
pub fn get(redis: &str, key: impl AsRef<[u8]>) -> Pending<Result<Option<Vec<u8>>, RedisError>> {
    let operation = host::begin_command(redis, &[b"GET", key.as_ref()]);
    Pending::new(operation, |operation| {
        Ok(match one(operation)? {
            Reply::Bytes(bytes) => Some(bytes),
            _ => None,
        })
    })
}

/// Several commands in one round trip; the error of one is its reply.
pub fn pipeline(redis: &str, commands: &[Command]) -> Pending<Result<Vec<Reply>, RedisError>> {
    let commands: Vec<_> = commands.iter().map(|command| words(command)).collect();
    let commands: Vec<_> = commands.iter().map(Vec::as_slice).collect();
    Pending::new(host::begin_pipeline(redis, &commands), all)
}

/// Several commands between MULTI and EXEC.
pub fn transaction(redis: &str, commands: &[Command]) -> Pending<Result<Vec<Reply>, RedisError>> {
    let commands: Vec<_> = commands.iter().map(|command| words(command)).collect();
    let commands: Vec<_> = commands.iter().map(Vec::as_slice).collect();
    Pending::new(host::begin_transaction(redis, &commands), all)
}

/// Runs a Lua script in Redis: by its digest, and by its text where the server does not have it.
pub fn eval(
    redis: &str,
    script: &str,
    keys: &[impl AsRef<[u8]>],
    arguments: &[impl AsRef<[u8]>],
) -> Pending<Result<Reply, RedisError>> {
    let operation = host::begin_eval(redis, script.as_bytes(), &words(keys), &words(arguments));
    Pending::new(operation, one)
}

pub use host::Message;

/// Messages of channels; dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription(host::Subscription);

/// Subscribes to channels and to patterns of channels.
pub fn subscribe(
    redis: &str,
    channels: &[impl AsRef<[u8]>],
    patterns: &[impl AsRef<[u8]>],
) -> Pending<Result<Subscription, RedisError>> {
    let operation = host::Subscription::begin_subscribe(redis, &words(channels), &words(patterns));
    Pending::new(operation, |operation| {
        host::Subscription::end_subscribe(operation).map(Subscription)
    })
}

impl Subscription {
    /// The next message; an error ends the subscription.
    pub fn message(&self) -> Pending<Result<Message, RedisError>> {
        Pending::new(self.0.begin_next(), host::Subscription::end_next)
    }
}
