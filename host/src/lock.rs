//! Locks without Wasm: an owner, a longest hold, and a line in which waiters stand; in this process, or in
//! a Redis that several servers share.
//!
//! Whoever has the [`Guard`] has the lock. Dropping it (a trap, a client that left) hands the lock to the
//! next in line, and so does the end of its hold; what the late holder does then is refused, because each
//! owner has a number of its own, and a greater one than all before it.

mod hear;
mod lease;
mod local;
mod registry;
mod remote;
mod script;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::model::Lock as Config;
use local::Store;
pub use registry::{Registry, settle};
use remote::Remote;

/// The longest name of a lock: as long as a shared dict's key.
const NAME_LIMIT: usize = 65_535;
/// The hold of whoever is first in this process's line for a lock in Redis: until it has it.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Why a lock was not got, or is not held any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockError {
    /// Others had it all the while.
    Timeout,
    /// More wait than `waiters` allows.
    Busy,
    /// The hold was over before.
    Lost,
    /// Empty, or over 65,535 bytes.
    InvalidName,
    /// The Redis in which it lives is away, or has lost what it knew.
    Unavailable,
}

/// The right to go on; dropping it gives the lock back.
#[derive(Debug)]
pub struct Guard(Kind);

#[derive(Debug)]
enum Kind {
    Local(local::Guard),
    Remote(lease::Guard),
}

/// The locks of one table of the configuration.
#[derive(Debug)]
pub struct Locks {
    config: Config,
    store: Arc<Store>,
    remote: Option<Arc<Remote>>,
}

impl Guard {
    /// Its owner's number, greater than that of every owner before: a store that keeps the greatest it
    /// has seen can refuse what a late owner writes.
    #[must_use]
    pub fn fencing(&self) -> u64 {
        match &self.0 {
            Kind::Local(guard) => guard.fencing(),
            Kind::Remote(guard) => guard.fencing(),
        }
    }

    /// Begins the hold anew; `None` is the hold with which it began. A lock in Redis is asked for there.
    ///
    /// # Errors
    /// [`LockError::Lost`] where it was over; [`LockError::Unavailable`] where Redis does not say.
    pub fn renew(
        &self,
        hold: Option<Duration>,
    ) -> impl Future<Output = Result<(), LockError>> + Send + use<> {
        let renewing = match &self.0 {
            Kind::Local(guard) => Err(guard.renew(hold)),
            Kind::Remote(guard) => Ok(guard.renew(hold)),
        };
        async move {
            match renewing {
                Ok(renewing) => renewing.await,
                Err(renewed) => renewed,
            }
        }
    }

    /// Gives the lock back and says whether it was held until now.
    ///
    /// # Errors
    /// As [`renew`](Self::renew).
    pub async fn release(self) -> Result<(), LockError> {
        match self.0 {
            Kind::Local(guard) => guard.release(),
            Kind::Remote(guard) => guard.release().await,
        }
    }
}

impl Locks {
    fn new(config: Config, store: Arc<Store>, remote: Option<Arc<Remote>>) -> Self {
        Self {
            config,
            store,
            remote,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Waits for a lock, in line. `None` is what the configuration says; no wait is one look.
    ///
    /// # Errors
    /// Where it was not got.
    pub async fn acquire(
        &self,
        name: &[u8],
        hold: Option<Duration>,
        wait: Option<Duration>,
    ) -> Result<Guard, LockError> {
        if name.is_empty() || name.len() > NAME_LIMIT {
            return Err(LockError::InvalidName);
        }
        let hold = hold.unwrap_or(self.config.hold);
        let wait = wait.unwrap_or(self.config.wait);
        let most = self.config.waiters;
        let Some(remote) = &self.remote else {
            let guard = self.store.acquire(name, hold, wait, most).await?;
            return Ok(Guard(Kind::Local(guard)));
        };
        let deadline = Instant::now() + wait;
        // One of this process at a time asks Redis; the others stand in line behind it.
        let first = self.store.acquire(name, FOR_EVER, wait, most).await?;
        let place = || self.store.place(most);
        let guard = remote.acquire(name, hold, deadline, place).await?;
        drop(first);
        Ok(Guard(Kind::Remote(guard)))
    }
}
