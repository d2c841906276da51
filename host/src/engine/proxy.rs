//! A proxied answer: the request's body goes to the peer as it comes, the answer's comes back as the
//! client takes it, and every wait has an end.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Engine, Flow};
use crate::error::{ErrorKind, RequestError};
use crate::exchange::body::BodyError;
use crate::exchange::{self, ExchangeId};
use crate::http_client::{self, Body, Cause, ClientError, ConnectError, Settings};
use crate::upstream::{Proxy, proxy};

/// How far the request's body has gone.
#[derive(Debug)]
struct Progress {
    /// When the peer last took something.
    last: Instant,
    /// The client has to send first.
    client: bool,
    /// All of it has gone.
    done: bool,
}

/// What the engine and a body on its way share: the body may outlive the exchange by a moment, and
/// must not speak of the next one in its slot.
#[derive(Debug)]
struct Shared {
    alive: AtomicBool,
    progress: Mutex<Progress>,
}

/// Ends the body with the engine's interest in it.
struct Guard(Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.alive.store(false, Ordering::Relaxed);
    }
}

/// The request's body as hyper sends it.
struct Forwarded {
    id: ExchangeId,
    shared: Arc<Shared>,
    length: Option<u64>,
}

impl http_body::Body for Forwarded {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        if !self.shared.alive.load(Ordering::Relaxed) {
            return Poll::Ready(Some(Err("the exchange is over".into())));
        }
        let piece = exchange::try_with(self.id, |x| x.body.poll_piece(cx));
        let mut progress = self.shared.progress.lock();
        progress.last = Instant::now();
        progress.client = matches!(piece, Some(Poll::Pending));
        match piece {
            Some(Poll::Pending) => Poll::Pending,
            Some(Poll::Ready(Ok(Some(bytes)))) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Some(Poll::Ready(Ok(None))) => {
                progress.done = true;
                Poll::Ready(None)
            }
            Some(Poll::Ready(Err(error))) => Poll::Ready(Some(Err(format!("{error:?}").into()))),
            None => Poll::Ready(Some(Err("the exchange is over".into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.length == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

/// Waits until the peer has been idle too long.
async fn idle(shared: &Shared, proxy: &Proxy) -> &'static str {
    loop {
        let (until, what) = {
            let mut progress = shared.progress.lock();
            if progress.client {
                // Who does not send is the client, and its own time-out looks after that.
                progress.last = Instant::now();
            }
            match progress.done {
                true => (
                    progress.last + proxy.read_timeout,
                    "reading the answer's head",
                ),
                false => (progress.last + proxy.send_timeout, "sending the request"),
            }
        };
        if until <= Instant::now() {
            return what;
        }
        tokio::time::sleep_until(until).await;
    }
}

fn timed_out(what: &str, proxy: &Proxy) -> RequestError {
    let text = format!("{what}, upstream {}", proxy.authority);
    RequestError::because(ErrorKind::UpstreamTimeout, text)
}

fn refused(error: &ClientError, proxy: &Proxy) -> RequestError {
    let kind = match error {
        ClientError::Connect(ConnectError::Timeout(_)) => ErrorKind::UpstreamTimeout,
        ClientError::Connect(ConnectError::Failed(_)) => ErrorKind::UpstreamConnect,
        ClientError::Closed(_) | ClientError::Failed(_) => ErrorKind::UpstreamFailed,
    };
    RequestError::because(kind, format!("{error}, upstream {}", proxy.authority))
}

impl Engine {
    /// Asks the peer and passes its answer on.
    pub(super) async fn proxy(&mut self, proxy: &Proxy) -> Result<Flow, RequestError> {
        exchange::with(self.id, |x| {
            // From here on the peer's time-outs hold.
            x.deadline = exchange::never(x.started);
        });
        let shared = Arc::new(Shared {
            alive: AtomicBool::new(true),
            progress: Mutex::new(Progress {
                last: Instant::now(),
                client: false,
                done: false,
            }),
        });
        let _guard = Guard(shared.clone());
        let answer = match self.ask(proxy, &shared).await {
            Ok(answer) => answer,
            Err(error) => return Err(self.of_client().unwrap_or(error)),
        };
        if answer.status() == http::StatusCode::SWITCHING_PROTOCOLS {
            return Box::pin(self.tunnel(answer, proxy)).await;
        }
        let (mut head, body) = answer.into_parts();
        proxy::answer_head(proxy, &mut head.headers);
        let headless = exchange::with(self.id, |x| {
            x.response.status = head.status.as_u16();
            for name in head.headers.keys() {
                x.response.headers.remove(name);
            }
            for (name, value) in &head.headers {
                x.response.headers.append(name, value.clone());
            }
            x.request.method == http::Method::HEAD
        });
        if headless || http_body::Body::is_end_stream(&body) {
            self.complete_empty(headless).await;
            return Ok(Flow::Answered);
        }
        self.pass_on(body, proxy).await
    }

    async fn complete_empty(&mut self, headless: bool) {
        exchange::with(self.id, |x| {
            // The length of what a GET would bring stays; hyper adds none of its own.
            x.output.whole = !headless;
            x.output.end();
        });
        self.publish(true).await;
    }

    async fn ask(
        &self,
        proxy: &Proxy,
        shared: &Arc<Shared>,
    ) -> Result<http::Response<Incoming>, RequestError> {
        // A connection out of the pool may have been closed by the peer just now: what changes
        // nothing and has no body is asked once more.
        let mut again = true;
        loop {
            let (request, repeatable) = self.request(proxy, shared)?;
            // Only HTTP/1.1 can be left.
            let client = match request.headers().contains_key(http::header::UPGRADE) {
                true => http_client::client(&Settings {
                    http2: false,
                    ..proxy.client.clone()
                }),
                false => http_client::client(&proxy.client),
            };
            let outcome = tokio::select! {
                biased;
                outcome = client.send(request) => outcome,
                what = idle(shared, proxy) => return Err(timed_out(what, proxy)),
            };
            match outcome {
                Ok(answer) => return Ok(answer),
                Err(ClientError::Closed(_)) if repeatable && std::mem::take(&mut again) => {}
                Err(error) => return Err(refused(&error, proxy)),
            }
        }
    }

    fn request(
        &self,
        proxy: &Proxy,
        shared: &Arc<Shared>,
    ) -> Result<(http::Request<Body>, bool), RequestError> {
        let (head, length) = exchange::with(self.id, |x| {
            let length = match x.body.whole() {
                Some(whole) => Some(whole.len() as u64),
                None => x.body.announced,
            };
            (proxy::request_head(proxy, &x.request), length)
        });
        let (method, uri, headers) =
            head.ok_or_else(|| RequestError::new(ErrorKind::BadRequest))?;
        let repeatable = length == Some(0) && method.is_idempotent();
        {
            let mut progress = shared.progress.lock();
            progress.last = Instant::now();
            progress.done = length == Some(0);
        }
        let body = Forwarded {
            id: self.id,
            shared: shared.clone(),
            length,
        };
        let mut request = http::Request::new(body.boxed_unsync());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Ok((request, repeatable))
    }

    /// What the client did wrong while its body was on the way, if it did.
    fn of_client(&self) -> Option<RequestError> {
        let kind = match exchange::with(self.id, |x| x.body.failure())? {
            BodyError::TooLarge => ErrorKind::BodyTooLarge,
            BodyError::Timeout => ErrorKind::RequestTimeout,
            BodyError::Closed => ErrorKind::ClientClosed,
            BodyError::Taken => return None,
        };
        Some(RequestError::new(kind))
    }

    async fn pass_on(&mut self, mut body: Incoming, proxy: &Proxy) -> Result<Flow, RequestError> {
        let mut first = true;
        loop {
            // A first piece that is there already leaves together with the head.
            let frame = if std::mem::take(&mut first) {
                let frame = futures_util::FutureExt::now_or_never(body.frame());
                let ended = matches!(frame, Some(None));
                if let Some(Some(Ok(frame))) = &frame
                    && let Some(bytes) = frame.data_ref()
                {
                    exchange::with(self.id, |x| x.output.push(bytes.clone()));
                }
                if ended || http_body::Body::is_end_stream(&body) {
                    exchange::with(self.id, |x| {
                        x.output.whole = true;
                        x.output.end();
                    });
                }
                self.publish(true).await;
                match frame {
                    Some(Some(Err(error))) => Some(Err(error)),
                    Some(None) => None,
                    Some(Some(Ok(_))) | None => {
                        if exchange::with(self.id, |x| x.output.ended) {
                            return Ok(Flow::Answered);
                        }
                        continue;
                    }
                }
            } else {
                match tokio::time::timeout(proxy.read_timeout, body.frame()).await {
                    Ok(frame) => frame,
                    Err(_) => return Err(timed_out("reading the answer", proxy)),
                }
            };
            match frame {
                None => {
                    exchange::with(self.id, |x| x.output.end());
                    return Ok(Flow::Answered);
                }
                Some(Err(error)) => {
                    let text = format!("{error}, upstream {}", proxy.authority);
                    return Err(RequestError::because(ErrorKind::UpstreamFailed, text));
                }
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        exchange::with(self.id, |x| x.output.push(bytes));
                    }
                }
            }
            let id = self.id;
            if !std::future::poll_fn(|cx| exchange::with(id, |x| x.output.poll_room(cx))).await {
                return Ok(Flow::Answered);
            }
        }
    }
}
