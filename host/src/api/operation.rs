//! `operation`: something that takes time, begun with `begin-x` and ended with `end-x`. One
//! definition serves both forms: the waiting function begins an operation and waits for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Sleep;
use wasmtime::component::Resource;

use super::bindings::phasor::plugin::operation::{Host, HostOperation};
use super::{HostState, enter};
use crate::cosocket::{Datagrams, HandshakeError, Receive, Send, SocketError, Stream};
use crate::exchange::body::BodyError;
use crate::exchange::downstream::Refusal;
use crate::exchange::{self, ExchangeId};
use crate::reactor::Awaited;

/// Anything that waits without knowing of exchanges: sockets, Redis, HTTP.
pub type Task = Pin<Box<dyn Future<Output = Outcome> + std::marker::Send>>;

/// What is under way.
pub enum Work {
    /// Time passes.
    Sleep(Pin<Box<Sleep>>),
    /// A request's body comes in.
    ReadBody {
        /// Whose.
        exchange: ExchangeId,
        /// At most that many bytes.
        limit: u64,
    },
    /// The next piece of a request's body comes in.
    ReadPiece {
        /// Whose.
        exchange: ExchangeId,
    },
    /// Room for output.
    Write {
        /// Whose.
        exchange: ExchangeId,
    },
    /// Bytes come.
    Receive(Receive),
    /// Bytes go.
    Send(Send),
    /// Something that was begun elsewhere.
    Task(Task),
    /// It is over.
    Done(Outcome),
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sleep(_) => "Sleep",
            Self::ReadBody { .. } => "ReadBody",
            Self::ReadPiece { .. } => "ReadPiece",
            Self::Write { .. } => "Write",
            Self::Receive(_) => "Receive",
            Self::Send(_) => "Send",
            Self::Task(_) => "Task",
            Self::Done(_) => "Done",
        })
    }
}

/// How it ended.
#[derive(Debug)]
pub enum Outcome {
    /// The time has passed.
    Slept,
    /// The body, or why there is none.
    Body(Result<Bytes, BodyError>),
    /// A piece of the body, or why there is none.
    Piece(Result<Option<Bytes>, BodyError>),
    /// Whether somebody still reads.
    Written(bool),
    /// Of `http-client`.
    Http(super::http_client::HttpOutcome),
    /// Of `cache`.
    Cache(super::cache::CacheOutcome),
    /// Of `lock`.
    Locked(Result<crate::lock::Guard, crate::lock::LockError>),
    /// Of `lock`: whether the lock was the owner's still.
    Guarded(Result<(), crate::lock::LockError>),
    /// Of `redis`.
    Redis(super::redis::RedisOutcome),
    /// Of `shared-dict`: whether the value changed in time.
    Changed(Result<bool, crate::shared_dict::DictError>),
    /// The stream, or why there is none.
    Connected(Result<Stream, SocketError>),
    /// The stream speaks TLS, or why not.
    Secured(Result<(), HandshakeError>),
    /// The socket of datagrams, or why there is none.
    Opened(Result<Datagrams, SocketError>),
    /// What came.
    Received(Result<Vec<u8>, SocketError>),
    /// Of `downstream`: the client's connection, or why it cannot be had.
    Downstream(Result<Stream, Refusal>),
    /// Of `subrequest`.
    Captured(super::subrequest::CaptureOutcome),
    /// Of `reactor.begin-call`.
    Called(Result<Vec<u8>, String>),
    /// All is with the kernel, or why not.
    Sent(Result<(), SocketError>),
    /// It was taken already.
    Taken,
}

impl Work {
    /// Begins what has to be on its way before anybody waits for it.
    fn begin(mut self) -> Self {
        if matches!(self, Self::Task(_)) {
            let mut cx = Context::from_waker(Waker::noop());
            let _later = self.poll(&mut cx).is_pending();
        }
        self
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let outcome = match self {
            Self::Done(_) => return Poll::Ready(()),
            Self::Sleep(sleep) => {
                std::task::ready!(sleep.as_mut().poll(cx));
                Outcome::Slept
            }
            Self::ReadBody { exchange, limit } => {
                let read = exchange::try_with(*exchange, |x| x.body.poll_whole(cx, *limit));
                Outcome::Body(std::task::ready!(
                    read.unwrap_or(Poll::Ready(Err(BodyError::Closed)))
                ))
            }
            Self::ReadPiece { exchange } => {
                let read = exchange::try_with(*exchange, |x| x.body.poll_piece(cx));
                Outcome::Piece(std::task::ready!(
                    read.unwrap_or(Poll::Ready(Err(BodyError::Closed)))
                ))
            }
            Self::Write { exchange } => {
                let room = exchange::try_with(*exchange, |x| x.output.poll_room(cx));
                Outcome::Written(std::task::ready!(room.unwrap_or(Poll::Ready(false))))
            }
            Self::Receive(receive) => Outcome::Received(std::task::ready!(receive.poll(cx))),
            Self::Send(send) => Outcome::Sent(std::task::ready!(send.poll(cx))),
            Self::Task(task) => std::task::ready!(task.as_mut().poll(cx)),
        };
        *self = Self::Done(outcome);
        Poll::Ready(())
    }

    /// The outcome, once.
    fn take(&mut self) -> Outcome {
        match self {
            Self::Done(outcome) => std::mem::replace(outcome, Outcome::Taken),
            Self::Sleep(_)
            | Self::ReadBody { .. }
            | Self::ReadPiece { .. }
            | Self::Write { .. }
            | Self::Receive(_)
            | Self::Send(_)
            | Self::Task(_) => Outcome::Taken,
        }
    }
}

/// What an operation and who watches it share. The locks are there for `Send` only: one thread uses
/// them.
#[derive(Debug)]
pub struct Begun {
    work: Mutex<Work>,
    watcher: Mutex<Option<Waker>>,
}

/// A resource of the guest.
#[derive(Debug)]
pub struct Operation {
    begun: Arc<Begun>,
}

impl Drop for Operation {
    fn drop(&mut self) {
        // Who watches would wait for a wake-up that never comes, and stay.
        if let Some(watcher) = self.begun.watcher.lock().take() {
            watcher.wake();
        }
    }
}

impl Operation {
    /// Begun.
    #[must_use]
    pub fn new(work: Work) -> Self {
        Self {
            begun: Arc::new(Begun {
                work: Mutex::new(work.begin()),
                watcher: Mutex::new(None),
            }),
        }
    }

    /// A share that does not keep the operation alive: dropping the resource cancels it.
    #[must_use]
    pub fn share(&self) -> Weak<Begun> {
        Arc::downgrade(&self.begun)
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.begun.work.lock().poll(cx)
    }

    /// Waits for its end and takes the outcome.
    pub async fn wait(&self) -> Outcome {
        std::future::poll_fn(|cx| self.poll(cx)).await;
        self.begun.work.lock().take()
    }
}

impl Awaited for Begun {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let over = self.work.lock().poll(cx);
        if over.is_pending() {
            let mut watcher = self.watcher.lock();
            match watcher.as_mut() {
                Some(known) => known.clone_from(cx.waker()),
                None => *watcher = Some(cx.waker().clone()),
            }
        }
        over
    }
}

impl HostState {
    /// Puts an operation where the guest can name it.
    pub(super) fn begin(&mut self, work: Work) -> wasmtime::Result<Resource<Operation>> {
        Ok(self.table.push(Operation::new(work))?)
    }

    /// Takes an operation out and waits for its end.
    pub(super) async fn finish(&mut self, op: Resource<Operation>) -> wasmtime::Result<Outcome> {
        let operation = self.table.delete(op)?;
        Ok(operation.wait().await)
    }
}

/// The guest mixed up two kinds of operations.
pub(super) fn wrong_kind(function: &str) -> wasmtime::Error {
    wasmtime::format_err!("`{function}` was given an operation of another kind")
}

impl HostOperation for HostState {
    fn ready(&mut self, op: Resource<Operation>) -> wasmtime::Result<bool> {
        enter!(self, "operation.operation.ready");
        let mut cx = Context::from_waker(Waker::noop());
        Ok(self.table.get(&op)?.poll(&mut cx).is_ready())
    }

    fn drop(&mut self, op: Resource<Operation>) -> wasmtime::Result<()> {
        self.table.delete(op)?;
        Ok(())
    }
}

impl Host for HostState {
    async fn wait_any(
        &mut self,
        operations: Vec<Resource<Operation>>,
    ) -> wasmtime::Result<Vec<u32>> {
        enter!(self, "operation.wait-any");
        if operations.is_empty() {
            return Err(wasmtime::format_err!(
                "`operation.wait-any` was given nothing to wait for"
            ));
        }
        std::future::poll_fn(|cx| {
            let mut ready = Vec::new();
            for (place, op) in (0u32..).zip(&operations) {
                match self.table.get_mut(op) {
                    Ok(operation) if operation.poll(cx).is_ready() => ready.push(place),
                    Ok(_) => {}
                    Err(error) => return Poll::Ready(Err(error.into())),
                }
            }
            if ready.is_empty() {
                Poll::Pending
            } else {
                Poll::Ready(Ok(ready))
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::{Operation, Outcome, Work};
    use crate::reactor::{create, next, remove, watch, watched};

    #[test]
    fn a_dropped_operation_takes_who_watches_it_along() {
        let reactor = create();
        let operation = Operation::new(Work::Task(Box::pin(std::future::pending())));
        watch(reactor, 0, 0, operation.share());
        let mut next = std::pin::pin!(next(reactor));
        let mut look = || {
            let mut cx = Context::from_waker(Waker::noop());
            next.as_mut().poll(&mut cx).is_ready()
        };
        assert!(!look());
        assert_eq!(watched(reactor), 1);
        drop(operation);
        assert!(!look());
        assert_eq!(watched(reactor), 0);
        remove(reactor);
    }

    #[test]
    fn what_is_over_is_told_with_its_token() {
        let reactor = create();
        let operation = Operation::new(Work::Done(Outcome::Slept));
        watch(reactor, 7, 9, operation.share());
        let mut next = std::pin::pin!(next(reactor));
        let batch = next.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(
            batch,
            std::task::Poll::Ready(vec![2, 7, 0, 0, 0, 9, 0, 0, 0])
        );
        assert_eq!(watched(reactor), 0);
        remove(reactor);
    }
}
