//! Sockets: TCP and unix streams, with TLS where it is wanted, and datagrams. Needs
//! `allow.connect`.
//!
//! ```no_run
//! use phasor_plugin::{Answer, cosocket};
//!
//! #[phasor_plugin::content]
//! async fn ping() -> Result<Answer, cosocket::SocketError> {
//!     let mut stream = cosocket::connect("127.0.0.1", 6379).send().await?;
//!     stream.write(b"PING\r\n").await?;
//!     let line = stream.line().await?;
//!     stream.keep_alive(None)?;
//!     Ok(Answer::text(String::from_utf8_lossy(&line).into_owned()))
//! }
//! ```
//!
//! [`Stream`] keeps what has come and was not asked for, so that lines and exact amounts can be read;
//! [`Stream::receive`] gives what there is. A stream is closed with its exchange, or when it is dropped.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::bindings::phasor::plugin::cosocket as host;
use crate::task::Pending;

pub use host::{SocketError, StreamOption, TlsSession};

/// When nothing is said.
const TIMEOUT: u32 = 60_000;
/// What one call to the host asks for.
const PIECE: u32 = 64 << 10;

fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1)
}

/// A connection in the making.
#[derive(Clone, Debug)]
#[must_use = "send it"]
pub struct Connect {
    host: String,
    port: u16,
    pool: Option<String>,
    pool_size: u32,
    backlog: Option<u32>,
    local: Option<String>,
    timeout: u32,
}

/// To a host's port; `unix:/path` is a unix socket, whose port is not looked at.
pub fn connect(host: &str, port: u16) -> Connect {
    Connect {
        host: host.into(),
        port,
        pool: None,
        pool_size: 0,
        backlog: None,
        local: None,
        timeout: TIMEOUT,
    }
}

impl Connect {
    /// How long it may take, the name look-up and a place in the pool included; a minute otherwise.
    pub fn timeout(mut self, most: Duration) -> Self {
        self.timeout = milliseconds(most);
        self
    }

    /// Its pool's name; host and port otherwise. Connections with TLS need a pool of their own.
    pub fn pool(mut self, name: &str) -> Self {
        self.pool = Some(name.into());
        self
    }

    /// How many idle connections a new pool keeps.
    pub const fn pool_size(mut self, connections: u32) -> Self {
        self.pool_size = connections;
        self
    }

    /// Bounds the pool's connections, idle and in use, and lets so many callers wait for one.
    pub const fn backlog(mut self, waiting: u32) -> Self {
        self.backlog = Some(waiting);
        self
    }

    /// The local address, `IP` or `IP:PORT`.
    pub fn local(mut self, address: &str) -> Self {
        self.local = Some(address.into());
        self
    }

    /// Connects, or takes a connection out of the pool.
    pub fn send(&self) -> Pending<Result<Stream, SocketError>> {
        let options = host::ConnectOptions {
            timeout: self.timeout,
            pool: self.pool.as_deref(),
            pool_size: self.pool_size,
            backlog: self.backlog,
            local: self.local.as_deref(),
        };
        let end = |operation| host::Stream::end_connect(operation).map(Stream::new);
        match host::Stream::begin_connect(&self.host, self.port, options) {
            host::Connecting::Now(result) => Pending::ready(result.map(Stream::new), end),
            host::Connecting::Later(operation) => Pending::new(operation, end),
        }
    }
}

/// How a TLS handshake goes. It believes the authorities of the configuration, and wants a valid
/// certificate with the name.
#[derive(Clone, Debug)]
#[must_use = "give it to `Stream::handshake`"]
pub struct Tls {
    name: Option<String>,
    verify: bool,
    authorities: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Tls {
    /// To the server of this name: it is sent, and looked for in the certificate.
    pub fn to(name: &str) -> Self {
        Self {
            name: Some(name.into()),
            verify: true,
            authorities: None,
            identity: None,
        }
    }

    /// Takes any certificate: whoever stands between can read and change everything.
    pub fn unverified(mut self) -> Self {
        self.verify = false;
        self
    }

    /// Believes these authorities alone (PEM).
    pub fn authorities(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.authorities = Some(pem.into());
        self
    }

    /// Shows this certificate to a server that asks; both PEM.
    pub fn identity(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }
}

/// A connected stream.
#[derive(Debug)]
pub struct Stream {
    host: host::Stream,
    buffer: Vec<u8>,
    timeout: u32,
}

impl Stream {
    /// How long each of the following calls may take; a minute otherwise.
    pub fn set_timeout(&mut self, most: Duration) {
        self.timeout = milliseconds(most);
    }

    /// Makes it speak TLS. A session of an earlier connection to the same server may spare a part
    /// of the handshake.
    pub fn handshake(
        &self,
        tls: &Tls,
        session: Option<&TlsSession>,
    ) -> Pending<Result<(), SocketError>> {
        let identity = tls.identity.as_ref();
        let options = host::TlsOptions {
            timeout: self.timeout,
            server_name: tls.name.as_deref(),
            verify: tls.verify,
            authorities: tls.authorities.as_deref(),
            identity: identity.map(|(certificate, key)| host::TlsIdentity { certificate, key }),
        };
        let operation = self.host.begin_handshake(options, session);
        Pending::new(operation, host::Stream::end_handshake)
    }

    /// What a later handshake can resume; `None` without TLS.
    #[must_use]
    pub fn session(&self) -> Option<TlsSession> {
        self.host.session()
    }

    /// Sends all of it.
    pub fn write(&self, bytes: &[u8]) -> Pending<Result<(), SocketError>> {
        match self.host.begin_send(bytes, self.timeout) {
            host::Sending::Now(result) => Pending::ready(result, host::Stream::end_send),
            host::Sending::Later(operation) => Pending::new(operation, host::Stream::end_send),
        }
    }

    fn new(host: host::Stream) -> Self {
        Self {
            host,
            buffer: Vec::new(),
            timeout: TIMEOUT,
        }
    }

    fn more(&self, max: u32) -> Pending<Result<Vec<u8>, SocketError>> {
        match self.host.begin_receive(max, self.timeout) {
            host::Receiving::Now(result) => Pending::ready(result, host::Stream::end_receive),
            host::Receiving::Later(operation) => Pending::new(operation, host::Stream::end_receive),
        }
    }

    fn take(&mut self, n: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(n);
        core::mem::replace(&mut self.buffer, rest)
    }

    /// What there is: at least one byte, at most `max`.
    ///
    /// # Errors
    /// [`SocketError::Closed`] at the end; a time-out leaves the stream as it was.
    pub async fn receive(&mut self, max: usize) -> Result<Vec<u8>, SocketError> {
        if self.buffer.is_empty() {
            let most = u32::try_from(max).unwrap_or(PIECE).clamp(1, PIECE);
            return self.more(most).await;
        }
        let n = self.buffer.len().min(max.max(1));
        Ok(self.take(n))
    }

    /// Exactly so many bytes.
    ///
    /// # Errors
    /// As [`Self::receive`]; what has come stays.
    pub async fn exactly(&mut self, n: usize) -> Result<Vec<u8>, SocketError> {
        while self.buffer.len() < n {
            let piece = self.more(PIECE).await?;
            self.buffer.extend_from_slice(&piece);
        }
        Ok(self.take(n))
    }

    /// All up to the mark, which is taken and not given.
    ///
    /// # Errors
    /// As [`Self::receive`]; what has come stays.
    pub async fn until(&mut self, mark: &[u8]) -> Result<Vec<u8>, SocketError> {
        let mut from = 0;
        loop {
            let place = self.buffer[from..]
                .windows(mark.len().max(1))
                .position(|window| window == mark);
            if let Some(place) = place {
                let mut found = self.take(from + place + mark.len());
                found.truncate(from + place);
                return Ok(found);
            }
            // The mark's beginning may be there already.
            from = self.buffer.len().saturating_sub(mark.len());
            let piece = self.more(PIECE).await?;
            self.buffer.extend_from_slice(&piece);
        }
    }

    /// A line without its end.
    ///
    /// # Errors
    /// As [`Self::receive`]; what has come stays.
    pub async fn line(&mut self) -> Result<Vec<u8>, SocketError> {
        let mut line = self.until(b"\n").await?;
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(line)
    }

    /// All until the peer closes; more than `limit` bytes are an error.
    ///
    /// # Errors
    /// A time-out or the system's own; what has come stays.
    pub async fn all(&mut self, limit: usize) -> Result<Vec<u8>, SocketError> {
        loop {
            if self.buffer.len() > limit {
                return Err(SocketError::Other("too large".into()));
            }
            match self.more(PIECE).await {
                Ok(piece) => self.buffer.extend_from_slice(&piece),
                Err(SocketError::Closed) => return Ok(core::mem::take(&mut self.buffer)),
                Err(error) => return Err(error),
            }
        }
    }

    /// Puts the connection into its pool, for at most `idle`.
    ///
    /// # Errors
    /// When unread bytes wait, here or in the kernel, or the peer has closed.
    pub fn keep_alive(self, idle: Option<Duration>) -> Result<(), SocketError> {
        if !self.buffer.is_empty() {
            return Err(SocketError::Other("unread data in buffer".into()));
        }
        host::Stream::keep_alive(self.host, idle.map_or(0, milliseconds), 0)
    }

    /// How often the connection came out of a pool.
    #[must_use]
    pub fn reused(&self) -> u32 {
        self.host.reused()
    }

    /// Sets a socket option.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn set_option(&self, option: StreamOption, value: u32) -> Result<(), SocketError> {
        self.host.set_option(option, value)
    }

    /// Reads a socket option.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn option(&self, option: StreamOption) -> Result<u32, SocketError> {
        self.host.get_option(option)
    }
}

/// Makes a socket of datagrams whose peer this is; `unix:/path` is a unix socket. `local` is the
/// local address, `IP` or `IP:PORT`.
pub fn datagrams(
    host: &str,
    port: u16,
    local: Option<&str>,
) -> Pending<Result<Datagrams, SocketError>> {
    let operation = host::Datagram::begin_connect(host, port, local, TIMEOUT);
    Pending::new(operation, |operation| {
        let host = host::Datagram::end_connect(operation)?;
        Ok(Datagrams(host))
    })
}

/// Datagrams with one peer. Closed with its exchange, or when it is dropped.
#[derive(Debug)]
pub struct Datagrams(host::Datagram);

impl Datagrams {
    /// Sends one; never waits.
    ///
    /// # Errors
    /// The system's own: of this one, or of an earlier one that nobody took.
    pub fn send(&self, bytes: &[u8]) -> Result<(), SocketError> {
        self.0.send(bytes)
    }

    /// Receives one; what is longer than `max` is cut off.
    pub fn receive(&self, max: u32, most: Duration) -> Pending<Result<Vec<u8>, SocketError>> {
        match self.0.begin_receive(max, milliseconds(most)) {
            host::Receiving::Now(result) => Pending::ready(result, host::Datagram::end_receive),
            host::Receiving::Later(operation) => {
                Pending::new(operation, host::Datagram::end_receive)
            }
        }
    }
}
