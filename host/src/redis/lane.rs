//! One server's lane: one connection that all share, made when it is needed and anew when it breaks,
//! time-outs, and a breaker in front.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::redis::aio::ConnectionLike as _;
use ::redis::{Cmd, Pipeline, Value};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::breaker::Breaker;
use super::connect::{self, Connection};
use super::{RedisError, text};
use crate::config::model::{Redis, RedisAddress, RedisKind};
use crate::observe::error_log::{self, Context, Level};

type Connecting = Shared<BoxFuture<'static, Result<Connection, RedisError>>>;

/// What the lane has to send on.
enum Link {
    None,
    /// All who come meanwhile wait for the same attempt.
    Connecting(Connecting),
    Up(Connection),
}

/// One server, or the one that sentinels name.
pub(super) struct Lane {
    config: Arc<Redis>,
    /// A cluster's node; `None` is what the configuration names.
    node: Option<RedisAddress>,
    link: Mutex<Link>,
    breaker: Mutex<Breaker>,
}

/// Tells the breaker how it went; a command that is given up says nothing of the server.
struct Verdict<'l> {
    lane: &'l Lane,
    told: bool,
}

impl Verdict<'_> {
    fn tell<T>(mut self, outcome: &Result<T, RedisError>) {
        self.told = true;
        let mut breaker = self.lane.breaker.lock();
        match outcome {
            Err(error) if error.counts() => {
                if breaker.failure(Instant::now()) {
                    drop(breaker);
                    // What is in flight on it would hold up what comes after the pause.
                    self.lane.leave();
                    self.lane
                        .say(Level::Warn, &format!("away, the breaker opens: {error}"));
                }
            }
            _ => {
                if breaker.success() {
                    self.lane.say(Level::Notice, "back, the breaker closes");
                }
            }
        }
    }
}

impl Drop for Verdict<'_> {
    fn drop(&mut self) {
        if !self.told {
            self.lane.breaker.lock().neither(Instant::now());
        }
    }
}

impl Lane {
    /// Nothing is connected yet.
    pub(super) fn new(config: Arc<Redis>, node: Option<RedisAddress>) -> Self {
        Self {
            breaker: Mutex::new(Breaker::new(config.failures, config.pause)),
            config,
            node,
            link: Mutex::new(Link::None),
        }
    }

    /// The cluster's node that it leads to.
    pub(super) fn node(&self) -> Option<&RedisAddress> {
        self.node.as_ref()
    }

    fn say(&self, level: Level, message: &str) {
        let name = &self.config.name;
        let message = match &self.node {
            Some(node) => format!("redis `{name}`, node {node}: {message}"),
            None => format!("redis `{name}`: {message}"),
        };
        error_log::write(level, &Context::default(), message);
    }

    /// The next command connects anew.
    fn leave(&self) {
        *self.link.lock() = Link::None;
    }

    /// One command. An error that the server sent is a value.
    pub(super) async fn command(&self, command: &Cmd) -> Result<Value, RedisError> {
        let verdict = self.admit()?;
        let result = match self.connection().await {
            Ok(mut link) => {
                let reply = link.multiplexed.req_packed_command(command);
                self.in_time(&link.exceeded, reply).await
            }
            Err(error) => Err(error),
        };
        verdict.tell(&result);
        if let Ok(Value::ServerError(error)) = &result {
            self.look_at(error);
        }
        result
    }

    /// Several commands in one round trip; an error of one is its value. Of a transaction only what
    /// `EXEC` answered.
    pub(super) async fn pipeline(&self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let verdict = self.admit()?;
        let result = match self.connection().await {
            Ok(mut link) => {
                // Of a transaction only EXEC's reply is wanted, behind MULTI's and one for each.
                let (skip, count) = match pipeline.is_transaction() {
                    true => (pipeline.len() + 1, 1),
                    false => (0, pipeline.len()),
                };
                let replies = link.multiplexed.req_packed_commands(pipeline, skip, count);
                self.in_time(&link.exceeded, replies).await
            }
            Err(error) => Err(error),
        };
        verdict.tell(&result);
        let mut values = result?;
        if !pipeline.is_transaction() {
            return Ok(values);
        }
        match values.pop() {
            Some(Value::Array(values)) => Ok(values),
            Some(Value::ServerError(error)) => {
                self.look_at(&error);
                Err(RedisError::Failed(text(&error)))
            }
            _ => Err(RedisError::Failed(
                "EXECABORT the transaction was dropped".to_owned(),
            )),
        }
    }

    /// A master that has become a replica is left: the sentinels know who is the master now.
    fn look_at(&self, error: &::redis::ServerError) {
        let sentinel = matches!(self.config.url.kind, RedisKind::Sentinel(_));
        if sentinel && error.code() == "READONLY" {
            self.leave();
        }
    }

    fn admit(&self) -> Result<Verdict<'_>, RedisError> {
        if !self.breaker.lock().admit(Instant::now()) {
            return Err(RedisError::BreakerOpen);
        }
        Ok(Verdict {
            lane: self,
            told: false,
        })
    }

    async fn in_time<T>(
        &self,
        exceeded: &AtomicBool,
        reply: impl Future<Output = Result<T, ::redis::RedisError>>,
    ) -> Result<T, RedisError> {
        match tokio::time::timeout(self.config.timeout, reply).await {
            Err(_) => Err(RedisError::Timeout),
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) if exceeded.load(Ordering::Relaxed) => {
                Err(RedisError::TooLarge(self.config.reply_limit))
            }
            Ok(Err(error)) => Err(connect::fault(&error)),
        }
    }

    /// The connection; all who need one share the attempt that makes it.
    async fn connection(&self) -> Result<Connection, RedisError> {
        let attempt = {
            let mut link = self.link.lock();
            match &*link {
                Link::Up(up) if !up.closed.load(Ordering::Relaxed) => return Ok(up.clone()),
                Link::Connecting(attempt) if attempt.peek().is_none_or(Result::is_ok) => {
                    attempt.clone()
                }
                Link::Up(_) | Link::Connecting(_) | Link::None => {
                    let attempt = self.attempt();
                    *link = Link::Connecting(attempt.clone());
                    attempt
                }
            }
        };
        let up = attempt.await?;
        let mut link = self.link.lock();
        if matches!(*link, Link::Connecting(_)) {
            *link = Link::Up(up.clone());
        }
        Ok(up)
    }

    /// A task of its own: it goes on when whoever asked for it has left.
    fn attempt(&self) -> Connecting {
        let (done, outcome) = tokio::sync::oneshot::channel();
        let config = self.config.clone();
        let node = self.node.clone();
        tokio::task::spawn_local(async move {
            let most: Duration = config.connect_timeout;
            let connecting = connect::connect(&config, node.as_ref());
            let result = match tokio::time::timeout(most, connecting).await {
                Ok(result) => result,
                Err(_) => Err(RedisError::Timeout),
            };
            // Nobody waits any more when the client was replaced.
            let _heard = done.send(result).is_ok();
        });
        outcome
            .map(|outcome| {
                outcome.unwrap_or_else(|_| {
                    Err(RedisError::Unavailable("the worker is ending".to_owned()))
                })
            })
            .boxed()
            .shared()
    }
}
