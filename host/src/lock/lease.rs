//! A lock that this process has in Redis. What is Redis' to say is asked there each time, so that an owner
//! whose hold is over hears of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::LockError;
use super::remote::{LOOKS, Name, Over, Remote, Token, millis, text};
use super::script::{RELEASE, RENEW};
use crate::redis::{Script, Value};

/// A lock that is held in Redis; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Guard {
    lease: Arc<Lease>,
    number: u64,
    /// Redis has answered for the last time.
    spent: bool,
}

/// What it takes to ask for a lock that is held.
#[derive(Debug)]
struct Lease {
    remote: Arc<Remote>,
    name: Name,
    token: Token,
    hold: Duration,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let lease = &self.lease;
        let held = lease.remote.forget(&lease.token);
        if self.spent {
            return;
        }
        let over = Over {
            name: lease.name.clone(),
            token: lease.token,
            until: held.unwrap_or_else(|| Instant::now() + lease.hold),
        };
        lease.remote.give_up(over);
    }
}

impl Guard {
    /// For whoever asks now, and may have got it when he leaves.
    pub(super) fn asked(remote: &Arc<Remote>, name: &[u8], token: Token, hold: Duration) -> Self {
        let lease = Lease {
            remote: remote.clone(),
            name: name.into(),
            token,
            hold,
        };
        Self {
            lease: Arc::new(lease),
            number: 0,
            spent: false,
        }
    }

    /// It is held, as this owner.
    pub(super) fn held(mut self, number: u64) -> Self {
        self.number = number;
        self.lease.keep(self.lease.hold);
        self
    }

    /// It was not got.
    pub(super) fn spend(mut self) {
        self.spent = true;
    }

    pub(super) fn fencing(&self) -> u64 {
        self.number
    }

    pub(super) fn renew(
        &self,
        hold: Option<Duration>,
    ) -> impl Future<Output = Result<(), LockError>> + Send + use<> {
        let lease = self.lease.clone();
        async move {
            let hold = hold.unwrap_or(lease.hold);
            lease.own(&RENEW, &[text(millis(hold))]).await?;
            lease.keep(hold);
            Ok(())
        }
    }

    pub(super) async fn release(mut self) -> Result<(), LockError> {
        let lease = self.lease.clone();
        let news = lease.remote.release_news(&lease.name);
        let released = lease.own(&RELEASE, &news).await;
        // What Redis did not hear it hears later.
        self.spent = released != Err(LockError::Unavailable);
        if released.is_ok() {
            // Others hear of it through Redis; who waits here need not.
            lease.remote.waiting.wake(&lease.name);
        }
        released
    }
}

impl Lease {
    /// Runs a script of the owner's. Where Redis has lost something the lock is put back before, so that
    /// its owner does not hear that it is lost while it cannot be another's.
    async fn own(&self, script: &Script, arguments: &[Vec<u8>]) -> Result<(), LockError> {
        let (remote, keys) = (&self.remote, self.remote.lease_keys(&self.name));
        let failed = |error| remote.failed("an owner was not heard", &error);
        for _ in 0..LOOKS {
            let head = [self.token.to_vec(), remote.mark()];
            let arguments = [&head[..], arguments].concat();
            match remote.run(script, &keys, &arguments).await {
                Ok(Value::Int(1)) => return Ok(()),
                Ok(Value::Int(-2)) => remote.look().await.map_err(failed)?,
                Ok(_) => return Err(LockError::Lost),
                Err(error) => return Err(failed(error)),
            }
        }
        Err(LockError::Unavailable)
    }

    fn keep(&self, hold: Duration) {
        self.remote.keep(&self.name, self.token, hold);
    }
}
