//! The request's body: read when somebody asks for it, within a limit, and kept if it is read whole.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};

/// Where the bytes come from: hyper's body, or nothing. A trait object keeps hyper out of this layer.
pub type Source =
    Pin<Box<dyn Body<Data = Bytes, Error = Box<dyn std::error::Error + Send + Sync>>>>;

/// Why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// Longer than allowed.
    TooLarge,
    /// The client sent nothing for too long.
    Timeout,
    /// The client is gone, or broke the protocol.
    Closed,
    /// It was read piecewise or discarded.
    Taken,
}

/// A request's body.
#[derive(Default)]
pub struct RequestBody {
    source: Option<Source>,
    kept: BytesMut,
    whole: Option<Bytes>,
    failed: Option<BodyError>,
    streamed: bool,
    timed_out: bool,
    waiter: Option<Waker>,
    quiet: u32,
    read: u64,
    /// The route's `body_limit`; 0 is none.
    pub limit: u64,
    /// What `Content-Length` says.
    pub announced: Option<u64>,
}

impl std::fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestBody")
            .field("read", &self.read)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl RequestBody {
    /// A body that is still to be read; `None` is an empty one.
    #[must_use]
    pub fn new(source: Option<Source>) -> Self {
        let announced = source.as_ref().and_then(|s| s.size_hint().exact());
        let whole = if source.is_none() {
            Some(Bytes::new())
        } else {
            None
        };
        Self {
            source,
            whole,
            announced,
            ..Self::default()
        }
    }

    /// The body, if it has been read whole.
    #[must_use]
    pub fn whole(&self) -> Option<&Bytes> {
        self.whole.as_ref()
    }

    /// Why it could not be read, if it could not.
    #[must_use]
    pub fn failure(&self) -> Option<BodyError> {
        self.failed
    }

    /// Bytes read from the client so far.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.read
    }

    /// Whether chunks of it wait that nobody has read. The HTTP reader has taken in a part of them and
    /// does not say where in a chunk it stands, so that the rest is no use to anybody else.
    #[must_use]
    pub fn is_chunked_and_unread(&self) -> bool {
        self.source.is_some() && self.announced.is_none()
    }

    /// Whether the client has still bytes to send.
    #[must_use]
    pub fn unread(&self) -> bool {
        self.source.is_some()
    }

    /// Whether a part of it, not all, has been read.
    #[must_use]
    pub fn is_half_read(&self) -> bool {
        self.source.is_some() && (self.read > 0 || self.waiter.is_some())
    }

    /// Whether the request came without one.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.source.is_none()
            && self.read == 0
            && !self.streamed
            && self.whole.as_ref().is_some_and(Bytes::is_empty)
    }

    /// One reader takes it as it comes; false when another has it.
    pub fn take_streamed(&mut self) -> bool {
        let untouched = self.source.is_some() && !self.is_half_read() && !self.streamed;
        self.streamed |= untouched;
        untouched
    }

    /// The connection has left HTTP: what has not been read is not a body any more. Gives what the
    /// HTTP reader had taken in already; until now it must not know that nobody reads a body, or it
    /// would throw the rest away.
    pub fn leave(&mut self) -> Bytes {
        let mut before = BytesMut::new();
        let mut cx = Context::from_waker(Waker::noop());
        if let Some(mut source) = self.source.take() {
            while let Poll::Ready(Some(Ok(frame))) = source.as_mut().poll_frame(&mut cx) {
                if let Ok(data) = frame.into_data() {
                    before.extend_from_slice(&data);
                }
            }
        }
        self.whole.get_or_insert_default();
        before.freeze()
    }

    /// Puts another body in its place.
    pub fn replace(&mut self, body: Bytes) {
        self.source = None;
        self.failed = None;
        self.streamed = false;
        self.whole = Some(body);
    }

    /// Counts one sweep during which somebody waited for the client; after `most` of them the wait
    /// ends (nginx: `client_body_timeout`).
    pub fn count_quiet(&mut self, most: u32) {
        if self.waiter.is_none() {
            return;
        }
        self.quiet += 1;
        if self.quiet > most {
            self.timed_out = true;
            if let Some(waiter) = self.waiter.take() {
                waiter.wake();
            }
        }
    }

    /// Reads on until the end; the bytes are kept.
    pub fn poll_whole(
        &mut self,
        cx: &mut Context<'_>,
        limit: u64,
    ) -> Poll<Result<Bytes, BodyError>> {
        if let Some(whole) = &self.whole {
            let fits = limit == 0 || whole.len() as u64 <= limit;
            return Poll::Ready(if fits {
                Ok(whole.clone())
            } else {
                Err(BodyError::TooLarge)
            });
        }
        if self.streamed {
            return Poll::Ready(Err(BodyError::Taken));
        }
        let limit = match (limit, self.limit) {
            (0, limit) | (limit, 0) => limit,
            (a, b) => a.min(b),
        };
        if limit != 0 && self.announced.is_some_and(|n| n > limit) {
            self.failed = Some(BodyError::TooLarge);
            return Poll::Ready(Err(BodyError::TooLarge));
        }
        loop {
            match std::task::ready!(self.poll_source(cx, limit)) {
                Ok(Some(bytes)) => self.kept.extend_from_slice(&bytes),
                Ok(None) => {
                    let whole = std::mem::take(&mut self.kept).freeze();
                    self.whole = Some(whole.clone());
                    return Poll::Ready(Ok(whole));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Reads the next piece; it is not kept.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        if let Some(whole) = &mut self.whole {
            let rest = std::mem::take(whole);
            return Poll::Ready(Ok((!rest.is_empty()).then_some(rest)));
        }
        self.streamed = true;
        if !self.kept.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.kept).freeze())));
        }
        self.poll_source(cx, self.limit)
    }

    fn poll_source(
        &mut self,
        cx: &mut Context<'_>,
        limit: u64,
    ) -> Poll<Result<Option<Bytes>, BodyError>> {
        if let Some(error) = self.failed {
            return Poll::Ready(Err(error));
        }
        let Some(source) = &mut self.source else {
            return Poll::Ready(Ok(None));
        };
        loop {
            let result = match source.as_mut().poll_frame(cx) {
                Poll::Pending if self.timed_out => Err(BodyError::Timeout),
                Poll::Pending => {
                    self.waiter = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(None) => {
                    self.source = None;
                    Ok(None)
                }
                Poll::Ready(Some(Err(_))) => Err(BodyError::Closed),
                Poll::Ready(Some(Ok(frame))) => match Frame::into_data(frame) {
                    Err(_trailers) => continue,
                    Ok(data) => {
                        self.read += data.len() as u64;
                        if limit != 0 && self.read > limit {
                            Err(BodyError::TooLarge)
                        } else {
                            Ok(Some(data))
                        }
                    }
                },
            };
            self.waiter = None;
            self.quiet = 0;
            if let Err(error) = &result {
                self.failed = Some(*error);
                self.kept.clear();
            }
            return Poll::Ready(result);
        }
    }
}
