//! What carries a stream's bytes: TCP or a unix socket, and TLS over either.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use super::RECEIVE_MOST;
use super::downstream::{Downstream, Reader};
use super::handshake::Session;

/// A connection of the system.
#[derive(Debug)]
pub(super) enum Plain {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsyncRead for Plain {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Plain {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// TLS over a connection, and what another may be resumed with.
#[derive(Debug)]
pub(super) struct Secured {
    pub(super) stream: TlsStream<Plain>,
    pub(super) session: Session,
}

/// An open connection.
#[derive(Debug)]
pub(super) enum Transport {
    Plain(Plain),
    /// Boxed: it is many times as large as the other.
    Tls(Box<Secured>),
    Downstream(Downstream),
    Reader(Reader),
}

impl Transport {
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(plain) => Pin::new(plain).poll_read(cx, buffer),
            Self::Tls(secured) => Pin::new(&mut secured.stream).poll_read(cx, buffer),
            Self::Downstream(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Reader(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(plain) => Pin::new(plain).poll_write(cx, bytes),
            Self::Tls(secured) => Pin::new(&mut secured.stream).poll_write(cx, bytes),
            Self::Downstream(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Reader(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(plain) => Pin::new(plain).poll_flush(cx),
            Self::Tls(secured) => Pin::new(&mut secured.stream).poll_flush(cx),
            Self::Downstream(stream) => Pin::new(stream).poll_flush(cx),
            Self::Reader(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Whether it is open and nothing waits to be read: another may go on with it. Asked without
    /// tokio's budget: a task that has used it up is told that everything is pending.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0u8; 1];
        let asked = std::future::poll_fn(|cx| self.poll_read(cx, &mut ReadBuf::new(&mut byte)));
        std::pin::pin!(tokio::task::unconstrained(asked))
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    }

    /// Tells the peer that no more comes, if the kernel has room for it right now: TLS tells an end
    /// from a cut.
    pub(super) fn say_goodbye(&mut self) {
        if let Self::Tls(secured) = self {
            let mut cx = Context::from_waker(Waker::noop());
            let _done = Pin::new(&mut secured.stream)
                .poll_shutdown(&mut cx)
                .is_ready();
        }
    }
}

thread_local!(static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });

/// The buffer of a worker into which all its sockets read: what is handed on has its exact size.
pub(super) struct Scratch;

impl Scratch {
    /// Lets at most `max` bytes be read into it, and gives a copy of what was.
    pub(super) fn fill(
        max: usize,
        read: impl FnOnce(&mut ReadBuf<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<io::Result<Vec<u8>>> {
        SCRATCH.with_borrow_mut(|scratch| {
            if scratch.is_empty() {
                scratch.resize(RECEIVE_MOST, 0);
            }
            let mut buffer = ReadBuf::new(&mut scratch[..max]);
            read(&mut buffer).map_ok(|()| buffer.filled().to_vec())
        })
    }

    pub(super) fn receive(
        transport: &mut Transport,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<io::Result<Vec<u8>>> {
        Self::fill(max, |buffer| transport.poll_read(cx, buffer))
    }
}
