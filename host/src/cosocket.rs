//! Non-blocking sockets for guests, without Wasm types: a stream is shared by those who read, write
//! and close it, and each thing that takes time is a value that is polled (`Receive`, `Send`, a
//! connecting future), so that dropping it cancels it.
//!
//! Everything belongs to one worker: pools and the name cache are its thread's own. The locks are
//! there because wasmtime demands that what a store holds could move; they are never contended.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

use crate::tls_client::Trust;

mod connect;
mod datagram;
mod downstream;
mod handshake;
mod options;
mod pool;
mod resolve;
mod transport;

pub use connect::{ConnectOptions, Connecting, Target, connect};
pub use datagram::{Datagrams, ReceiveDatagram, open as open_datagrams};
pub use downstream::{Downstream, Traffic};
pub use handshake::{Handshake, HandshakeError, Session};
pub use options::StreamOption;
use pool::Place;
pub use resolve::Bounds as NameBounds;
use transport::{Scratch, Transport};

/// The most that one `receive` gives: what a guest asks for beyond it takes another call, so that a
/// host buffer never grows with an answer (nginx: `lua_socket_buffer_size`, 4k or 8k there).
pub const RECEIVE_MOST: usize = 64 << 10;

/// What a plugin's sockets believe, and how many of them may rest.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Authorities and the certificate of its own.
    pub trust: Trust,
    /// Idle connections that a pool keeps when nothing is said.
    pub pool_size: usize,
    /// Idle connections of all the plugin's pools in a worker: names of pools come from guests.
    pub max_idle: usize,
    /// Of the names that it looks up.
    pub names: NameBounds,
}

/// Why a socket call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketError {
    /// The time-out passed.
    Timeout,
    /// The peer closed, or the socket was closed before.
    Closed,
    /// `allow.connect` does not name the target.
    Refused,
    /// Another task reads, or writes.
    Busy,
    /// The system's own text.
    Other(String),
}

impl SocketError {
    /// The system's text in lower case, as nginx writes it. A peer that ends TLS without saying so
    /// has closed, as everywhere since OpenSSL's `SSL_OP_IGNORE_UNEXPECTED_EOF`.
    fn system(error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::TimedOut && error.raw_os_error().is_none() {
            return Self::Timeout;
        }
        if error.kind() == std::io::ErrorKind::UnexpectedEof {
            return Self::Closed;
        }
        let text = match error.raw_os_error() {
            Some(code) => {
                let text = std::io::Error::from_raw_os_error(code).to_string();
                let end = text.find(" (os error").unwrap_or(text.len());
                text[..end].to_owned()
            }
            None => error.to_string(),
        };
        let mut text = text;
        if let Some(first) = text.get_mut(..1) {
            first.make_ascii_lowercase();
        }
        Self::Other(text)
    }

    fn other(text: &str) -> Self {
        Self::Other(text.to_owned())
    }
}

/// What a stream's users share.
struct Socket {
    /// `None`: closed, or back in its pool.
    transport: Option<Transport>,
    place: Option<Place>,
    reused: u32,
    /// It is the client's connection, which ends with its request.
    downstream: bool,
    reading: bool,
    writing: bool,
    /// Who waits, so that closing wakes them.
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Socket {
    fn close(&mut self) {
        if let Some(mut transport) = self.transport.take() {
            transport.say_goodbye();
        }
        self.place = None;
        for waker in [self.reader.take(), self.writer.take()]
            .into_iter()
            .flatten()
        {
            waker.wake();
        }
    }
}

/// A connected stream. Clones are the same stream.
#[derive(Clone)]
pub struct Stream(Arc<Mutex<Socket>>);

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

/// What can be closed from the outside.
trait Closable: std::marker::Send + Sync {
    fn close(&self);
}

impl Closable for Mutex<Socket> {
    fn close(&self) {
        self.lock().close();
    }
}

/// Closes a socket from the outside, if it still is there: what an exchange keeps of its sockets.
#[derive(Clone)]
pub struct Closer(Weak<dyn Closable>);

impl std::fmt::Debug for Closer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Closer").finish_non_exhaustive()
    }
}

impl Closer {
    fn new(socket: &Arc<dyn Closable>) -> Self {
        Self(Arc::downgrade(socket))
    }

    /// Closes the socket.
    pub fn close(&self) {
        if let Some(socket) = self.0.upgrade() {
            socket.close();
        }
    }

    /// Whether the socket is still there.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl Stream {
    fn new(transport: Transport, place: Place, reused: u32) -> Self {
        Self::with(transport, Some(place), reused)
    }

    fn with(transport: Transport, place: Option<Place>, reused: u32) -> Self {
        Self(Arc::new(Mutex::new(Socket {
            downstream: place.is_none(),
            transport: Some(transport),
            place,
            reused,
            reading: false,
            writing: false,
            reader: None,
            writer: None,
        })))
    }

    /// For who is to close it later.
    #[must_use]
    pub fn closer(&self) -> Closer {
        let shared: Arc<dyn Closable> = self.0.clone();
        Closer::new(&shared)
    }

    /// Closes it; calls under way end with `Closed`.
    pub fn close(&self) {
        self.0.lock().close();
    }

    /// How often the connection came out of a pool.
    #[must_use]
    pub fn reused(&self) -> u32 {
        self.0.lock().reused
    }

    /// Begins to receive at most `max` bytes.
    #[must_use]
    pub fn receive(&self, max: usize, timeout: Duration) -> Receive {
        let mine = !std::mem::replace(&mut self.0.lock().reading, true);
        Receive {
            stream: self.clone(),
            max: max.clamp(1, RECEIVE_MOST),
            limit: Limit::new(timeout),
            mine,
        }
    }

    /// Begins to send.
    #[must_use]
    pub fn send(&self, bytes: Vec<u8>, timeout: Duration) -> Send {
        let mine = !std::mem::replace(&mut self.0.lock().writing, true);
        Send {
            stream: self.clone(),
            bytes,
            sent: 0,
            limit: Limit::new(timeout),
            mine,
        }
    }

    /// Sets a socket option.
    ///
    /// # Errors
    /// The system's refusal, or that the stream is closed.
    pub fn set_option(&self, option: StreamOption, value: u32) -> Result<(), SocketError> {
        match &self.0.lock().transport {
            Some(transport) => options::set(transport, option, value),
            None => Err(SocketError::Closed),
        }
    }

    /// Reads a socket option.
    ///
    /// # Errors
    /// The system's refusal, or that the stream is closed.
    pub fn option(&self, option: StreamOption) -> Result<u32, SocketError> {
        match &self.0.lock().transport {
            Some(transport) => options::read(transport, option),
            None => Err(SocketError::Closed),
        }
    }

    /// Puts the connection into its pool; `idle` zero is no limit of time, `size` is for a pool that
    /// is not there yet and of which `connect` said nothing.
    ///
    /// # Errors
    /// When it is closed, in use, or not in a state in which another could go on with it.
    pub fn keep_alive(&self, idle: Duration, size: Option<usize>) -> Result<(), SocketError> {
        let mut socket = self.0.lock();
        if socket.reading || socket.writing {
            return Err(SocketError::Busy);
        }
        if socket.is_downstream() {
            return Err(SocketError::other("the client's connection has no pool"));
        }
        let Some(transport) = socket.transport.as_mut() else {
            return Err(SocketError::Closed);
        };
        if !transport.is_quiet() {
            return Err(SocketError::other("connection in dubious state"));
        }
        if let (Some(transport), Some(mut place)) = (socket.transport.take(), socket.place.take()) {
            let reused = socket.reused;
            drop(socket);
            place.bounds.size = place.bounds.size.or(size);
            pool::give_back(place, transport, reused, idle);
        }
        Ok(())
    }
}

/// A time-out that costs nothing until there is something to wait for, and no timer until somebody
/// waits.
#[derive(Debug)]
struct Limit {
    timeout: Duration,
    /// Counted from the first time that there was something to wait for.
    end: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Limit {
    fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            end: None,
            sleep: None,
        }
    }

    /// Counts from the next wait on anew.
    fn restart(&mut self) {
        self.end = None;
        self.sleep = None;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(sleep) = &mut self.sleep {
            return sleep.as_mut().poll(cx);
        }
        // Who only looks is not to be woken.
        if cx.waker().will_wake(Waker::noop()) {
            let now = Instant::now();
            return match *self.end.get_or_insert(now + self.timeout) <= now {
                true => Poll::Ready(()),
                false => Poll::Pending,
            };
        }
        let timeout = self.timeout;
        let end = *self.end.get_or_insert_with(|| Instant::now() + timeout);
        let sleep = self.sleep.insert(Box::pin(tokio::time::sleep_until(end)));
        sleep.as_mut().poll(cx)
    }
}

/// A `receive` under way.
#[derive(Debug)]
pub struct Receive {
    stream: Stream,
    max: usize,
    limit: Limit,
    mine: bool,
}

impl Receive {
    /// Polls; gives at least one byte.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<u8>, SocketError>> {
        if !self.mine {
            return Poll::Ready(Err(SocketError::Busy));
        }
        let mut socket = self.stream.0.lock();
        let Some(transport) = socket.transport.as_mut() else {
            return Poll::Ready(Err(SocketError::Closed));
        };
        match Scratch::receive(transport, cx, self.max) {
            Poll::Ready(Ok(bytes)) if bytes.is_empty() => Poll::Ready(Err(SocketError::Closed)),
            Poll::Ready(Ok(bytes)) => Poll::Ready(Ok(bytes)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(SocketError::system(&error))),
            Poll::Pending => {
                socket.reader = Some(cx.waker().clone());
                drop(socket);
                self.limit.poll(cx).map(|()| Err(SocketError::Timeout))
            }
        }
    }
}

impl Drop for Receive {
    fn drop(&mut self) {
        if self.mine {
            self.stream.0.lock().reading = false;
        }
    }
}

/// A `send` under way.
#[derive(Debug)]
pub struct Send {
    stream: Stream,
    bytes: Vec<u8>,
    sent: usize,
    limit: Limit,
    mine: bool,
}

impl Send {
    /// Polls until all is with the kernel.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SocketError>> {
        if !self.mine {
            return Poll::Ready(Err(SocketError::Busy));
        }
        let mut socket = self.stream.0.lock();
        loop {
            let Some(transport) = socket.transport.as_mut() else {
                return Poll::Ready(Err(SocketError::Closed));
            };
            let rest = &self.bytes[self.sent..];
            let step = if rest.is_empty() {
                transport.poll_flush(cx).map_ok(|()| 0)
            } else {
                transport.poll_write(cx, rest)
            };
            match step {
                Poll::Ready(Ok(_)) if self.sent == self.bytes.len() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(SocketError::Closed)),
                Poll::Ready(Ok(n)) => {
                    self.sent += n;
                    self.limit.restart();
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(SocketError::system(&error))),
                Poll::Pending => {
                    socket.writer = Some(cx.waker().clone());
                    drop(socket);
                    return self.limit.poll(cx).map(|()| Err(SocketError::Timeout));
                }
            }
        }
    }
}

impl Drop for Send {
    fn drop(&mut self) {
        if self.mine {
            self.stream.0.lock().writing = false;
        }
    }
}
