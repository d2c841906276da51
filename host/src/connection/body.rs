//! The answer's body as hyper polls it. It carries what is still at work for the exchange: the engine
//! behind a streamed answer, and, when it is dropped, the phase `log`.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{Control, Doing, Site};
use crate::engine::filter;
use crate::engine::{Plan, Routes};
use crate::exchange::{self, Abort, ExchangeId};
use crate::generation::Served;
use crate::reactor;

/// The engine at work on an exchange.
pub(super) type Driver = Pin<Box<dyn Future<Output = ()>>>;

/// nginx's status for a client that left before its answer.
const CLIENT_CLOSED: u16 = 499;

/// An exchange that is not over.
pub(super) struct Running {
    pub(super) id: ExchangeId,
    pub(super) routes: Rc<Served>,
    pub(super) answered: Rc<RefCell<Arc<Plan>>>,
    pub(super) site: Rc<Site>,
    pub(super) control: Rc<Control>,
}

impl Running {
    /// The answer has left, or cannot leave any more: what follows is the phase `log`.
    pub(super) fn over(self) {
        let left = self.control.in_progress.get().saturating_sub(1);
        self.control.in_progress.set(left);
        if left == 0 {
            self.control.enter(Doing::Idle, self.site.clock.get());
        }
        let plan = self.plan();
        let routes: Rc<dyn Routes> = self.routes.clone();
        if plan.log.is_empty() {
            filter::over(self.id, &routes);
        } else if !filter::begin_log(self.id, &plan, &*routes, self.routes) {
            tokio::task::spawn_local(filter::log(self.id, plan, routes));
        }
    }

    /// The client closed the connection: whatever works for the exchange is ended, unless it wants
    /// to go on.
    pub(super) fn client_left(self, driver: Option<Driver>) {
        if let Some(driver) = driver
            && exchange::with(self.id, |x| x.storing || (x.keeps_on && x.handler_running))
        {
            self.go_on(driver);
            return;
        }
        let running = exchange::with(self.id, |x| {
            x.abort = Some(Abort::ClientLeft);
            x.outgoing().break_off();
            x.output.break_off();
            if !x.response.sent {
                x.response.status = CLIENT_CLOSED;
                x.response.sent = true;
            }
            if x.handler_running {
                x.jobs.clone()
            } else {
                Vec::new()
            }
        });
        for job in running {
            reactor::cancel(job, self.id);
        }
        self.over();
    }

    /// The handlers come to their end; nobody sees what they write.
    fn go_on(self, driver: Driver) {
        let (jobs, drained) = exchange::with(self.id, |x| {
            if x.storing && !x.response.sent {
                // The head decides whether the answer is kept.
                x.output.left = true;
                return (Vec::new(), Vec::new());
            }
            x.outgoing().leave();
            x.output.leave();
            if !x.response.sent {
                x.response.status = CLIENT_CLOSED;
                x.response.sent = true;
            }
            (x.jobs.clone(), std::mem::take(&mut x.output.tell_drained))
        });
        for job in jobs {
            reactor::left(job, self.id);
        }
        for job in drained {
            reactor::drained(job, self.id);
        }
        tokio::task::spawn_local(async move {
            driver.await;
            self.over();
        });
    }
}

/// A body for hyper.
pub(super) struct Outgoing {
    running: Option<Running>,
    driver: Option<Driver>,
    /// The whole body, until it is taken.
    whole: Option<Bytes>,
    streamed: bool,
    ended: bool,
}

impl Outgoing {
    /// A body that is there (`whole`) or comes.
    pub(super) fn new(running: Running, driver: Option<Driver>, whole: Option<Bytes>) -> Self {
        let streamed = whole.is_none();
        let whole = whole.filter(|bytes| !bytes.is_empty());
        let ended = !streamed && whole.is_none();
        Self {
            running: Some(running),
            driver,
            whole,
            streamed,
            ended,
        }
    }

    /// The body of a head behind which the connection leaves HTTP.
    pub(super) fn nothing() -> Self {
        Self {
            running: None,
            driver: None,
            whole: None,
            streamed: false,
            ended: true,
        }
    }

    /// Moves the engine on while there is something to do.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && driver.as_mut().poll(cx).is_ready()
        {
            self.driver = None;
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, std::io::Error>>> {
        self.drive(cx);
        let Some(id) = self.running.as_ref().map(|running| running.id) else {
            // The exchange left with the connection: HTTP has nothing more to say on it.
            return Poll::Pending;
        };
        if exchange::with(id, |x| x.downstream.wanted()) {
            if let Some(running) = self.running.take() {
                let control = running.control.clone();
                control.leave(running, self.driver.take());
            }
            return Poll::Pending;
        }
        let (piece, drained) = exchange::with(id, |x| {
            let outgoing = x.outgoing();
            if outgoing.broken {
                let cut = std::io::Error::new(
                    std::io::ErrorKind::ConnectionAborted,
                    "the answer cannot go on",
                );
                return (Poll::Ready(Some(Err(cut))), Vec::new());
            }
            let piece = outgoing.poll_take(cx).map(|piece| piece.map(Ok));
            let drained = if x.output.queued() == 0 {
                std::mem::take(&mut x.output.tell_drained)
            } else {
                Vec::new()
            };
            (piece, drained)
        });
        for reactor in drained {
            reactor::drained(reactor, id);
        }
        piece
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if !self.streamed {
            let whole = self.whole.take();
            self.ended = true;
            return Poll::Ready(whole.map(|bytes| Ok(Frame::data(bytes))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        match std::task::ready!(self.poll_piece(cx)) {
            Some(Ok(bytes)) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => {
                self.ended = true;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.whole, self.streamed) {
            (Some(whole), _) => SizeHint::with_exact(whole.len() as u64),
            (None, false) => SizeHint::with_exact(0),
            (None, true) => SizeHint::new(),
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else {
            return;
        };
        if !self.ended {
            running.client_left(self.driver.take());
            return;
        }
        match self.driver.take() {
            None => running.over(),
            // The handler ended its answer and goes on working.
            Some(driver) => {
                tokio::task::spawn_local(async move {
                    driver.await;
                    running.over();
                });
            }
        }
    }
}
