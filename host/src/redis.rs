//! Redis by its name in the configuration: one client per worker and name, on one connection that
//! all requests of the worker share.
//!
//! The connection is multiplexed by the `redis` crate, which writes commands as they come and hands
//! each reply to who asked. What stands here is what a gateway needs around it: a limit on a reply's
//! length, time-outs, a bound on what waits, a breaker that makes commands fail at once while the
//! server is away and closes by itself, the way to a cluster's nodes, and the table that says which
//! arguments are keys.
//! Nothing here knows Wasm.

mod breaker;
mod client;
mod cluster;
mod cluster_reply;
pub mod command;
mod connect;
pub(crate) mod feed;
mod lane;
mod limit;
mod script;
mod subscription;
mod waiters;

use std::cell::RefCell;
use std::sync::Arc;

pub use ::redis::{Cmd, Pipeline, Value, cmd, pipe};
pub use client::Client;
pub(crate) use script::Script;
pub use subscription::{Message, Subscription};
pub(crate) use waiters::Waiters;

use crate::config::model::Redis;

/// Why there is no reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisError {
    /// No reply, or no connection, in time.
    Timeout,
    /// The server cannot be reached, or the connection broke.
    Unavailable(String),
    /// The breaker is open: the server was away just now and is not asked.
    BreakerOpen,
    /// As many commands wait as may.
    Busy,
    /// The reply is longer than the limit, in bytes.
    TooLarge(usize),
    /// The command cannot be sent on a shared connection.
    Invalid(String),
    /// Redis says that something is wrong: `WRONGTYPE …`.
    Failed(String),
}

impl RedisError {
    /// Whether the server is to blame, so that the breaker counts it.
    fn counts(&self) -> bool {
        matches!(self, Self::Timeout | Self::Unavailable(_))
    }
}

impl std::fmt::Display for RedisError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Timeout => f.write_str("timeout"),
            Self::Unavailable(text) | Self::Invalid(text) | Self::Failed(text) => f.write_str(text),
            Self::BreakerOpen => f.write_str("unavailable: the breaker is open"),
            Self::Busy => f.write_str("too many commands wait"),
            Self::TooLarge(limit) => write!(f, "the reply is longer than {limit} bytes"),
        }
    }
}

thread_local!(static CLIENTS: RefCell<Vec<Arc<Client>>> = const { RefCell::new(Vec::new()) });

/// This worker's client of a `[redis.NAME]`. A reload that leaves the table as it was leaves the
/// client and its connection, too.
#[must_use]
pub fn client(config: &Arc<Redis>) -> Arc<Client> {
    CLIENTS.with_borrow_mut(|clients| {
        let found = clients
            .iter()
            .position(|client| client.config().name == config.name);
        match found {
            Some(at) if clients[at].serves(config) => clients[at].clone(),
            Some(at) => {
                clients[at] = Arc::new(Client::new(config.clone()));
                clients[at].clone()
            }
            None => {
                let client = Arc::new(Client::new(config.clone()));
                clients.push(client.clone());
                client
            }
        }
    })
}

/// The text of an error that Redis sent.
fn text(error: &::redis::ServerError) -> String {
    match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    }
}

/// The text of a value that is an error.
#[must_use]
pub fn failure(value: &Value) -> Option<String> {
    match value {
        Value::ServerError(error) => Some(text(error)),
        _ => None,
    }
}
