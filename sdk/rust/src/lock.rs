//! Locks (`[lock.NAME]`): one owner at a time in all workers, or on all servers that share a Redis,
//! waiters in line. Needs `allow.lock`.
//!
//! ```no_run
//! use phasor_plugin::{Answer, lock::Locks};
//!
//! #[phasor_plugin::content]
//! fn order() -> Answer {
//!     let held = Locks::open("orders").and_then(|orders| orders.acquire("item 42"));
//!     match held {
//!         // The lock is given back when `guard` is dropped, also by a trap.
//!         Ok(guard) => Answer::text(format!("owner {}", guard.fencing())),
//!         Err(error) => Answer::text(format!("{error:?}")),
//!     }
//! }
//! ```

use core::time::Duration;

use crate::bindings::phasor::plugin::lock as host;
use crate::time::millis;

pub use host::LockError;

/// What does not fit into 32 bits is 49 days: as good as for ever.
fn short(time: Duration) -> u32 {
    u32::try_from(millis(time)).unwrap_or(u32::MAX)
}

/// A table of locks.
#[derive(Clone, Copy, Debug)]
pub struct Locks(u32);

/// What a call wants otherwise than `[lock.NAME]` says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// How long the lock is kept at most.
    pub hold: Option<Duration>,
    /// How long to wait; zero is one look.
    pub wait: Option<Duration>,
}

/// A held lock; dropping it gives it back.
#[derive(Debug)]
pub struct Guard(host::Guard);

impl Locks {
    /// Opens `[lock.NAME]`.
    ///
    /// # Errors
    /// Where there is none, or `allow.lock` does not name it.
    pub fn open(name: &str) -> Result<Self, LockError> {
        host::open(name).map(Self)
    }

    /// Waits in line for a lock.
    ///
    /// # Errors
    /// Where it was not got in time.
    pub fn acquire(self, name: impl AsRef<[u8]>) -> Result<Guard, LockError> {
        self.acquire_with(name, Options::default())
    }

    /// Waits in line for a lock, with its own options.
    ///
    /// # Errors
    /// Where it was not got in time.
    pub fn acquire_with(
        self,
        name: impl AsRef<[u8]>,
        options: Options,
    ) -> Result<Guard, LockError> {
        let (hold, wait) = (options.hold.map(short), options.wait.map(short));
        host::acquire(self.0, name.as_ref(), hold, wait).map(Guard)
    }
}

impl Guard {
    /// The owner's number, greater than that of every owner before: a store that keeps the greatest it
    /// has seen can refuse what a late owner writes.
    #[must_use]
    pub fn fencing(&self) -> u64 {
        self.0.fencing()
    }

    /// Begins the hold anew, with another length if one is given.
    ///
    /// # Errors
    /// [`LockError::Lost`] where it was over, [`LockError::Unavailable`] where Redis does not say.
    pub fn renew(&self, hold: Option<Duration>) -> Result<(), LockError> {
        self.0.renew(hold.map(short))
    }

    /// Gives the lock back.
    ///
    /// # Errors
    /// [`LockError::Lost`] where the hold was over before: another may have had the lock since.
    /// [`LockError::Unavailable`] where Redis does not say; it will hear of the release later.
    pub fn release(self) -> Result<(), LockError> {
        host::Guard::release(self.0)
    }
}
