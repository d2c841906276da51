//! What carries a stream's bytes: TCP or a unix socket, later with TLS over it.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::RECEIVE_MOST;
use super::downstream::{Downstream, Reader};

/// An open connection.
#[derive(Debug)]
pub(super) enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
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
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
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
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Downstream(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Reader(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Downstream(stream) => Pin::new(stream).poll_flush(cx),
            Self::Reader(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Whether it is open and nothing waits to be read: another may go on with it.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0u8; 1];
        let mut cx = Context::from_waker(Waker::noop());
        self.poll_read(&mut cx, &mut ReadBuf::new(&mut byte))
            .is_pending()
    }
}

thread_local!(static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });

/// The buffer of a worker into which all its sockets read: what is handed on has its exact size.
pub(super) struct Scratch;

impl Scratch {
    pub(super) fn receive(
        transport: &mut Transport,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<io::Result<Vec<u8>>> {
        SCRATCH.with_borrow_mut(|scratch| {
            if scratch.is_empty() {
                scratch.resize(RECEIVE_MOST, 0);
            }
            let mut buffer = ReadBuf::new(&mut scratch[..max]);
            transport
                .poll_read(cx, &mut buffer)
                .map_ok(|()| buffer.filled().to_vec())
        })
    }
}
