//! A request comes in: it becomes an exchange, the engine drives it, and as soon as its head is final
//! hyper gets the answer.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, SERVER, TRANSFER_ENCODING};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};

use super::body::{Driver, Outgoing, Running};
use super::{Control, Doing, Order, Site};
use crate::engine::{self, Routes};
use crate::exchange::{self, ExchangeId, RequestBody};
use crate::time_cache;

/// hyper's service for one connection.
pub(super) struct RequestService {
    site: Rc<Site>,
    control: Rc<Control>,
}

impl RequestService {
    pub(super) fn new(site: Rc<Site>, control: Rc<Control>) -> Self {
        Self { site, control }
    }

    fn begin(&self, request: Request<Incoming>, keep: u64) -> ExchangeId {
        let (parts, incoming) = request.into_parts();
        let body = if incoming.is_end_stream() {
            RequestBody::new(None)
        } else {
            RequestBody::new(Some(Box::pin(http_body_util::BodyExt::map_err(
                incoming,
                Into::into,
            ))))
        };
        let number = self.control.requests.get() + 1;
        self.control.requests.set(number);
        if u64::from(number) >= keep {
            self.control.order.set(Some(Order::Finish));
        }
        exchange::begin(|x| {
            let uri = parts.uri.into_parts();
            x.request.method = parts.method;
            x.request.version = parts.version;
            if let Some(target) = uri.path_and_query {
                x.request.original = target.clone();
                x.request.target = target;
            }
            x.request.headers = parts.headers;
            x.request.authority = uri
                .authority
                .map(|a| bytes::Bytes::copy_from_slice(a.as_str().as_bytes()));
            x.body = body;
            x.connection = Some(self.control.info.clone());
            x.request_number = number;
            x.serial = self.site.next_request();
            x.started_ms = time_cache::now_ms();
            x.deadline = exchange::never(x.started);
        })
    }
}

impl hyper::service::Service<Request<Incoming>> for RequestService {
    type Response = Response<Outgoing>;
    type Error = std::convert::Infallible;
    type Future = Serving;

    fn call(&self, request: Request<Incoming>) -> Serving {
        self.control.enter(Doing::Busy, self.site.clock.get());
        self.control
            .in_progress
            .set(self.control.in_progress.get() + 1);
        let served = self.site.served();
        let id = self.begin(request, served.generation.config.server.keepalive_requests);
        let start = engine::start(id, &*served);
        let (answered, driver) = match start {
            Some(Ok(plan)) if engine::at_once(id, &plan) => (Rc::new(RefCell::new(plan)), None),
            start => {
                let answered = Rc::new(RefCell::new(served.fallback().clone()));
                let run = engine::run(id, served.clone(), answered.clone(), start);
                // Larger ones are slow to allocate: what is long and rare is boxed inside.
                debug_assert!(size_of_val(&run) <= 1024);
                let driver: Driver = Box::pin(run);
                (answered, Some(driver))
            }
        };
        let running = Running {
            id,
            routes: served,
            answered,
            site: self.site.clone(),
            control: self.control.clone(),
        };
        Serving {
            running: Some(running),
            driver,
        }
    }
}

/// Drives an exchange until its head is final.
pub(super) struct Serving {
    running: Option<Running>,
    driver: Option<Driver>,
}

impl Future for Serving {
    type Output = Result<Response<Outgoing>, std::convert::Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let done = self
            .driver
            .as_mut()
            .is_none_or(|driver| driver.as_mut().poll(cx).is_ready());
        if done {
            self.driver = None;
        }
        let Some(id) = self.running.as_ref().map(|running| running.id) else {
            return Poll::Pending;
        };
        let (sent, leaves) = exchange::with(id, |x| {
            let headless = x.downstream.headless();
            (x.response.sent, headless && x.downstream.wanted())
        });
        if !sent {
            return Poll::Pending;
        }
        let driver = self.driver.take();
        match self.running.take() {
            Some(running) if leaves => {
                let control = running.control.clone();
                control.leave(running, driver);
                Poll::Pending
            }
            Some(running) => Poll::Ready(Ok(answer(running, driver))),
            None => Poll::Pending,
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.client_left(self.driver.take());
        }
    }
}

/// The head of a `101`; what comes behind it is not HTTP.
fn switch(running: Running, driver: Option<Driver>) -> Response<Outgoing> {
    let mut response = Response::new(Outgoing::nothing());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = exchange::with(running.id, |x| x.response.headers.clone());
    for name in [CONTENT_LENGTH, TRANSFER_ENCODING] {
        response.headers_mut().remove(name);
    }
    let headers = response.headers_mut();
    headers
        .entry(SERVER)
        .or_insert(const { HeaderValue::from_static("phasor") });
    // RFC 9110, 7.8: whoever sends `Upgrade` names it in `Connection`; nginx adds that, too.
    headers
        .entry(CONNECTION)
        .or_insert(const { HeaderValue::from_static("upgrade") });
    let control = running.control.clone();
    control.leave(running, driver);
    response
}

fn answer(running: Running, driver: Option<Driver>) -> Response<Outgoing> {
    if exchange::with(running.id, |x| x.switches_protocols()) {
        return switch(running, driver);
    }
    let read_again = driver.is_some() || running.head_is_read_again();
    let keep = running.routes.generation.config.server.keepalive_requests;
    let (status, mut headers, whole, head_only, last) = exchange::with(running.id, |x| {
        let leaves = x.downstream.wanted();
        let outgoing = x.outgoing();
        let whole = if outgoing.is_one_piece() && !leaves {
            Some(outgoing.take_whole().unwrap_or_default())
        } else {
            None
        };
        let head_only = x.request.method == http::Method::HEAD;
        if head_only || matches!(x.response.status, 204 | 304) {
            // It was made, and does not go to the client.
            x.outgoing().taken = 0;
        }
        (
            x.response.status,
            if read_again {
                x.response.headers.clone()
            } else {
                std::mem::take(&mut x.response.headers)
            },
            whole,
            head_only,
            u64::from(x.request_number) >= keep && x.request.version < http::Version::HTTP_2,
        )
    });
    if last {
        // RFC 9112, 9.6: whoever closes says so, or a client may send a request that nobody answers.
        headers.insert(CONNECTION, const { HeaderValue::from_static("close") });
    }
    headers
        .entry(SERVER)
        .or_insert(const { HeaderValue::from_static("phasor") });
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let bodiless =
        head_only || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    if head_only && let Some(whole) = &whole {
        headers
            .entry(CONTENT_LENGTH)
            .or_insert_with(|| HeaderValue::from(whole.len()));
    }
    let whole = if bodiless {
        Some(bytes::Bytes::new())
    } else {
        whole
    };
    let mut response = Response::new(Outgoing::new(running, driver, whole));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

impl Running {
    /// Whether somebody asks for the answer's headers after it has left.
    fn head_is_read_again(&self) -> bool {
        self.routes.logs_sent_head || !self.answered.borrow().log.is_empty()
    }

    /// The plan that answers.
    pub(super) fn plan(&self) -> Arc<engine::Plan> {
        self.answered.borrow().clone()
    }
}
