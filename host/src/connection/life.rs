//! The life of a connection: it sleeps with nothing but its socket until bytes come, hyper speaks
//! HTTP on it, and when it has been idle for a while it gives its buffers back and sleeps again.
//!
//! hyper keeps 16 KiB for each connection; a gateway with ten thousand clients that keep their
//! connections alive would hold 160 MiB for nothing.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use hyper::rt::Write as _;
use hyper::server::conn::{http1, http2};

use super::io::Io;
use super::service::RequestService;
use super::tunnel::{self, Leaving};
use super::{Doing, Order};
use crate::local_executor::LocalExecutor;

/// How a client that speaks HTTP/2 without TLS begins (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Requests that one HTTP/2 connection may have in progress (nginx: `http2_max_concurrent_streams`).
const STREAMS: u32 = 128;
/// hyper's least buffer; a smaller `header_limit` is checked on the parsed head.
const LEAST_BUFFER: usize = 8192;
/// What is read at once of the first bytes; hyper reads the rest.
const FIRST_READ: usize = 4096;

thread_local!(static FIRST: RefCell<Vec<u8>> = RefCell::new(vec![0; FIRST_READ]));

/// Lives until the connection ends.
pub(super) async fn live(mut io: Io) {
    let Some(first) = first_bytes(&io).await else {
        return;
    };
    let is_http2 = first.starts_with(PREFACE);
    io.put_back(first);
    if is_http2 {
        return Box::pin(http2(io)).await;
    }
    loop {
        let rested = match http1(io).await {
            Next::Rest(rested) => rested,
            Next::Leave(io, leaving) => return Box::pin(tunnel::serve(io, *leaving)).await,
            Next::End => return,
        };
        if !rested.has_bytes_put_back() && !readable(&rested).await {
            return;
        }
        io = rested;
    }
}

/// Waits for something to read; false when the connection is to end.
async fn readable(io: &Io) -> bool {
    let control = io.control();
    poll_fn(|cx| {
        control.register(cx.waker());
        match control.order.take() {
            Some(Order::Finish | Order::Drop) => return Poll::Ready(false),
            Some(Order::TimeOut) => {
                control.order.set(Some(Order::TimeOut));
                return Poll::Ready(true);
            }
            Some(Order::Sleep) | None => {}
        }
        io.poll_readable(cx).map(|ready| ready.is_ok())
    })
    .await
}

/// Reads so much that the protocol is known; `None` when the connection ends before.
async fn first_bytes(io: &Io) -> Option<Bytes> {
    let mut bytes = BytesMut::new();
    loop {
        if !readable(io).await {
            return None;
        }
        let read = FIRST.with_borrow_mut(|buffer| {
            let read = io.try_read(buffer)?;
            bytes.extend_from_slice(buffer.get(..read).unwrap_or_default());
            Ok::<_, std::io::Error>(read)
        });
        let timed_out = io.control().order.get() == Some(Order::TimeOut);
        match read {
            Ok(0) if bytes.is_empty() => return None,
            Ok(_) if io.control().doing.get() == Doing::Idle => {
                io.control().enter(Doing::Head, io.site().clock.get());
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && !timed_out => continue,
            Err(_) if timed_out => {}
            Err(_) => return None,
        }
        let may_be_http2 = bytes.len() < PREFACE.len() && PREFACE.starts_with(&bytes);
        if !may_be_http2 || timed_out || matches!(read, Ok(0)) {
            return Some(bytes.freeze());
        }
    }
}

fn header_limit(io: &Io) -> usize {
    let served = io.site().served.borrow();
    served.generation.config.server.header_limit
}

/// What becomes of a connection that HTTP/1 is done with.
enum Next {
    /// It has ended.
    End,
    /// It is idle and can be put to sleep.
    Rest(Io),
    /// It leaves HTTP.
    Leave(Io, Box<Leaving>),
}

/// What ended the work of hyper.
enum Stop {
    Drop,
    Rest,
    /// hyper is through; what is left is to say so.
    Ended,
    Leave(Box<Leaving>),
}

/// Speaks HTTP/1 until it is done with the connection.
async fn http1(io: Io) -> Next {
    let control = io.control().clone();
    let limit = header_limit(&io).max(LEAST_BUFFER);
    let service = RequestService::new(io.site().clone(), control.clone());
    let mut connection = Box::new(
        http1::Builder::new()
            .writev(false)
            // The sweep looks for clients that leave in the middle of a request.
            .half_close(true)
            .max_buf_size(limit)
            .serve_connection(io, service),
    );
    control.http1.set(true);
    let stop = poll_fn(|cx| {
        control.register(cx.waker());
        match control.order.take() {
            Some(Order::Drop) => return Poll::Ready(Stop::Drop),
            Some(Order::Finish) => Pin::new(&mut *connection).graceful_shutdown(),
            // The reader sees it: it answers 408 in place of what is missing of the head.
            Some(Order::TimeOut) => control.order.set(Some(Order::TimeOut)),
            Some(Order::Sleep) if control.is_at_rest() => return Poll::Ready(Stop::Rest),
            Some(Order::Sleep) | None => {}
        }
        // How a connection ends is its client's business: nothing depends on it.
        let ended = connection.poll_without_shutdown(cx).is_ready();
        match control.take_leaving() {
            Some(leaving) => Poll::Ready(Stop::Leave(leaving)),
            None if ended && control.is_leaving() => Poll::Pending,
            None if ended => Poll::Ready(Stop::Ended),
            None => Poll::Pending,
        }
    })
    .await;
    control.http1.set(false);
    let parts = connection.into_parts();
    let mut io = parts.io;
    if let Stop::Leave(leaving) = stop {
        io.put_back(parts.read_buf);
        return Next::Leave(io, leaving);
    }
    if matches!(stop, Stop::Ended) {
        // The client may be gone already.
        let _said = poll_fn(|cx| Pin::new(&mut io).poll_shutdown(cx))
            .await
            .is_ok();
    }
    if !matches!(stop, Stop::Rest) {
        control.forget_leaving();
        return Next::End;
    }
    if !parts.read_buf.is_empty() {
        // The beginning of a head that came behind the last request.
        control.enter(Doing::Head, io.site().clock.get());
        io.put_back(parts.read_buf);
    }
    Next::Rest(io)
}

/// Speaks HTTP/2 until the connection ends.
async fn http2(io: Io) {
    let control = io.control().clone();
    let limit = u32::try_from(header_limit(&io)).unwrap_or(u32::MAX);
    let service = RequestService::new(io.site().clone(), control.clone());
    let mut connection = http2::Builder::new(LocalExecutor)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(limit)
        .serve_connection(io, service);
    poll_fn(|cx| {
        control.register(cx.waker());
        match control.order.take() {
            Some(Order::Drop) => return Poll::Ready(()),
            Some(Order::Finish) => Pin::new(&mut connection).graceful_shutdown(),
            Some(Order::TimeOut) => control.order.set(Some(Order::TimeOut)),
            Some(Order::Sleep) | None => {}
        }
        Pin::new(&mut connection).poll(cx).map(|_ended| ())
    })
    .await;
}
