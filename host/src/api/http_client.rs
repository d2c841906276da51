//! `http-client`: requests of plugins to other servers, within what `allow.http` names.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HOST};
use http_body_util::{BodyExt as _, Full};
use wasmtime::component::Resource;

use super::bindings::phasor::plugin::http_client as wit;
use super::operation::{Outcome, Task, Work, wrong_kind};
use super::request::{field, header_list};
use super::{HostState, Operation, enter};
use crate::http_client::{self, ClientError, ConnectError};
use crate::upstream::proxy::strip_hop_by_hop;
pub use upload::{Sending, Upload};

mod upload;

/// Of all that one request may take, when it says nothing.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Of an answer's body, when the request says nothing.
const LIMIT: u64 = 16 << 20;
/// The body of an answer that is still coming; one reader at a time.
pub type AnswerBody = Arc<tokio::sync::Mutex<http_client::AnswerBody>>;

/// How an operation of this interface ended.
#[derive(Debug)]
pub enum HttpOutcome {
    /// Of a `fetch`.
    Whole(Result<(http::response::Parts, Bytes), HttpError>),
    /// Of an `open`.
    Head(Result<http::Response<http_client::AnswerBody>, HttpError>),
    /// Of a read.
    Piece(Result<Option<Bytes>, HttpError>),
    /// Of a piece of an upload: whether the server takes more.
    Written(Result<bool, HttpError>),
}

/// Why there is no answer.
#[derive(Debug)]
pub enum HttpError {
    /// It took too long.
    Timeout,
    /// `allow.http` does not name it.
    Refused(String),
    /// It is no request.
    Invalid(String),
    /// Connecting, or after that.
    Client(ClientError),
    /// The body is too long.
    TooLarge(u64),
}

fn error(error: HttpError) -> wit::ClientError {
    match error {
        HttpError::Timeout | HttpError::Client(ClientError::Connect(ConnectError::Timeout(_))) => {
            wit::ClientError::Timeout
        }
        HttpError::Refused(text) => wit::ClientError::Refused(text),
        HttpError::Invalid(text) => wit::ClientError::Invalid(text),
        HttpError::Client(ClientError::Connect(ConnectError::Failed(text))) => {
            wit::ClientError::Connect(text)
        }
        HttpError::Client(ClientError::Closed(text) | ClientError::Failed(text)) => {
            wit::ClientError::Protocol(text)
        }
        HttpError::TooLarge(limit) => wit::ClientError::TooLarge(limit),
    }
}

/// A request as hyper wants it.
fn request(outgoing: wit::Outgoing) -> Result<http::Request<http_client::Body>, HttpError> {
    let invalid = |what: &str| HttpError::Invalid(format!("this is not a {what}"));
    let uri: http::Uri = outgoing.url.parse().map_err(|_| invalid("URL"))?;
    let authority = uri.authority().ok_or_else(|| invalid("URL"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || authority.as_str().contains('@') {
        return Err(invalid("URL of HTTP"));
    }
    let body = Full::new(Bytes::from(outgoing.body)).map_err(|never| match never {});
    let mut request = http::Request::new(body.boxed_unsync());
    for (name, value) in &outgoing.headers {
        let (name, value) = field(name, value)
            .ok_or_else(|| HttpError::Invalid(format!("`{name}` or its value is not a header")))?;
        request.headers_mut().append(name, value);
    }
    strip_hop_by_hop(request.headers_mut());
    request.headers_mut().remove(CONTENT_LENGTH);
    // The client makes it: HTTP/2 has none beside `:authority`.
    request.headers_mut().remove(HOST);
    *request.method_mut() =
        http::Method::from_bytes(outgoing.method.as_bytes()).map_err(|_| invalid("method"))?;
    *request.uri_mut() = uri;
    Ok(request)
}

async fn gather(mut body: http_client::AnswerBody, limit: u64) -> Result<Bytes, HttpError> {
    let mut all = BytesMut::new();
    if http_body::Body::size_hint(&body).lower() > limit {
        return Err(HttpError::TooLarge(limit));
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| HttpError::Client(ClientError::Failed(e.to_string())))?;
        if let Ok(bytes) = frame.into_data() {
            if (all.len() + bytes.len()) as u64 > limit {
                return Err(HttpError::TooLarge(limit));
            }
            all.extend_from_slice(&bytes);
        }
    }
    let_pool().await;
    Ok(all.freeze())
}

/// A body has ended: its connection goes back to its pool in a task of hyper's. Whoever went on before
/// that would connect anew for its next request.
async fn let_pool() {
    tokio::task::yield_now().await;
}

fn time(milliseconds: u32) -> Duration {
    match milliseconds {
        0 => TIMEOUT,
        ms => Duration::from_millis(u64::from(ms)),
    }
}

async fn in_time<T>(
    most: Duration,
    work: impl Future<Output = Result<T, HttpError>>,
) -> Result<T, HttpError> {
    match tokio::time::timeout(most, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(HttpError::Timeout),
    }
}

impl HostState {
    fn http_check(&self, request: &http::Request<http_client::Body>) -> Result<(), HttpError> {
        let uri = request.uri();
        let (scheme, host) = (
            uri.scheme_str().unwrap_or_default(),
            uri.host().unwrap_or_default(),
        );
        let port = uri
            .port_u16()
            .unwrap_or(if scheme == "https" { 443 } else { 80 });
        if self
            .plugin
            .allow
            .http
            .allows(|origin| origin.fits(scheme, host, port))
        {
            return Ok(());
        }
        let target = format!("{scheme}://{host}:{port}");
        self.refuse("http", &target);
        Err(HttpError::Refused(format!(
            "allow.http does not cover `{target}`"
        )))
    }

    fn http_request(
        &self,
        outgoing: wit::Outgoing,
    ) -> Result<http::Request<http_client::Body>, HttpError> {
        let request = request(outgoing)?;
        self.http_check(&request)?;
        Ok(request)
    }

    fn http_fetch(&self, outgoing: wit::Outgoing) -> Task {
        let most = time(outgoing.timeout);
        let limit = if outgoing.limit == 0 {
            LIMIT
        } else {
            outgoing.limit
        };
        let request = self.http_request(outgoing);
        let client = http_client::client(&self.plugin.http_client);
        task(async move {
            HttpOutcome::Whole(
                in_time(most, async {
                    let answer = client
                        .send_in_turn(request?)
                        .await
                        .map_err(HttpError::Client)?;
                    let (head, body) = answer.into_parts();
                    Ok((head, gather(body, limit).await?))
                })
                .await,
            )
        })
    }

    fn http_open(&self, outgoing: wit::Outgoing) -> Task {
        let most = time(outgoing.timeout);
        let request = self.http_request(outgoing);
        let client = http_client::client(&self.plugin.http_client);
        task(async move {
            HttpOutcome::Head(
                in_time(most, async {
                    client
                        .send_in_turn(request?)
                        .await
                        .map_err(HttpError::Client)
                })
                .await,
            )
        })
    }

    fn http_read(&self, of: &Resource<AnswerBody>, timeout: u32) -> wasmtime::Result<Task> {
        let body = self.table.get(of)?.clone();
        Ok(task(async move {
            HttpOutcome::Piece(in_time(time(timeout), next(body)).await)
        }))
    }

    fn opened(&mut self, outcome: Outcome, function: &str) -> Answer<wit::Streaming> {
        match outcome {
            Outcome::Http(HttpOutcome::Head(Ok(answer))) => {
                let (head, body) = answer.into_parts();
                let body = self.table.push(Arc::new(tokio::sync::Mutex::new(body)))?;
                Ok(Ok(wit::Streaming {
                    status: head.status.as_u16(),
                    headers: header_list(&head.headers),
                    body,
                }))
            }
            Outcome::Http(HttpOutcome::Head(Err(why))) => Ok(Err(error(why))),
            _ => Err(wrong_kind(function)),
        }
    }
}

async fn next(body: AnswerBody) -> Result<Option<Bytes>, HttpError> {
    let mut body = body.lock().await;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| HttpError::Client(ClientError::Failed(e.to_string())))?;
        if let Ok(bytes) = frame.into_data() {
            return Ok(Some(bytes));
        }
    }
    let_pool().await;
    Ok(None)
}

fn task(work: impl Future<Output = HttpOutcome> + Send + 'static) -> Task {
    Box::pin(async move { Outcome::Http(work.await) })
}

type Answer<T> = wasmtime::Result<Result<T, wit::ClientError>>;

fn fetched(outcome: Outcome, function: &str) -> Answer<wit::Incoming> {
    match outcome {
        Outcome::Http(HttpOutcome::Whole(answer)) => Ok(answer
            .map(|(head, body)| wit::Incoming {
                status: head.status.as_u16(),
                headers: header_list(&head.headers),
                body: body.to_vec(),
            })
            .map_err(error)),
        _ => Err(wrong_kind(function)),
    }
}

fn read(outcome: Outcome, function: &str) -> Answer<Option<Vec<u8>>> {
    match outcome {
        Outcome::Http(HttpOutcome::Piece(piece)) => Ok(piece
            .map(|piece| piece.map(|bytes| bytes.to_vec()))
            .map_err(error)),
        _ => Err(wrong_kind(function)),
    }
}

impl wit::Host for HostState {
    async fn fetch(&mut self, request: wit::Outgoing) -> Answer<wit::Incoming> {
        enter!(self, "http-client.fetch");
        fetched(self.http_fetch(request).await, "http-client.fetch")
    }

    fn begin_fetch(&mut self, request: wit::Outgoing) -> wasmtime::Result<Resource<Operation>> {
        enter!(self, "http-client.begin-fetch");
        let task = self.http_fetch(request);
        self.begin(Work::Task(task))
    }

    async fn end_fetch(&mut self, op: Resource<Operation>) -> Answer<wit::Incoming> {
        enter!(self, "http-client.end-fetch");
        fetched(self.finish(op).await?, "http-client.end-fetch")
    }

    async fn open(&mut self, request: wit::Outgoing) -> Answer<wit::Streaming> {
        enter!(self, "http-client.open");
        let outcome = self.http_open(request).await;
        self.opened(outcome, "http-client.open")
    }

    fn begin_open(&mut self, request: wit::Outgoing) -> wasmtime::Result<Resource<Operation>> {
        enter!(self, "http-client.begin-open");
        let task = self.http_open(request);
        self.begin(Work::Task(task))
    }

    async fn end_open(&mut self, op: Resource<Operation>) -> Answer<wit::Streaming> {
        enter!(self, "http-client.end-open");
        let outcome = self.finish(op).await?;
        self.opened(outcome, "http-client.end-open")
    }
}

impl wit::HostBody for HostState {
    async fn read(&mut self, of: Resource<AnswerBody>, timeout: u32) -> Answer<Option<Vec<u8>>> {
        enter!(self, "http-client.body");
        read(self.http_read(&of, timeout)?.await, "http-client.body.read")
    }

    fn begin_read(
        &mut self,
        of: Resource<AnswerBody>,
        timeout: u32,
    ) -> wasmtime::Result<Resource<Operation>> {
        enter!(self, "http-client.body");
        let task = self.http_read(&of, timeout)?;
        self.begin(Work::Task(task))
    }

    async fn end_read(&mut self, op: Resource<Operation>) -> Answer<Option<Vec<u8>>> {
        enter!(self, "http-client.body");
        read(self.finish(op).await?, "http-client.body.end-read")
    }

    fn drop(&mut self, of: Resource<AnswerBody>) -> wasmtime::Result<()> {
        self.table.delete(of)?;
        Ok(())
    }
}
