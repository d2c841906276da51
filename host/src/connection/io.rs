//! The socket as hyper sees it, with an eye on what comes and goes: that is how idle and slow clients
//! are told from busy ones.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::sockets::ClientSocket;
use super::{Control, Doing, Order, Site};

/// Sweeps that a client which closed its half may wait for an answer.
pub(super) const PATIENCE: u64 = 3;

/// What a client gets whose head did not come in time.
const TIMED_OUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nServer: phasor\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// A socket that keeps the end of a client's side back while its request is in progress: a client
/// may close its half and still wait. The sweep lets the end through when that takes long, as nginx
/// takes such a client for gone (499).
struct Held {
    /// Shared with the sweep, which looks whether the client is still there.
    client: Rc<RefCell<ClientSocket>>,
    /// What has been read already and comes first.
    before: Bytes,
    control: Rc<Control>,
    site: Rc<Site>,
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.before.is_empty() {
            let piece = self.before.len().min(buf.remaining());
            buf.put_slice(&self.before.split_to(piece));
            return Poll::Ready(Ok(()));
        }
        if self.control.half_closed.get().is_none() {
            let before = buf.filled().len();
            let result = Pin::new(&mut self.client.borrow_mut().stream).poll_read(cx, buf);
            if !matches!(result, Poll::Ready(Ok(()))) || buf.filled().len() != before {
                return result;
            }
            self.control.half_closed.set(Some(self.site.clock.get()));
        }
        let since = self.control.half_closed.get().unwrap_or(0);
        if self.control.in_progress.get() == 0 || self.site.clock.get() - since > PATIENCE {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }
}

impl AsyncWrite for Held {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.client.borrow_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.client.borrow_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.client.borrow_mut().stream).poll_shutdown(cx)
    }
}

/// A socket under watch.
pub(super) struct Io {
    inner: TokioIo<Held>,
    control: Rc<Control>,
    site: Rc<Site>,
}

impl Io {
    pub(super) fn new(client: ClientSocket, control: Rc<Control>, site: Rc<Site>) -> Self {
        let client = Rc::new(RefCell::new(client));
        *control.client.borrow_mut() = Rc::downgrade(&client);
        let held = Held {
            client,
            before: Bytes::new(),
            control: control.clone(),
            site: site.clone(),
        };
        Self {
            inner: TokioIo::new(held),
            control,
            site,
        }
    }

    /// Whose connection it is.
    pub(super) fn control(&self) -> &Rc<Control> {
        &self.control
    }

    /// Where it belongs.
    pub(super) fn site(&self) -> &Rc<Site> {
        &self.site
    }

    /// Puts bytes back that have been read.
    pub(super) fn put_back(&mut self, bytes: Bytes) {
        self.inner.inner_mut().before = bytes;
    }

    /// The socket, and what was read of it and put back; `None` while somebody looks at it.
    pub(super) fn into_parts(self) -> Option<(ClientSocket, Bytes)> {
        let held = self.inner.into_inner();
        let client = Rc::into_inner(held.client)?;
        Some((client.into_inner(), held.before))
    }

    /// Whether bytes wait that were put back.
    pub(super) fn has_bytes_put_back(&self) -> bool {
        !self.inner.inner().before.is_empty()
    }

    /// Waits until there is something to read: bytes, or the end.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner
            .inner()
            .client
            .borrow()
            .stream
            .poll_read_ready(cx)
    }

    /// Reads what is there.
    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.inner().client.borrow().stream.try_read(buffer)
    }

    fn wrote<T>(&self, result: &Poll<T>) {
        match result {
            Poll::Ready(_) => self.control.stalled.set(None),
            Poll::Pending if self.control.stalled.get().is_none() => {
                self.control.stalled.set(Some(self.site.clock.get()))
            }
            Poll::Pending => {}
        }
    }
}

impl Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.control.order.get() == Some(Order::TimeOut) {
            self.control.order.set(None);
            // A client that does not even take this is gone either way.
            let _sent = Pin::new(&mut self.inner)
                .poll_write(cx, TIMED_OUT)
                .is_ready();
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        if result.is_ready() && self.control.doing.get() == Doing::Idle {
            self.control.enter(Doing::Head, self.site.clock.get());
        }
        result
    }
}

impl Write for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.wrote(&result);
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// How the client's side of a socket is that nobody reads now.
pub(super) enum Side {
    /// Open, as far as one can tell.
    Open,
    /// It has closed its half.
    Closed,
    /// It is gone.
    Gone,
}

/// Looks at a socket without taking anything from it. Costs no system call unless something came.
pub(super) fn look(stream: &TcpStream) -> Side {
    let seen = stream.try_io(Interest::READABLE, || {
        let mut first = [std::mem::MaybeUninit::uninit()];
        socket2::SockRef::from(stream).peek(&mut first)
    });
    match seen {
        Ok(0) => Side::Closed,
        Ok(_) => Side::Open,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Side::Open,
        Err(_) => Side::Gone,
    }
}
