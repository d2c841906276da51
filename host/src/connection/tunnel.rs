//! A connection that has left HTTP: a WebSocket, another protocol behind a `101`, or a handler that
//! asked for the client's socket. The handler has the socket; here its exchange is driven to its
//! end, and a client that is gone or silent for too long is noticed.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::body::{Driver, Running};
use super::io::{Io, PATIENCE};
use super::{Control, Order};
use crate::cosocket::{Stream, Traffic};
use crate::exchange::{self, ExchangeId};
use crate::reactor;

/// Sweeps between two looks whether a client has left whom nobody reads.
const LOOK: u64 = 10;
/// Sweeps that a handler has to end after its socket was closed for silence.
const FAREWELL: u64 = 50;
/// What a client may take to see the end before the connection is reset (nginx: `lingering_timeout`).
const LINGER: Duration = Duration::from_secs(5);
/// What is read and forgotten at a time meanwhile.
const FORGOTTEN: usize = 4096;

/// An exchange whose connection leaves HTTP, and what works for it.
pub(super) struct Leaving {
    pub(super) running: Running,
    pub(super) driver: Option<Driver>,
}

/// The open socket, as the sweep sees it.
pub(super) struct Tunnel {
    stream: Stream,
    traffic: Arc<Traffic>,
    moved: Cell<u64>,
    since: Cell<u64>,
    left: Cell<Option<u64>>,
    /// When it was closed for its silence.
    closed: Cell<Option<u64>>,
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}

impl Tunnel {
    /// Looks after the client; true when it is gone and its handler does not know.
    pub(super) fn sweep(&self, now: u64, silence: u64) -> bool {
        if let Some(closed) = self.closed.get() {
            return now - closed > FAREWELL;
        }
        let moved = self.traffic.received() + self.traffic.sent();
        if moved != self.moved.replace(moved) {
            self.since.set(now);
        } else if silence > 0 && now - self.since.get() > silence {
            // Who reads is told so; who does not is ended a little later.
            self.stream.close();
            self.closed.set(Some(now));
            return false;
        }
        let look = self.left.get().is_some() || now.is_multiple_of(LOOK);
        if !look || self.traffic.told() {
            return false;
        }
        if !self.stream.is_left() {
            self.left.set(None);
            return false;
        }
        let since = self.left.get().unwrap_or(now);
        self.left.set(Some(since));
        now - since > PATIENCE
    }
}

/// How the work on an exchange ended.
enum End {
    Done,
    /// The client has left, and nobody has told the handler.
    Left,
}

/// Serves the exchange until it is over.
pub(super) async fn serve(io: Io, leaving: Leaving) {
    let Leaving { running, driver } = leaving;
    let (control, site) = (io.control().clone(), io.site().clone());
    let id = running.id;
    let Some((socket, unread)) = io.into_parts() else {
        return running.client_left(driver);
    };
    let before = join(exchange::with(id, |x| x.body.leave()), unread);
    let (noted, socket) = socket.into_parts();
    let (stream, traffic) = Stream::of_client(noted, socket, before);
    *control.tunnel.borrow_mut() = Some(Rc::new(Tunnel {
        stream: stream.clone(),
        traffic: traffic.clone(),
        moved: Cell::new(0),
        since: Cell::new(site.clock.get()),
        left: Cell::new(None),
        closed: Cell::new(None),
    }));
    exchange::with(id, |x| {
        x.deadline = exchange::never(x.started);
        x.downstream.give(stream.clone(), traffic);
    });
    let send_timeout = site.served().generation.config.server.send_timeout;
    let mut work = Work {
        driver,
        written: Written {
            id,
            stream: stream.clone(),
            send: None,
            timeout: send_timeout,
        },
    };
    let end = poll_fn(|cx| {
        control.register(cx.waker());
        match control.order.take() {
            Some(Order::Drop) => return Poll::Ready(End::Left),
            // It ends with its handler anyway, or when the drain is over.
            Some(Order::Finish | Order::TimeOut | Order::Sleep) | None => {}
        }
        work.poll(cx)
    })
    .await;
    control.tunnel.borrow_mut().take();
    let Work {
        driver, written, ..
    } = work;
    drop(written);
    let socket = stream.take_back();
    match end {
        End::Done => {
            running.over();
            if let Some(mut socket) = socket {
                linger(socket.socket(), &control).await;
            }
        }
        End::Left => running.client_left(driver),
    }
}

/// Two pieces as one; mostly one of them is empty.
fn join(first: Bytes, second: Bytes) -> Bytes {
    match (first.is_empty(), second.is_empty()) {
        (true, _) => second,
        (_, true) => first,
        _ => [first, second].concat().into(),
    }
}

/// What is at work: the engine, and what the handler wrote as a body before it had the socket.
struct Work {
    driver: Option<Driver>,
    written: Written,
}

impl Work {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Some(driver) = &mut self.driver
            && driver.as_mut().poll(cx).is_ready()
        {
            self.driver = None;
        }
        if self.written.poll(cx).is_ready() && self.driver.is_none() {
            return Poll::Ready(End::Done);
        }
        Poll::Pending
    }
}

/// Sends the body of a `101`: it is the first that the other protocol says.
struct Written {
    id: ExchangeId,
    stream: Stream,
    send: Option<crate::cosocket::Send>,
    timeout: Duration,
}

impl Written {
    /// Ready when there is nothing to send now.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(send) = &mut self.send {
                let sent = std::task::ready!(send.poll(cx));
                self.send = None;
                if sent.is_err() {
                    exchange::with(self.id, |x| x.outgoing().break_off());
                }
            }
            let (piece, drained) = exchange::with(self.id, |x| {
                let piece = match x.outgoing().poll_take(cx) {
                    Poll::Ready(Some(piece)) => Some(piece),
                    Poll::Ready(None) | Poll::Pending => None,
                };
                let drained = match piece {
                    None => std::mem::take(&mut x.output.tell_drained),
                    Some(_) => Vec::new(),
                };
                (piece, drained)
            });
            for reactor in drained {
                reactor::drained(reactor, self.id);
            }
            match piece {
                Some(piece) => self.send = Some(self.stream.send(Vec::from(piece), self.timeout)),
                None => return Poll::Ready(()),
            }
        }
    }
}

/// Ends the connection so that the client gets all that was sent: a socket that is closed while the
/// client still sends is reset, and what it has not read yet is lost.
async fn linger(socket: &mut TcpStream, control: &Control) {
    let lingering = async {
        if socket.shutdown().await.is_err() {
            return;
        }
        let mut forgotten = [0; FORGOTTEN];
        loop {
            if socket.readable().await.is_err() {
                return;
            }
            match socket.try_read(&mut forgotten) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    let ordered = poll_fn(|cx| {
        control.register(cx.waker());
        match control.order.get() {
            Some(Order::Finish | Order::Drop) => Poll::Ready(()),
            Some(Order::TimeOut | Order::Sleep) | None => Poll::Pending,
        }
    });
    tokio::select! {
        () = lingering => {}
        () = ordered => {}
        () = tokio::time::sleep(LINGER) => {}
    }
}
