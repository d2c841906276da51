//! Hears what other servers change, on a thread of its own, so that a change is known however busy the
//! workers are.
//!
//! Each change in Redis is told on a channel by the script that makes it. As long as the connection
//! lives none is missed; that it lives is known by a beat that this server sends to itself. When it was
//! lost, changes may have been missed: all that memory has is *distrusted*, which means that it serves again
//! after one look into Redis, key by key, when it is asked for. Redis may have been emptied meanwhile:
//! then it knows nothing against a value, and gets it back.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::write::is_away;
use super::{News, Remote};
use crate::observe::error_log::Level as LogLevel;
use crate::redis::{self, Client, RedisError, Subscription, Value};
use crate::time_cache;

/// How often the connection is tried, what waits is sent, and whether anybody needs this is looked at.
const TICK: Duration = Duration::from_millis(250);
/// How long a beat may take to come back.
const ECHO: Duration = Duration::from_secs(2);
/// Changes that are sent at a time.
const BATCH: usize = 64;

/// Starts the thread; it ends when the level is dropped.
pub(super) fn start(remote: &Arc<Remote>) {
    let weak = Arc::downgrade(remote);
    let started = std::thread::Builder::new()
        .name("cache-feed".to_owned())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            if let Ok(runtime) = runtime {
                tokio::task::LocalSet::new().block_on(&runtime, follow(&weak));
            }
        });
    if let Err(error) = started {
        let message = format!("changes of other servers are not heard: {error}");
        remote.say(LogLevel::Error, &message);
    }
}

/// Where the connection stands.
#[derive(Debug, Default)]
struct Pulse {
    number: u64,
    /// The beat that is out.
    out: Option<Instant>,
}

async fn follow(weak: &Weak<Remote>) {
    // What marks the Redis of this life; another one has forgotten everything.
    let mut life = None;
    let mut lost = false;
    loop {
        let Some(remote) = weak.upgrade() else {
            return;
        };
        let client = remote.client();
        let channels = vec![remote.channel()];
        let opened = Subscription::open(client.clone(), channels, Vec::new()).await;
        let error = match opened {
            Ok(subscription) => match remote.greet(&client, &mut life).await {
                Ok(()) => {
                    if std::mem::take(&mut lost) {
                        let message = "changes of other servers are heard again";
                        remote.announce(LogLevel::Notice, message);
                    }
                    drop(remote);
                    hear(weak, &client, &subscription).await
                }
                Err(error) => Some(error),
            },
            Err(error) => Some(error),
        };
        let Some(remote) = weak.upgrade() else {
            return;
        };
        if !std::mem::replace(&mut lost, true) {
            let why = error.map_or_else(|| "no beat".to_owned(), |error| error.to_string());
            let message = format!("changes of other servers are not heard now: {why}");
            remote.announce(LogLevel::Warn, &message);
        }
        drop(remote);
        tokio::time::sleep(TICK).await;
    }
}

/// Listens until the connection is lost.
async fn hear(
    weak: &Weak<Remote>,
    client: &Arc<Client>,
    subscription: &Subscription,
) -> Option<RedisError> {
    let given_up = weak.upgrade()?.claims.given_up.clone();
    let mut pulse = Pulse::default();
    let mut tick = Instant::now();
    loop {
        let next = std::future::poll_fn(|cx| subscription.poll_next(cx));
        let message = tokio::select! {
            message = next => Some(message),
            () = given_up.notified() => None,
            () = tokio::time::sleep_until(tick) => None,
        };
        let remote = weak.upgrade()?;
        match message {
            Some(Ok(message)) => remote.heard(&message.payload, &mut pulse),
            Some(Err(error)) => return Some(error),
            None => {
                if let Err(error) = remote.release_claims().await {
                    return Some(error);
                }
            }
        }
        if Instant::now() < tick {
            continue;
        }
        if pulse.out.is_some_and(|sent| sent.elapsed() > ECHO) {
            return None;
        }
        if let Err(error) = remote.beat(client, &mut pulse).await {
            return Some(error);
        }
        tick = Instant::now() + TICK;
    }
}

impl Remote {
    fn life_key(&self) -> Vec<u8> {
        self.name("!life", b"")
    }

    /// The connection is new: what this server has is compared with what Redis has, from now on.
    async fn greet(
        &self,
        client: &Arc<Client>,
        life: &mut Option<Vec<u8>>,
    ) -> Result<(), RedisError> {
        self.flush(client).await?;
        let now = self.life(client).await?;
        let emptied = life.as_ref().is_some_and(|before| *before != now);
        *life = Some(now);
        if let Some(store) = self.store.upgrade() {
            store.distrust(emptied);
        }
        Ok(())
    }

    /// The mark of this Redis; a new one if it has none.
    async fn life(&self, client: &Arc<Client>) -> Result<Vec<u8>, RedisError> {
        let mut pipeline = redis::pipe();
        let mark = [&self.node[..], &time_cache::clock_ms().to_be_bytes()].concat();
        pipeline
            .cmd("SET")
            .arg(self.life_key())
            .arg(mark)
            .arg("NX")
            .cmd("GET")
            .arg(self.life_key());
        let replies = client.clone().pipeline(pipeline).await?;
        Ok(match replies.into_iter().nth(1) {
            Some(Value::BulkString(life)) => life,
            // Its memory is full, say: then it cannot be told whether it was emptied.
            _ => Vec::new(),
        })
    }

    async fn beat(&self, client: &Arc<Client>, pulse: &mut Pulse) -> Result<(), RedisError> {
        if pulse.out.is_none() {
            pulse.number += 1;
            let mut publish = redis::cmd("PUBLISH");
            let beat = self.news(News::Beat, &pulse.number.to_be_bytes());
            publish.arg(self.channel()).arg(beat);
            client.clone().command(publish).await?;
            pulse.out = Some(Instant::now());
        }
        self.renew_claims().await?;
        self.flush(client).await
    }

    /// Sends what waits: an emptying first, for it is older than all changes after it.
    async fn flush(&self, _client: &Arc<Client>) -> Result<(), RedisError> {
        while self.pending.any() {
            let purge = self.pending.next_purge();
            if let Some(epoch) = purge {
                self.send_purge(epoch).await?;
            }
            let changes = self.pending.next(BATCH);
            let sends = changes
                .iter()
                .map(|(key, change)| self.send(key, change.entry.as_ref(), Some(change.written)));
            for sent in futures_util::future::join_all(sends).await {
                match sent {
                    Err(error) if is_away(&error) => return Err(error),
                    // What Redis refuses it will refuse again.
                    Err(error) => self.failed("a change that waited was not written", &error),
                    Ok(_) => {}
                }
            }
            self.pending.sent(purge, &changes);
        }
        Ok(())
    }

    fn heard(&self, message: &[u8], pulse: &mut Pulse) {
        let Some((head, rest)) = message.split_at_checked(9) else {
            return;
        };
        let (kind, node) = (head[0], &head[1..]);
        if node == self.node {
            if kind == News::Beat as u8 && rest == pulse.number.to_be_bytes() {
                pulse.out = None;
            }
            return;
        }
        let Some(store) = self.store.upgrade() else {
            return;
        };
        match kind {
            kind if kind == News::Changed as u8 => store.changed_elsewhere(rest, true),
            kind if kind == News::Filled as u8 => store.changed_elsewhere(rest, false),
            kind if kind == News::Purged as u8 => store.empty(store.next_epoch()),
            kind if kind == News::Released as u8 => {}
            _ => return,
        }
        self.claims.wake(rest);
        store.counters.count(super::Counter::Heard);
    }
}
