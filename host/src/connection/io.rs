//! The socket as hyper sees it, with an eye on what comes and goes: that is how idle and slow clients
//! are told from busy ones.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Control, Doing, Order, Site};

/// What a client gets whose head did not come in time.
const TIMED_OUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nServer: phasor\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// A socket under watch.
pub(super) struct Io {
    inner: TokioIo<TcpStream>,
    control: Rc<Control>,
    site: Rc<Site>,
}

impl Io {
    pub(super) fn new(inner: TokioIo<TcpStream>, control: Rc<Control>, site: Rc<Site>) -> Self {
        Self {
            inner,
            control,
            site,
        }
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

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
