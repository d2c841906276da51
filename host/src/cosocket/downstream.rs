//! The client's own connection as a stream, once it has left HTTP: what the HTTP reader had taken in
//! already comes first, and what goes over it is counted for `$bytes_sent` and for the sweep, which
//! ends connections that are silent for too long. And a request's body as a stream that is only read.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::transport::Transport;
use super::{Socket, Stream};

/// What has gone over a client's connection since it left HTTP.
#[derive(Debug, Default)]
pub struct Traffic {
    received: AtomicU64,
    sent: AtomicU64,
    told: AtomicBool,
}

impl Traffic {
    /// Bytes that were read of it.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes that were written to it.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether a read or a write has said that the client is gone.
    #[must_use]
    pub fn told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }

    fn tell(&self) {
        self.told.store(true, Ordering::Relaxed);
    }
}

/// The client's side of a stream.
#[derive(Debug)]
pub struct Downstream {
    /// Who knows the socket by its number; dropped before it, as fields are in their order.
    _noted: Box<dyn Any + Send + Sync>,
    pub(super) stream: TcpStream,
    before: Bytes,
    traffic: Arc<Traffic>,
}

impl Downstream {
    /// The socket itself.
    pub fn socket(&mut self) -> &mut TcpStream {
        &mut self.stream
    }
}

impl AsyncRead for Downstream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let begin = buffer.filled().len();
        let result = if this.before.is_empty() {
            std::task::ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))
        } else {
            let piece = this.before.len().min(buffer.remaining());
            buffer.put_slice(&this.before.split_to(piece));
            Ok(())
        };
        let came = buffer.filled().len() - begin;
        if came == 0 {
            this.traffic.tell();
        }
        this.traffic
            .received
            .fetch_add(came as u64, Ordering::Relaxed);
        Poll::Ready(result)
    }
}

impl AsyncWrite for Downstream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = std::task::ready!(Pin::new(&mut this.stream).poll_write(cx, bytes));
        match &result {
            Ok(sent) => {
                this.traffic.sent.fetch_add(*sent as u64, Ordering::Relaxed);
            }
            Err(_) => this.traffic.tell(),
        }
        Poll::Ready(result)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// Anything else that bytes can be read of.
pub(super) struct Reader(Pin<Box<dyn AsyncRead + Send>>);

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().0.as_mut().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Reader {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        _bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::Error::other("a body is only read")))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Socket {
    /// Whether it is the client's connection, or the body that comes over it.
    pub(super) fn is_downstream(&self) -> bool {
        self.downstream
    }
}

impl Stream {
    /// A client's connection; `before` was read of it already, and `noted` is dropped before it.
    #[must_use]
    pub fn of_client(
        noted: Box<dyn Any + Send + Sync>,
        stream: TcpStream,
        before: Bytes,
    ) -> (Self, Arc<Traffic>) {
        let traffic = Arc::new(Traffic::default());
        let transport = Transport::Downstream(Downstream {
            _noted: noted,
            stream,
            before,
            traffic: traffic.clone(),
        });
        (Self::with(transport, None, 0), traffic)
    }

    /// What is only read: a request's body.
    #[must_use]
    pub fn of_reader(reader: impl AsyncRead + Send + 'static) -> Self {
        let reader = Reader(Box::pin(reader));
        Self::with(Transport::Reader(reader), None, 0)
    }

    /// The guest's handle is gone. Its own connections end with it; the client's ends with its
    /// request, as in OpenResty.
    pub fn let_go(&self) {
        if !self.0.lock().is_downstream() {
            self.close();
        }
    }

    /// Takes a client's connection back; whoever still reads or writes finds it closed.
    #[must_use]
    pub fn take_back(&self) -> Option<Downstream> {
        let mut socket = self.0.lock();
        let transport = socket.transport.take();
        socket.close();
        match transport {
            Some(Transport::Downstream(downstream)) => Some(downstream),
            _ => None,
        }
    }

    /// Takes a client's connection out, to copy between it and another; what goes over it is counted
    /// as before.
    #[must_use]
    pub fn into_io(self) -> Option<impl AsyncRead + AsyncWrite + Unpin> {
        match self.0.lock().transport.take() {
            Some(Transport::Downstream(downstream)) => Some(downstream),
            _ => None,
        }
    }

    /// Whether the client has closed its side and nobody is about to learn it by reading.
    #[must_use]
    pub fn is_left(&self) -> bool {
        let socket = self.0.lock();
        match &socket.transport {
            Some(Transport::Downstream(downstream)) if !socket.reading => downstream
                .stream
                .ready(Interest::READABLE)
                .now_or_never()
                .and_then(Result::ok)
                .is_some_and(|ready| ready.is_read_closed()),
            _ => false,
        }
    }
}
