//! Hears what other servers say on a channel, on a thread of its own, so that it is heard however busy
//! the workers are.
//!
//! As long as the connection lives no message is missed; that it lives is known by a beat that this
//! server sends to itself. After a cut [`Listener::greet`] is called, because messages may have been missed.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Client, RedisError, Subscription, client, cmd};
use crate::config::model::Redis;
use crate::observe::error_log::Level;

/// How often the connection is tried, and a listener gets its turn.
const TICK: Duration = Duration::from_millis(250);
/// How long a beat may take to come back.
const ECHO: Duration = Duration::from_secs(2);
/// What a beat begins with: nothing that others need.
const BEAT: u8 = b'b';

/// This server among all that share a channel.
pub(crate) type Node = [u8; 8];

/// A name that no other server has.
pub(crate) fn node() -> Node {
    RandomState::new()
        .hash_one(std::process::id())
        .to_be_bytes()
}

/// A message: what it is about, who sends it, the rest.
pub(crate) fn frame(kind: u8, node: &Node, rest: &[u8]) -> Vec<u8> {
    [&[kind][..], node, rest].concat()
}

/// Who hears. All of it is called on the feed's thread.
pub(crate) trait Listener: Send + Sync + 'static {
    /// The thread's name.
    const THREAD: &str;
    /// What goes unheard meanwhile, as the log names it.
    const WHAT: &str;

    fn redis(&self) -> &Arc<Redis>;
    fn channel(&self) -> Vec<u8>;
    fn node(&self) -> &Node;
    /// Asks for a turn before its time.
    fn hurry(&self) -> &Arc<Notify>;
    /// The connection is new. Messages may have been missed before.
    async fn greet(&self) -> Result<(), RedisError>;
    /// Another server's message.
    fn heard(&self, kind: u8, rest: &[u8]);
    /// It was asked for a turn.
    async fn hurried(&self) -> Result<(), RedisError>;
    /// Its time has come.
    async fn turn(&self) -> Result<(), RedisError>;
    /// The connection is lost.
    fn lost(&self);
    /// A line in the log.
    fn note(&self, level: Level, message: &str);
}

/// Starts the thread; it ends when the listener is dropped.
pub(crate) fn start<L: Listener>(listener: &Arc<L>) {
    let weak = Arc::downgrade(listener);
    let started = std::thread::Builder::new()
        .name(L::THREAD.to_owned())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            if let Ok(runtime) = runtime {
                tokio::task::LocalSet::new().block_on(&runtime, follow(&weak));
            }
        });
    if let Err(error) = started {
        let message = format!("{} not heard: {error}", L::WHAT);
        listener.note(Level::Error, &message);
    }
}

async fn follow<L: Listener>(weak: &Weak<L>) {
    let mut lost = false;
    loop {
        let Some(listener) = weak.upgrade() else {
            return;
        };
        let client = client(listener.redis());
        let channels = vec![listener.channel()];
        let opened = Subscription::open(client.clone(), channels, Vec::new()).await;
        let error = match opened {
            Ok(subscription) => match listener.greet().await {
                Ok(()) => {
                    if std::mem::take(&mut lost) {
                        listener.note(Level::Notice, &format!("{} heard again", L::WHAT));
                    }
                    drop(listener);
                    hear(weak, &client, &subscription).await
                }
                Err(error) => Some(error),
            },
            Err(error) => Some(error),
        };
        let Some(listener) = weak.upgrade() else {
            return;
        };
        listener.lost();
        if !std::mem::replace(&mut lost, true) {
            let why = error.map_or_else(|| "no beat".to_owned(), |error| error.to_string());
            listener.note(Level::Warn, &format!("{} not heard now: {why}", L::WHAT));
        }
        drop(listener);
        tokio::time::sleep(TICK).await;
    }
}

/// Where the connection stands.
#[derive(Debug, Default)]
struct Pulse {
    number: u64,
    /// The beat that is out.
    out: Option<Instant>,
}

/// Listens until the connection is lost.
async fn hear<L: Listener>(
    weak: &Weak<L>,
    client: &Arc<Client>,
    subscription: &Subscription,
) -> Option<RedisError> {
    let hurry = weak.upgrade()?.hurry().clone();
    let mut pulse = Pulse::default();
    let mut tick = Instant::now();
    loop {
        let next = std::future::poll_fn(|cx| subscription.poll_next(cx));
        let message = tokio::select! {
            message = next => Some(message),
            () = hurry.notified() => None,
            () = tokio::time::sleep_until(tick) => None,
        };
        let listener = weak.upgrade()?;
        match message {
            Some(Ok(message)) => pulse.heard(&*listener, &message.payload),
            Some(Err(error)) => return Some(error),
            None => {
                if let Err(error) = listener.hurried().await {
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
        if let Err(error) = pulse.beat(&*listener, client).await {
            return Some(error);
        }
        if let Err(error) = listener.turn().await {
            return Some(error);
        }
        tick = Instant::now() + TICK;
    }
}

impl Pulse {
    fn heard<L: Listener>(&mut self, listener: &L, message: &[u8]) {
        let Some((head, rest)) = message.split_at_checked(9) else {
            return;
        };
        let (kind, node) = (head[0], &head[1..]);
        if node != listener.node() {
            if kind != BEAT {
                listener.heard(kind, rest);
            }
        } else if kind == BEAT && rest == self.number.to_be_bytes() {
            self.out = None;
        }
    }

    async fn beat<L: Listener>(
        &mut self,
        listener: &L,
        client: &Arc<Client>,
    ) -> Result<(), RedisError> {
        if self.out.is_none() {
            self.number += 1;
            let beat = frame(BEAT, listener.node(), &self.number.to_be_bytes());
            let mut publish = cmd("PUBLISH");
            publish.arg(listener.channel()).arg(beat);
            client.clone().command(publish).await?;
            self.out = Some(Instant::now());
        }
        Ok(())
    }
}
