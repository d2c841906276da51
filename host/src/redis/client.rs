//! A worker's client of one Redis: a bound on what waits, and behind it one server's lane, or a
//! cluster's many.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::redis::{Cmd, Pipeline, Value};

use super::cluster::Cluster;
use super::lane::Lane;
use super::{RedisError, text};
use crate::config::model::{Redis, RedisAddress, RedisKind};

/// What stands behind a name.
enum Servers {
    /// One server, or the one that sentinels name.
    One(Lane),
    /// Nodes that have a part of the keys each.
    Cluster(Box<Cluster>),
}

/// A worker's client of one Redis.
pub struct Client {
    config: Arc<Redis>,
    servers: Servers,
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

impl Client {
    pub(super) fn new(config: Arc<Redis>) -> Self {
        Self {
            servers: match config.url.kind {
                RedisKind::Cluster => Servers::Cluster(Box::new(Cluster::new(config.clone()))),
                RedisKind::Single | RedisKind::Sentinel(_) => {
                    Servers::One(Lane::new(config.clone(), None))
                }
            },
            config,
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

    /// A cluster's nodes as they are known; empty for one server.
    pub(super) fn nodes(&self) -> Vec<RedisAddress> {
        match &self.servers {
            Servers::One(_) => Vec::new(),
            Servers::Cluster(cluster) => cluster.nodes(),
        }
    }

    /// One command.
    ///
    /// # Errors
    /// When there is no reply, and when the reply is an error.
    pub async fn command(self: Arc<Self>, command: Cmd) -> Result<Value, RedisError> {
        let _place = self.place()?;
        let value = match &self.servers {
            Servers::One(lane) => lane.command(&command).await?,
            Servers::Cluster(cluster) => cluster.command(&command).await?,
        };
        match value {
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
        let _place = self.place()?;
        match &self.servers {
            Servers::One(lane) => lane.pipeline(&pipeline).await,
            Servers::Cluster(cluster) if pipeline.is_transaction() => {
                cluster.transaction(&pipeline).await
            }
            Servers::Cluster(cluster) => cluster.pipeline(&pipeline).await,
        }
    }

    fn place(&self) -> Result<Place<'_>, RedisError> {
        if self.waiting.load(Ordering::Relaxed) >= self.config.queue {
            return Err(RedisError::Busy);
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Ok(Place(&self.waiting))
    }
}
