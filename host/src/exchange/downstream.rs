//! The client's connection leaves HTTP: who asks for it, what must be true before, and where the
//! connection puts it. From then on the exchange has no time limit but the guest's own. And the
//! request's body as a stream, for who reads it like a socket.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use super::body::BodyError;
use super::{Exchange, ExchangeId};
use crate::cosocket::{Stream, Traffic};

/// Why the connection cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Somebody has it.
    Taken,
    /// A part of the request's body has been read as such, or it comes in chunks and was not read.
    PendingBody,
    /// The request has no body.
    NoBody,
    /// Something that was written has not left yet.
    PendingOutput,
    /// HTTP/2, or a request inside the server: there is no connection of its own.
    NotOffered,
    /// The answer has ended, or the client is gone.
    Closed,
}

/// Where the client's connection is.
#[derive(Debug, Default)]
pub struct Downstream {
    /// Somebody wants it, or has it.
    asked: bool,
    /// Whoever wants it writes the answer's head, too.
    headless: bool,
    stream: Option<Stream>,
    waiter: Option<Waker>,
    /// What has gone over it since it left HTTP.
    pub traffic: Option<Arc<Traffic>>,
}

impl Downstream {
    /// Whether the connection is to leave HTTP now.
    #[must_use]
    pub fn wanted(&self) -> bool {
        self.asked && self.traffic.is_none()
    }

    /// Whether the connection has left HTTP.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.traffic.is_some()
    }

    /// Whether no head goes out before.
    #[must_use]
    pub fn headless(&self) -> bool {
        self.headless
    }

    /// Bytes that went to the client behind the head.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.traffic.as_ref().map_or(0, |traffic| traffic.sent())
    }

    /// Bytes that came from the client behind the request.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.traffic
            .as_ref()
            .map_or(0, |traffic| traffic.received())
    }

    /// The connection has left HTTP.
    pub fn give(&mut self, stream: Stream, traffic: Arc<Traffic>) {
        self.stream = Some(stream);
        self.traffic = Some(traffic);
        if let Some(waiter) = self.waiter.take() {
            waiter.wake();
        }
    }

    /// Waits for it.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Stream, Refusal>> {
        match self.stream.take() {
            Some(stream) => Poll::Ready(Ok(stream)),
            None if self.traffic.is_some() => Poll::Ready(Err(Refusal::Taken)),
            None => {
                self.waiter = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Exchange {
    /// Whether behind the answer's head the connection is not HTTP's any more.
    #[must_use]
    pub fn switches_protocols(&self) -> bool {
        self.response.status == http::StatusCode::SWITCHING_PROTOCOLS.as_u16()
            && self.request.version == http::Version::HTTP_11
            && self.connection.is_some()
    }

    /// The request's body as a stream, if nobody has begun to read it.
    ///
    /// # Errors
    /// `NoBody`, `Taken`, or `NotOffered` inside the server.
    pub fn open_body(&mut self, id: ExchangeId) -> Result<Stream, Refusal> {
        if self.family.depth != 0 {
            return Err(Refusal::NotOffered);
        }
        if self.body.is_none() {
            return Err(Refusal::NoBody);
        }
        if !self.body.take_streamed() {
            return Err(Refusal::Taken);
        }
        Ok(Stream::of_reader(BodyReader {
            id,
            serial: self.serial,
            rest: Bytes::new(),
        }))
    }

    /// Asks for the client's connection; [`Downstream::poll`] waits for it.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn ask_downstream(&mut self) -> Result<(), Refusal> {
        if self.request.version == http::Version::HTTP_2
            || self.family.depth != 0
            || self.connection.is_none()
        {
            return Err(Refusal::NotOffered);
        }
        if self.body.is_half_read() || self.body.is_chunked_and_unread() {
            return Err(Refusal::PendingBody);
        }
        let filtered = self.filtered.as_ref().map_or(0, |output| output.queued());
        if self.output.queued() + filtered > 0 {
            return Err(Refusal::PendingOutput);
        }
        if self.downstream.asked {
            return Err(Refusal::Taken);
        }
        if self.output.ended || self.output.broken || self.abort.is_some() {
            return Err(Refusal::Closed);
        }
        // What follows is said by whoever has the connection.
        self.output.end();
        self.downstream.asked = true;
        if !self.response.ready {
            self.response.ready = true;
            self.response.sent = true;
            self.downstream.headless = true;
        }
        self.wake();
        Ok(())
    }
}

/// Reads the body of one exchange.
struct BodyReader {
    id: ExchangeId,
    /// The slot may be another's by now.
    serial: u64,
    rest: Bytes,
}

impl AsyncRead for BodyReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            let piece = super::try_with(self.id, |x| match x.serial == self.serial {
                true => x.body.poll_piece(cx),
                false => Poll::Ready(Ok(None)),
            });
            match std::task::ready!(piece.unwrap_or(Poll::Ready(Ok(None)))) {
                Ok(piece) => self.rest = piece.unwrap_or_default(),
                Err(BodyError::TooLarge) => {
                    return Poll::Ready(Err(io::Error::other("request entity too large")));
                }
                Err(BodyError::Timeout) => return Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                Err(BodyError::Closed) => {
                    return Poll::Ready(Err(io::Error::other("client aborted")));
                }
                Err(BodyError::Taken) => {
                    return Poll::Ready(Err(io::Error::other("request body already exists")));
                }
            }
        }
        let size = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest.split_to(size));
        Poll::Ready(Ok(()))
    }
}
