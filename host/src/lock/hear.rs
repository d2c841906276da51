//! Hears which locks other servers give back, and gives back what was dropped here.

use std::sync::Arc;

use tokio::sync::Notify;

use super::remote::{RELEASED, Remote};
use crate::config::model::Redis;
use crate::observe::error_log::{self, Context, Level};
use crate::redis::RedisError;
use crate::redis::feed::{Listener, Node};

impl Listener for Remote {
    const THREAD: &str = "lock-feed";
    const WHAT: &str = "releases of other servers are";

    fn redis(&self) -> &Arc<Redis> {
        &self.config.redis
    }

    fn channel(&self) -> Vec<u8> {
        self.key("!news", b"")
    }

    fn node(&self) -> &Node {
        &self.node
    }

    fn hurry(&self) -> &Arc<Notify> {
        &self.given_up
    }

    async fn greet(&self) -> Result<(), RedisError> {
        self.look().await?;
        self.give_back().await?;
        // What was released meanwhile nobody has heard of.
        self.waiting.wake_all();
        Ok(())
    }

    fn heard(&self, kind: u8, rest: &[u8]) {
        if kind == RELEASED {
            self.waiting.wake(rest);
        }
    }

    async fn hurried(&self) -> Result<(), RedisError> {
        self.give_back().await
    }

    async fn turn(&self) -> Result<(), RedisError> {
        Ok(())
    }

    /// Who waits is not to wait for a Redis that is away.
    fn lost(&self) {
        self.waiting.wake_all();
    }

    fn note(&self, level: Level, message: &str) {
        let message = format!("lock `{}`: {message}", self.table);
        error_log::write(level, &Context::default(), message);
    }
}
