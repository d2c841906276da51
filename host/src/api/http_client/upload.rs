//! A request whose body the guest makes piece by piece. The request is a task of its own, so that the
//! body moves while the guest makes the next piece; one piece waits at a time.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use wasmtime::component::Resource;

use super::super::operation::{Outcome, Task, Work, wrong_kind};
use super::super::{HostState, Operation, enter};
use super::{Answer, HttpError, HttpOutcome, error, in_time, task, time, wit};
use crate::http_client::{self, Cause};

/// What the guest gives to the request.
#[derive(Debug)]
enum Part {
    Piece(Bytes),
    End,
}

type Head = Result<http::Response<http_client::AnswerBody>, HttpError>;

/// A request under way, shared by the guest's resource and what waits for it; the last one that goes
/// ends it.
#[derive(Debug)]
pub struct Sending {
    parts: mpsc::Sender<Part>,
    answer: Mutex<Option<oneshot::Receiver<Head>>>,
    /// Nothing more is wanted: there is no answer to come, or it is an error already.
    enough: watch::Receiver<bool>,
    task: tokio::task::AbortHandle,
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An upload that a guest has begun.
pub type Upload = Arc<Sending>;

/// The body as hyper sends it.
struct Given {
    first: Option<Bytes>,
    parts: mpsc::Receiver<Part>,
    left: Option<u64>,
    enough: watch::Receiver<bool>,
}

impl http_body::Body for Given {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        let piece = match self.first.take() {
            Some(first) => first,
            None => match ready!(self.parts.poll_recv(cx)) {
                Some(Part::Piece(piece)) => piece,
                Some(Part::End) => return Poll::Ready(None),
                // The server has its error out, and the connection may serve others.
                None if *self.enough.borrow() => return Poll::Ready(None),
                None => return Poll::Ready(Some(Err("the upload was given up".into()))),
            },
        };
        if let Some(left) = &mut self.left {
            match left.checked_sub(piece.len() as u64) {
                Some(rest) => *left = rest,
                None => {
                    let text = "the body is longer than its `Content-Length`";
                    return Poll::Ready(Some(Err(text.into())));
                }
            }
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

/// The length that the guest promises.
fn length(outgoing: &wit::Outgoing) -> Result<Option<u64>, HttpError> {
    let mut named = outgoing
        .headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case(CONTENT_LENGTH.as_str()));
    let Some((_, value)) = named.next() else {
        return Ok(None);
    };
    let number = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok());
    match number {
        Some(number) => Ok(Some(number)),
        None => Err(HttpError::Invalid(
            "`Content-Length` is not a number".to_owned(),
        )),
    }
}

impl HostState {
    fn http_upload(&self, mut outgoing: wit::Outgoing) -> Result<Upload, HttpError> {
        let length = length(&outgoing)?;
        let first = Bytes::from(std::mem::take(&mut outgoing.body));
        let request = self.http_request(outgoing)?;
        let (parts, receiver) = mpsc::channel(1);
        let (tell_enough, enough) = watch::channel(false);
        let body = Given {
            first: Some(first).filter(|first| !first.is_empty()),
            parts: receiver,
            left: length,
            enough: enough.clone(),
        };
        let request = request.map(|_| body.boxed_unsync());
        let client = http_client::client(&self.plugin.http_client);
        let (done, answer) = oneshot::channel();
        let sending = tokio::task::spawn_local(async move {
            let answer = client
                .send_in_turn(request)
                .await
                .map_err(HttpError::Client);
            // A server that sends an early success may still read: only an error ends the body.
            let enough = answer.as_ref().map_or(true, |a| a.status().as_u16() >= 400);
            tell_enough.send_replace(enough);
            // Nobody waits any more when the upload was given up.
            let _heard = done.send(answer).is_ok();
        });
        Ok(Arc::new(Sending {
            parts,
            answer: Mutex::new(Some(answer)),
            enough,
            task: sending.abort_handle(),
        }))
    }

    fn http_write(
        &self,
        of: &Resource<Upload>,
        bytes: Vec<u8>,
        timeout: u32,
    ) -> wasmtime::Result<Task> {
        let upload = self.table.get(of)?.clone();
        Ok(task(async move {
            let write = async {
                if bytes.is_empty() {
                    return Ok(!upload.parts.is_closed());
                }
                let mut enough = upload.enough.clone();
                tokio::select! {
                    biased;
                    Ok(_) = enough.wait_for(|enough| *enough) => Ok(false),
                    given = upload.parts.send(Part::Piece(Bytes::from(bytes))) => Ok(given.is_ok()),
                }
            };
            HttpOutcome::Written(in_time(time(timeout), write).await)
        }))
    }

    fn http_finish(&self, of: &Resource<Upload>, timeout: u32) -> wasmtime::Result<Task> {
        let upload = self.table.get(of)?.clone();
        Ok(task(async move {
            let finish = async {
                let answer = upload.answer.lock().take();
                let Some(answer) = answer else {
                    return Err(HttpError::Invalid(
                        "the upload has been finished".to_owned(),
                    ));
                };
                let mut enough = upload.enough.clone();
                tokio::select! {
                    biased;
                    Ok(_) = enough.wait_for(|enough| *enough) => {}
                    // When nobody hears it the request is over, and the answer says how.
                    _ = upload.parts.send(Part::End) => {}
                }
                match answer.await {
                    Ok(head) => head,
                    Err(_) => Err(HttpError::Invalid("the upload was given up".to_owned())),
                }
            };
            HttpOutcome::Head(in_time(time(timeout), finish).await)
        }))
    }
}

fn written(outcome: Outcome, function: &str) -> Answer<bool> {
    match outcome {
        Outcome::Http(HttpOutcome::Written(more)) => Ok(more.map_err(error)),
        _ => Err(wrong_kind(function)),
    }
}

impl wit::HostUpload for HostState {
    fn begin(&mut self, request: wit::Outgoing) -> Answer<Resource<Upload>> {
        enter!(self, "http-client.upload");
        match self.http_upload(request) {
            Ok(upload) => Ok(Ok(self.table.push(upload)?)),
            Err(why) => Ok(Err(error(why))),
        }
    }

    async fn write(&mut self, of: Resource<Upload>, bytes: Vec<u8>, timeout: u32) -> Answer<bool> {
        enter!(self, "http-client.upload");
        let task = self.http_write(&of, bytes, timeout)?;
        written(task.await, "http-client.upload.write")
    }

    fn begin_write(
        &mut self,
        of: Resource<Upload>,
        bytes: Vec<u8>,
        timeout: u32,
    ) -> wasmtime::Result<Resource<Operation>> {
        enter!(self, "http-client.upload");
        let task = self.http_write(&of, bytes, timeout)?;
        Self::begin(self, Work::Task(task))
    }

    async fn end_write(&mut self, op: Resource<Operation>) -> Answer<bool> {
        enter!(self, "http-client.upload");
        let outcome = Self::finish(self, op).await?;
        written(outcome, "http-client.upload.end-write")
    }

    async fn finish(&mut self, of: Resource<Upload>, timeout: u32) -> Answer<wit::Streaming> {
        enter!(self, "http-client.upload");
        let outcome = self.http_finish(&of, timeout)?.await;
        self.opened(outcome, "http-client.upload.finish")
    }

    fn begin_finish(
        &mut self,
        of: Resource<Upload>,
        timeout: u32,
    ) -> wasmtime::Result<Resource<Operation>> {
        enter!(self, "http-client.upload");
        let task = self.http_finish(&of, timeout)?;
        Self::begin(self, Work::Task(task))
    }

    async fn end_finish(&mut self, op: Resource<Operation>) -> Answer<wit::Streaming> {
        enter!(self, "http-client.upload");
        let outcome = Self::finish(self, op).await?;
        self.opened(outcome, "http-client.upload.end-finish")
    }

    fn drop(&mut self, of: Resource<Upload>) -> wasmtime::Result<()> {
        self.table.delete(of)?;
        Ok(())
    }
}
