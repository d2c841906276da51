//! The client's side of a request as a socket: its body, or the whole connection, for WebSockets and
//! other protocols that begin with a request.
//!
//! ```no_run
//! use phasor_plugin::{Verdict, downstream};
//!
//! #[phasor_plugin::content]
//! async fn echo() -> Verdict {
//!     let Ok(client) = downstream::upgrade("echo", &[]).await else {
//!         return Verdict::Exit(426);
//!     };
//!     while let Ok(bytes) = client.receive(4096).await {
//!         if client.send(&bytes).await.is_err() {
//!             break;
//!         }
//!     }
//!     Verdict::Done
//! }
//! ```

use alloc::vec::Vec;
use core::time::Duration;

use crate::bindings::phasor::plugin::cosocket::{Receiving, Sending, Stream};
use crate::bindings::phasor::plugin::downstream as host;
use crate::bindings::phasor::plugin::{request, response};
use crate::task::Pending;

pub use crate::bindings::phasor::plugin::cosocket::SocketError;
pub use host::DownstreamError;

/// When nothing is said.
const TIMEOUT: u32 = 60_000;
/// HTTP/1.1 as the host numbers it.
const HTTP_11: u8 = 11;

/// The client's side. One call may receive while another sends. It ends with the request, not when
/// it is dropped.
#[derive(Debug)]
pub struct Downstream {
    host: Stream,
    timeout: u32,
}

impl Downstream {
    fn new(host: Stream) -> Self {
        Self {
            host,
            timeout: TIMEOUT,
        }
    }

    /// How long one call may wait; a minute otherwise.
    pub fn set_timeout(&mut self, most: Duration) {
        self.timeout = u32::try_from(most.as_millis()).unwrap_or(u32::MAX).max(1);
    }

    /// Receives what there is, at least one byte and at most `most`.
    pub async fn receive(&self, most: u32) -> Result<Vec<u8>, SocketError> {
        match self.host.begin_receive(most, self.timeout) {
            Receiving::Now(result) => result,
            Receiving::Later(operation) => Pending::new(operation, Stream::end_receive).await,
        }
    }

    /// Sends all of it.
    pub async fn send(&self, bytes: &[u8]) -> Result<(), SocketError> {
        match self.host.begin_send(bytes, self.timeout) {
            Sending::Now(result) => result,
            Sending::Later(operation) => Pending::new(operation, Stream::end_send).await,
        }
    }
}

/// The request's body; it ends with [`SocketError::Closed`].
pub fn body() -> Result<Downstream, DownstreamError> {
    host::body().map(Downstream::new)
}

/// The connection itself, both ways. If nothing has been answered yet, the whole answer is this
/// socket's matter.
pub fn take() -> Pending<Result<Downstream, DownstreamError>> {
    Pending::new(host::begin_take(), |operation| {
        host::end_take(operation).map(Downstream::new)
    })
}

/// Answers `101 Switching Protocols` with these headers, and takes the connection.
pub async fn upgrade(
    protocol: &str,
    headers: &[(&str, &[u8])],
) -> Result<Downstream, DownstreamError> {
    if request::head().version != HTTP_11 {
        return Err(DownstreamError::NotOffered);
    }
    let begun = || -> Result<(), response::ResponseError> {
        response::set_status(101)?;
        response::set_header("upgrade", &[protocol.as_bytes()])?;
        response::set_header("connection", &[b"upgrade"])?;
        for (name, value) in headers {
            response::set_header(name, &[value])?;
        }
        response::write(&[])
    };
    match begun() {
        Ok(()) => take().await,
        Err(_) => Err(DownstreamError::Closed),
    }
}
