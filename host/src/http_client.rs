//! The one HTTP client, for `proxy` and for plugins: hyper's, on the worker's own thread, with a pool
//! of idle connections per worker.

mod connect;
mod line;

use std::cell::RefCell;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_util::client::legacy;

pub use connect::ConnectError;
use connect::Connector;
pub use line::AnswerBody;
use line::Lines;

use crate::local_executor::LocalExecutor;

/// Whatever went wrong beneath.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A request's body: whole, or a stream.
pub type Body = UnsyncBoxBody<Bytes, Cause>;

/// Headers of an answer, at most so many.
const HEADERS: usize = 256;
/// The head of an answer, at most that long (nginx: `proxy_buffer_size` and eight more).
const HEAD: usize = 64 << 10;

/// What a pool is kept by: clients of equal settings share one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Idle connections that are kept, per origin.
    pub idle: usize,
    /// How long.
    pub idle_timeout: Duration,
    /// How long a connection may take to come about, TLS included.
    pub connect_timeout: Duration,
    /// HTTP/2 where a server offers it.
    pub http2: bool,
    /// Authorities of TLS as a PEM file, in place of the public ones.
    pub ca: Option<PathBuf>,
    /// Connections per origin, for requests that are sent in turn.
    pub connections: Option<NonZeroU32>,
}

/// A client; its clones share its pool.
#[derive(Clone)]
pub struct Client {
    client: legacy::Client<Connector, Body>,
    lines: Lines,
    connections: Option<NonZeroU32>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// The server cannot be reached.
    Connect(ConnectError),
    /// The server closed the connection before it said anything.
    Closed(String),
    /// What came is not HTTP, or the connection broke.
    Failed(String),
}

impl std::fmt::Display for ClientError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect(error) => error.fmt(f),
            Self::Closed(text) | Self::Failed(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for ClientError {}

/// The chain of what lies beneath, the last word first told.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = cause.source();
    }
    text
}

impl From<legacy::Error> for ClientError {
    fn from(error: legacy::Error) -> Self {
        let mut next = std::error::Error::source(&error);
        let mut closed = false;
        while let Some(cause) = next {
            if let Some(connect) = cause.downcast_ref::<ConnectError>() {
                return Self::Connect(connect.clone());
            }
            if let Some(hyper) = cause.downcast_ref::<hyper::Error>() {
                closed |= hyper.is_incomplete_message() || hyper.is_closed() || hyper.is_canceled();
            }
            if let Some(io) = cause.downcast_ref::<std::io::Error>() {
                closed |= matches!(
                    io.kind(),
                    std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe
                );
            }
            next = cause.source();
        }
        let text = chain(&error);
        match closed {
            true => Self::Closed(text),
            false => Self::Failed(text),
        }
    }
}

thread_local!(static CLIENTS: RefCell<Vec<(Settings, Client)>> = const { RefCell::new(Vec::new()) });

/// Pools of settings that no configuration has any more; the oldest goes.
const POOLS: usize = 64;

/// This worker's client with these settings.
#[must_use]
pub fn client(settings: &Settings) -> Client {
    CLIENTS.with_borrow_mut(|clients| {
        if let Some((_, client)) = clients.iter().find(|(known, _)| known == settings) {
            return client.clone();
        }
        if clients.len() >= POOLS {
            clients.remove(0);
        }
        let client = Client::new(settings);
        clients.push((settings.clone(), client.clone()));
        client
    })
}

impl Client {
    fn new(settings: &Settings) -> Self {
        let client = legacy::Client::builder(LocalExecutor)
            .pool_max_idle_per_host(settings.idle)
            .pool_idle_timeout(settings.idle_timeout)
            .pool_timer(hyper_util::rt::TokioTimer::new())
            .timer(hyper_util::rt::TokioTimer::new())
            .http1_max_headers(HEADERS)
            .http1_max_buf_size(HEAD)
            .set_host(true)
            .build(Connector::new(settings));
        Self {
            client,
            lines: Lines::default(),
            connections: settings.connections,
        }
    }

    /// Sends a request and waits for the answer's head. Dropping the future ends the request.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, ClientError> {
        self.client
            .request(request)
            .await
            .map_err(ClientError::from)
    }

    /// [`send`](Self::send), when less than `connections` requests to the origin are under way. Dropping the
    /// answer's body, or reading all of it, lets the next in line go.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send_in_turn(
        &self,
        request: Request<Body>,
    ) -> Result<Response<AnswerBody>, ClientError> {
        let turn = match self.connections {
            Some(most) => self.lines.turn(request.uri(), most.get() as usize).await,
            None => None,
        };
        let answer = self.send(request).await?;
        Ok(answer.map(|body| AnswerBody::new(body, turn)))
    }
}
