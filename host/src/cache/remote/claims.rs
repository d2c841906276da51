//! One flight per key for all servers that share a Redis (`cluster = true`): whoever wants to ask the
//! source claims the key in Redis first, for a lease that is renewed while the flight lasts.
//!
//! A claim has a number, greater than all before, and with it an owner: what the owner of another one
//! writes is refused by the script that writes, so a server that was thought dead and comes back changes
//! nothing. Those who wait are woken by the news of the key; a slow look of their own is there for the case
//! that news were lost, and for the end of a dead owner's lease.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::behind::TooLate;
use super::script::{CLAIM, RELEASE, RENEW};
use super::{Answer, News, Remote, Seen, count, number};
use crate::redis::{RedisError, Value, Waiters};

/// How long nobody looks by himself.
const SLOW: Duration = Duration::from_secs(1);
/// A dead owner's claim is looked for so long after its end.
const AFTER: Duration = Duration::from_millis(10);

type Key = Box<[u8]>;

/// The claims of this server, and who waits here for those of others.
#[derive(Debug, Default)]
pub(super) struct Claims {
    held: Mutex<HashMap<Key, u64>>,
    over: Mutex<Vec<(Key, u64)>>,
    pub(super) waiting: Waiters,
    /// There are claims to give back.
    pub(super) given_up: Arc<Notify>,
}

/// The right to ask the source, before all servers. Dropping it gives it back.
#[derive(Debug)]
pub(in crate::cache) struct Claim {
    remote: Arc<Remote>,
    key: Key,
    number: u64,
    /// The script that wrote the value has given it back.
    spent: bool,
}

impl Claim {
    /// It was given back with the value.
    pub(in crate::cache) fn spend(mut self) {
        self.spent = true;
    }

    /// What the script that writes compares.
    pub(super) fn token(&self) -> Vec<u8> {
        self.remote.token(self.number)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let claims = &self.remote.claims;
        let mut held = claims.held.lock();
        if held.get(&self.key) == Some(&self.number) {
            held.remove(&self.key);
        }
        drop(held);
        if self.spent {
            return;
        }
        claims.over.lock().push((self.key.clone(), self.number));
        claims.given_up.notify_one();
    }
}

/// What came of a claim.
enum Claimed {
    Mine(Claim, Answer),
    Theirs(Duration),
}

impl Remote {
    fn token(&self, number: u64) -> Vec<u8> {
        [&self.node[..], number.to_string().as_bytes()].concat()
    }

    /// Waits until this server may ask the source, or has a value of another that did. `None`: Redis is
    /// away, so each server is on its own.
    ///
    /// # Errors
    /// When it is not so in time.
    pub(in crate::cache) async fn claim(
        self: &Arc<Self>,
        key: &[u8],
        deadline: Instant,
    ) -> Result<Option<(Claim, Answer)>, TooLate> {
        loop {
            // Before it asks, so that no news is missed.
            let mut news = self.claims.waiting.listen(key);
            let left = match self.try_claim(key).await {
                Ok(Claimed::Mine(claim, answer)) => return Ok(Some((claim, answer))),
                Ok(Claimed::Theirs(left)) => left,
                Err(error) => {
                    self.failed("a flight was not claimed", &error);
                    return Ok(None);
                }
            };
            let look = Instant::now() + SLOW.min(left + AFTER);
            let woken = tokio::time::timeout_at(look.min(deadline), news.come()).await;
            if woken.is_err() && Instant::now() >= deadline {
                return Err(TooLate);
            }
        }
    }

    async fn try_claim(self: &Arc<Self>, key: &[u8]) -> Result<Claimed, RedisError> {
        let keys = [
            self.value_key(key),
            self.gen_key(),
            self.counts_key(),
            self.claim_key(key),
            self.name("!fence", b""),
            self.purged_key(),
        ];
        let lease = self.config.lease.as_millis().to_string();
        let arguments = [
            self.node.to_vec(),
            lease.into_bytes(),
            Self::slot(key).to_string().into_bytes(),
        ];
        let Value::Array(parts) = self.run(&CLAIM, &keys, &arguments).await? else {
            return Err(RedisError::Failed("ERR no claim".to_owned()));
        };
        match parts.as_slice() {
            [Value::Int(0), Value::Int(left)] => {
                let left = u64::try_from(*left).unwrap_or(0);
                Ok(Claimed::Theirs(Duration::from_millis(left)))
            }
            [Value::Int(own), counted, emptied, value, purged] => {
                let own = u64::try_from(*own).unwrap_or(0);
                self.claims.held.lock().insert(key.into(), own);
                let claim = Claim {
                    remote: self.clone(),
                    key: key.into(),
                    number: own,
                    spent: false,
                };
                // Dropped with an error, the claim is given back.
                self.learn(count(purged)).await?;
                let seen = Seen {
                    generation: number(emptied).unwrap_or(super::NO_GENERATION),
                    count: count(counted),
                };
                Ok(Claimed::Mine(claim, self.answer(key, value, seen)))
            }
            _ => Err(RedisError::Failed("ERR no claim".to_owned())),
        }
    }

    /// Renews what this server holds. What is another's by now is found out when it is written.
    pub(super) async fn renew_claims(&self) -> Result<(), RedisError> {
        let held: Vec<_> = {
            let held = self.claims.held.lock();
            held.iter().map(|(key, own)| (key.clone(), *own)).collect()
        };
        let lease = self.config.lease.as_millis().to_string().into_bytes();
        for (key, own) in held {
            let arguments = [self.token(own), lease.clone()];
            self.run(&RENEW, &[self.claim_key(&key)], &arguments)
                .await?;
        }
        Ok(())
    }

    /// Gives back what is over, and tells those who wait for it.
    pub(super) async fn release_claims(&self) -> Result<(), RedisError> {
        let over = std::mem::take(&mut *self.claims.over.lock());
        for (key, own) in over {
            let arguments = [
                self.token(own),
                self.channel(),
                self.news(News::Released, &key),
            ];
            // Where Redis is away the lease ends it.
            self.run(&RELEASE, &[self.claim_key(&key)], &arguments)
                .await?;
        }
        Ok(())
    }
}
