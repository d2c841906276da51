//! A worker's client of one Redis: one connection at a time, made anew when it breaks, a bound on
//! what waits, time-outs, and the breaker in front.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
use crate::config::model::Redis;
use crate::observe::error_log::{self, Context, Level};

type Connecting = Shared<BoxFuture<'static, Result<Connection, RedisError>>>;

/// What the client has to send on.
enum Link {
    None,
    /// All who come meanwhile wait for the same attempt.
    Connecting(Connecting),
    Up(Connection),
}

/// A worker's client of one Redis.
pub struct Client {
    config: Arc<Redis>,
    link: Mutex<Link>,
    breaker: Mutex<Breaker>,
    waiting: AtomicUsize,
    pub(super) subscriptions: AtomicUsize,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// A place among those that wait.
struct Place<'c>(&'c AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tells the breaker how it went; a command that is given up says nothing of the server.
struct Verdict<'c> {
    client: &'c Client,
    told: bool,
}

impl Verdict<'_> {
    fn tell<T>(mut self, outcome: &Result<T, RedisError>) {
        self.told = true;
        let mut breaker = self.client.breaker.lock();
        match outcome {
            Err(error) if error.counts() => {
                if breaker.failure(Instant::now()) {
                    drop(breaker);
                    // What is in flight on it would hold up what comes after the pause.
                    *self.client.link.lock() = Link::None;
                    self.client
                        .say(Level::Warn, &format!("away, the breaker opens: {error}"));
                }
            }
            _ => {
                if breaker.success() {
                    self.client.say(Level::Notice, "back, the breaker closes");
                }
            }
        }
    }
}

impl Drop for Verdict<'_> {
    fn drop(&mut self) {
        if !self.told {
            self.client.breaker.lock().neither(Instant::now());
        }
    }
}

impl Client {
    pub(super) fn new(config: Arc<Redis>) -> Self {
        Self {
            breaker: Mutex::new(Breaker::new(config.failures, config.pause)),
            config,
            link: Mutex::new(Link::None),
            waiting: AtomicUsize::new(0),
            subscriptions: AtomicUsize::new(0),
        }
    }

    /// What it was made from.
    #[must_use]
    pub fn config(&self) -> &Redis {
        &self.config
    }

    pub(super) fn serves(&self, config: &Arc<Redis>) -> bool {
        Arc::ptr_eq(&self.config, config) || self.config == *config
    }

    fn say(&self, level: Level, message: &str) {
        let message = format!("redis `{}`: {message}", self.config.name);
        error_log::write(level, &Context::default(), message);
    }

    /// One command.
    ///
    /// # Errors
    /// When there is no reply, and when the reply is an error.
    pub async fn command(self: Arc<Self>, command: Cmd) -> Result<Value, RedisError> {
        let (_place, verdict) = self.admit()?;
        let result = match self.connection().await {
            Ok(mut link) => {
                let reply = link.multiplexed.req_packed_command(&command);
                self.in_time(&link.exceeded, reply).await
            }
            Err(error) => Err(error),
        };
        verdict.tell(&result);
        match result? {
            Value::ServerError(error) => Err(RedisError::Failed(text(&error))),
            value => Ok(value),
        }
    }

    /// Several commands in one round trip, or as one transaction when the pipeline is atomic. An
    /// error of one command is its reply.
    ///
    /// # Errors
    /// When there are no replies, and when a transaction was refused.
    pub async fn pipeline(self: Arc<Self>, pipeline: Pipeline) -> Result<Vec<Value>, RedisError> {
        let (_place, verdict) = self.admit()?;
        let result = match self.connection().await {
            Ok(mut link) => {
                // Of a transaction only EXEC's reply is wanted, behind MULTI's and one for each.
                let (skip, count) = match pipeline.is_transaction() {
                    true => (pipeline.len() + 1, 1),
                    false => (0, pipeline.len()),
                };
                let replies = link.multiplexed.req_packed_commands(&pipeline, skip, count);
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
            Some(Value::ServerError(error)) => Err(RedisError::Failed(text(&error))),
            _ => Err(RedisError::Failed(
                "EXECABORT the transaction was dropped".to_owned(),
            )),
        }
    }

    fn admit(&self) -> Result<(Place<'_>, Verdict<'_>), RedisError> {
        if self.waiting.load(Ordering::Relaxed) >= self.config.queue {
            return Err(RedisError::Busy);
        }
        if !self.breaker.lock().admit(Instant::now()) {
            return Err(RedisError::BreakerOpen);
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let verdict = Verdict {
            client: self,
            told: false,
        };
        Ok((Place(&self.waiting), verdict))
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
        tokio::task::spawn_local(async move {
            let most: Duration = config.connect_timeout;
            let result = match tokio::time::timeout(most, connect::connect(&config)).await {
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
