//! A request that a plugin asks for: an exchange without a connection, driven by the same loop; what
//! a client would get is gathered, up to a limit.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use tokio::sync::oneshot;

use super::{Routes, at_once, filter, run, start};
use crate::error::{ErrorKind, RequestError};
use crate::exchange::subrequest::{Answer, BodySource, Captured, Inherit, Leash, Order, Refused};
use crate::exchange::{self, Abort, Exchange, ExchangeId, RequestBody};
use crate::observe::error_log::{Context as LogContext, Level};
use crate::reactor;

/// What bounds subrequests.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// `subrequest_depth`.
    pub depth: u32,
    /// `subrequests`.
    pub count: u32,
    /// `subrequest_body_limit`; 0 is none.
    pub body: u64,
}

/// Begins a subrequest; its answer comes when it is complete.
///
/// # Errors
/// When it cannot begin.
pub fn begin(
    routes: Rc<dyn Routes>,
    parent: ExchangeId,
    order: Order,
    limits: Limits,
) -> Result<Answer, Refused> {
    let (sender, receiver) = oneshot::channel();
    let named = order.target.strip_prefix('@').map(str::to_owned);
    let (id, leash) = make(parent, order, limits)?;
    let start = match named {
        Some(name) => Some(routes.named(&name).ok_or_else(|| {
            RequestError::because(ErrorKind::NotFound, format!("no route is named `{name}`"))
        })),
        None => start(id, &*routes),
    };
    if let Some(Ok(plan)) = &start
        && at_once(id, plan)
    {
        let mut gathered = Gathered::new(limits.body);
        gathered.take(id, std::task::Waker::noop());
        let _nobody_waits = sender.send(gathered.finish(id)).is_err();
        filter::release(id);
        return Ok(receiver);
    }
    tokio::task::spawn_local(async move {
        let answered = Rc::new(RefCell::new(routes.fallback().clone()));
        let driver = Box::pin(run(id, routes, answered, start));
        drive(id, driver, leash, sender, limits.body).await;
        // The phase `log` and the access log are for clients' requests.
        filter::release(id);
    });
    Ok(receiver)
}

/// The new exchange, made of its parent's and what the order says.
fn make(
    parent: ExchangeId,
    order: Order,
    limits: Limits,
) -> Result<(ExchangeId, Rc<Leash>), Refused> {
    let made = exchange::with(parent, |x| {
        let depth = x.family.depth + 1;
        if depth > limits.depth {
            return Err(Refused::Depth(limits.depth));
        }
        let mut request = x.request.inner(&order.target).map_err(|_| {
            Refused::Target(format!("`{}` is neither @NAME nor a path", order.target))
        })?;
        let mut body = RequestBody::new(None);
        let given = match &order.body {
            BodySource::None => None,
            BodySource::Current => x.body.whole().filter(|b| !b.is_empty()).cloned(),
            BodySource::Bytes(bytes) => Some(bytes.clone()),
        };
        request.headers.remove(TRANSFER_ENCODING);
        request.headers.remove(CONTENT_LENGTH);
        if let Some(bytes) = given {
            let length = HeaderValue::from(bytes.len());
            request.headers.insert(CONTENT_LENGTH, length);
            body.replace(bytes);
        }
        let Some(leash) = x.family.adopt(limits.count) else {
            return Err(Refused::Count(limits.count));
        };
        let variables = match order.inherit {
            Inherit::None => exchange::Variables::default(),
            Inherit::Copy => x.variables.copy(),
            Inherit::Share => x.variables.share(),
        };
        Ok((request, body, leash, variables, depth, Traits::of(x)))
    });
    let (mut request, body, leash, variables, depth, traits) = made?;
    request.method = order.method;
    for (name, value) in order.headers {
        request.headers.insert(name, value);
    }
    for (name, value) in order.variables {
        variables.set(&name, value);
    }
    let id = exchange::begin(|x| {
        x.request = request;
        x.body = body;
        x.connection = traits.connection.clone();
        traits.give(x);
        x.variables = variables;
        x.context = order.context;
        x.family.depth = depth;
    });
    Ok((id, leash))
}

/// What a subrequest has of its parent, whatever it is for.
struct Traits {
    connection: Option<Rc<exchange::ConnectionInfo>>,
    request_number: u32,
    serial: u64,
    request_id: Option<u128>,
    deadline: tokio::time::Instant,
}

impl Traits {
    fn of(x: &mut Exchange) -> Self {
        Self {
            connection: x.connection.clone(),
            request_number: x.request_number,
            serial: x.serial,
            request_id: Some(x.id()),
            deadline: x.deadline,
        }
    }

    fn give(self, x: &mut Exchange) {
        x.request_number = self.request_number;
        x.serial = self.serial;
        x.request_id = self.request_id;
        x.started_ms = crate::time_cache::now_ms();
        x.deadline = self.deadline;
    }
}

/// The answer as far as it is there.
struct Gathered {
    body: Vec<u8>,
    limit: u64,
    truncated: bool,
}

impl Gathered {
    fn new(limit: u64) -> Self {
        Self {
            body: Vec::new(),
            limit: if limit == 0 { u64::MAX } else { limit },
            truncated: false,
        }
    }

    /// Takes what is there; true when the body has ended. What goes beyond the limit is dropped, so
    /// that its handler comes to its end.
    fn take(&mut self, id: ExchangeId, waker: &std::task::Waker) -> bool {
        let cx = Context::from_waker(waker);
        loop {
            let (piece, drained) = exchange::with(id, |x| {
                if !x.response.sent {
                    return (Poll::Pending, Vec::new());
                }
                let outgoing = x.outgoing();
                if outgoing.broken {
                    self.truncated = true;
                    return (Poll::Ready(None), Vec::new());
                }
                let piece = outgoing.poll_take(&cx);
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
            match piece {
                Poll::Pending => return false,
                Poll::Ready(None) => return true,
                Poll::Ready(Some(bytes)) => {
                    let room = self.limit.saturating_sub(self.body.len() as u64);
                    let fits = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
                    self.body.extend_from_slice(&bytes[..fits]);
                    if fits < bytes.len() && !std::mem::replace(&mut self.truncated, true) {
                        let text = format!(
                            "the answer of a subrequest is longer than subrequest_body_limit, {} bytes",
                            self.limit
                        );
                        exchange::log(id, Level::Error, LogContext::default(), &text);
                    }
                }
            }
        }
    }

    fn finish(mut self, id: ExchangeId) -> Captured {
        exchange::with(id, |x| {
            if x.request.method == http::Method::HEAD {
                self.body.clear();
            }
            Captured {
                status: x.response.status,
                headers: std::mem::take(&mut x.response.headers),
                body: self.body,
                truncated: self.truncated || x.family.truncated,
            }
        })
    }
}

/// Runs the engine and takes what it makes, until the body has ended; then, as behind a client's
/// answer, what the handler still does.
async fn drive(
    id: ExchangeId,
    mut driver: std::pin::Pin<Box<impl Future<Output = ()>>>,
    leash: Rc<Leash>,
    sender: oneshot::Sender<Captured>,
    limit: u64,
) {
    let mut gathered = Some(Gathered::new(limit));
    let mut sender = Some(sender);
    let mut running = true;
    let complete = std::future::poll_fn(|cx| {
        let unwanted = match &mut sender {
            Some(sender) => sender.poll_closed(cx).is_ready(),
            None => false,
        };
        if unwanted || leash.poll_cut(cx).is_ready() {
            return Poll::Ready(false);
        }
        loop {
            running = running && driver.as_mut().poll(cx).is_pending();
            let ended = gathered.as_mut().is_some_and(|g| g.take(id, cx.waker()));
            if ended && let (Some(gathered), Some(sender)) = (gathered.take(), sender.take()) {
                let _nobody_waits = sender.send(gathered.finish(id)).is_err();
            }
            if !running {
                let left = gathered.is_some() && exchange::with(id, |x| x.response.sent);
                // A body filter goes on as a task of its own.
                return if left {
                    Poll::Pending
                } else {
                    Poll::Ready(true)
                };
            }
            if !ended {
                return Poll::Pending;
            }
        }
    })
    .await;
    if !complete {
        abort(id);
    }
}

/// Nobody wants the answer any more.
fn abort(id: ExchangeId) {
    let jobs = exchange::with(id, |x| {
        x.abort = Some(Abort::ClientLeft);
        x.outgoing().break_off();
        x.output.break_off();
        x.response.sent = true;
        if x.handler_running {
            x.jobs.clone()
        } else {
            Vec::new()
        }
    });
    for job in jobs {
        reactor::cancel(job, id);
    }
}
