//! Messages of channels, on a connection of their own, kept up to a bound until somebody reads them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use futures_util::StreamExt as _;
use parking_lot::Mutex;

use super::{Client, RedisError, connect};

/// What came on a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The channel.
    pub channel: Vec<u8>,
    /// The pattern that fitted, if it was subscribed by pattern.
    pub pattern: Option<Vec<u8>>,
    /// The message.
    pub payload: Vec<u8>,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Message>,
    over: Option<RedisError>,
    reader: Option<Waker>,
}

impl Queue {
    fn end(&mut self, error: RedisError) {
        self.over.get_or_insert(error);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// A subscription; dropping it ends it.
#[derive(Debug)]
pub struct Subscription {
    queue: Arc<Mutex<Queue>>,
    client: Arc<Client>,
    task: tokio::task::AbortHandle,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
        self.client.subscriptions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place among the subscriptions, until there is one.
struct Place(Arc<Client>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.subscriptions.fetch_sub(1, Ordering::Relaxed);
    }
}

fn bytes(value: &::redis::Value) -> Vec<u8> {
    match value {
        ::redis::Value::BulkString(bytes) => bytes.clone(),
        ::redis::Value::SimpleString(text) => text.clone().into_bytes(),
        _ => Vec::new(),
    }
}

impl Subscription {
    /// Subscribes to channels and to patterns of channels.
    ///
    /// # Errors
    /// When the server cannot be reached, refuses, or too many subscriptions are open.
    pub async fn open(
        client: Arc<Client>,
        channels: Vec<Vec<u8>>,
        patterns: Vec<Vec<u8>>,
    ) -> Result<Self, RedisError> {
        if channels.is_empty() && patterns.is_empty() {
            return Err(RedisError::Invalid("no channel was given".to_owned()));
        }
        let open = client.subscriptions.fetch_add(1, Ordering::Relaxed);
        let place = Place(client);
        let config = place.0.config();
        if open >= config.subscriptions {
            return Err(RedisError::Busy);
        }
        let begin = async {
            let mut pubsub = connect::connect_pubsub(config, &place.0.nodes()).await?;
            if !channels.is_empty() {
                pubsub
                    .subscribe(&channels)
                    .await
                    .map_err(|e| connect::fault(&e))?;
            }
            if !patterns.is_empty() {
                pubsub
                    .psubscribe(&patterns)
                    .await
                    .map_err(|e| connect::fault(&e))?;
            }
            Ok(pubsub)
        };
        let pubsub = match tokio::time::timeout(config.connect_timeout, begin).await {
            Ok(pubsub) => pubsub?,
            Err(_) => return Err(RedisError::Timeout),
        };
        let queue = Arc::new(Mutex::new(Queue::default()));
        let task = tokio::task::spawn_local(gather(pubsub, queue.clone(), config.backlog));
        let client = place.0.clone();
        std::mem::forget(place);
        Ok(Self {
            queue,
            client,
            task: task.abort_handle(),
        })
    }

    /// The next message.
    ///
    /// # Errors
    /// When the subscription has ended: messages may have been lost.
    pub fn poll_next(&self, cx: &Context<'_>) -> Poll<Result<Message, RedisError>> {
        let mut queue = self.queue.lock();
        if let Some(message) = queue.messages.pop_front() {
            return Poll::Ready(Ok(message));
        }
        if let Some(error) = &queue.over {
            return Poll::Ready(Err(error.clone()));
        }
        queue.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Takes messages as they come. The sink is kept: without it the connection would close.
async fn gather(pubsub: ::redis::aio::PubSub, queue: Arc<Mutex<Queue>>, most: usize) {
    let (_sink, mut stream) = pubsub.split();
    while let Some(message) = stream.next().await {
        let pattern: Option<::redis::Value> = message.get_pattern().ok();
        let message = Message {
            channel: message.get_channel_name().as_bytes().to_vec(),
            pattern: pattern
                .filter(|_| message.from_pattern())
                .map(|pattern| bytes(&pattern)),
            payload: message.get_payload_bytes().to_vec(),
        };
        let mut queue = queue.lock();
        if queue.messages.len() >= most {
            queue.end(RedisError::Busy);
            return;
        }
        queue.messages.push_back(message);
        if let Some(reader) = queue.reader.take() {
            reader.wake();
        }
    }
    queue.lock().end(RedisError::Unavailable(
        "the subscription's connection is closed".to_owned(),
    ));
}
