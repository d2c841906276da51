//! `downstream`: the client's side of a request as a socket, its body or the whole connection.

use std::task::Poll;

use wasmtime::component::Resource;

use super::bindings::phasor::plugin::downstream::{DownstreamError, Host};
use super::operation::{Outcome, Work, wrong_kind};
use super::{HostState, Operation, enter};
use crate::cosocket::Stream;
use crate::exchange::downstream::Refusal;
use crate::exchange::{self, ExchangeId};

type Answer = wasmtime::Result<Result<Resource<Stream>, DownstreamError>>;

fn refused(refusal: Refusal) -> DownstreamError {
    match refusal {
        Refusal::Taken => DownstreamError::Taken,
        Refusal::NoBody => DownstreamError::NoBody,
        Refusal::PendingBody => DownstreamError::PendingBody,
        Refusal::PendingOutput => DownstreamError::PendingOutput,
        Refusal::NotOffered => DownstreamError::NotOffered,
        Refusal::Closed => DownstreamError::Closed,
    }
}

/// Asks for the connection, and waits until it has left HTTP.
fn taking(id: ExchangeId) -> Work {
    let asked = exchange::with(id, |x| x.ask_downstream().map(|()| x.serial));
    match asked {
        Err(refusal) => Work::Done(Outcome::Downstream(Err(refusal))),
        Ok(serial) => Work::Task(Box::pin(async move {
            Outcome::Downstream(
                std::future::poll_fn(|cx| {
                    let taken = exchange::try_with(id, |x| match x.serial == serial {
                        true => x.downstream.poll(cx),
                        false => Poll::Ready(Err(Refusal::Closed)),
                    });
                    taken.unwrap_or(Poll::Ready(Err(Refusal::Closed)))
                })
                .await,
            )
        })),
    }
}

impl HostState {
    fn downstream(&mut self, outcome: Outcome, function: &str) -> Answer {
        match outcome {
            Outcome::Downstream(Ok(stream)) => Ok(Ok(self.table.push(stream)?)),
            Outcome::Downstream(Err(refusal)) => Ok(Err(refused(refusal))),
            _ => Err(wrong_kind(function)),
        }
    }
}

impl Host for HostState {
    fn body(&mut self) -> Answer {
        let id = enter!(self, "downstream.body");
        let body = exchange::with(id, |x| x.open_body(id));
        self.downstream(Outcome::Downstream(body), "downstream.body")
    }

    async fn take(&mut self) -> Answer {
        let id = enter!(self, "downstream.take");
        let outcome = Operation::new(taking(id)).wait().await;
        self.downstream(outcome, "downstream.take")
    }

    fn begin_take(&mut self) -> wasmtime::Result<Resource<Operation>> {
        let id = enter!(self, "downstream.begin-take");
        self.begin(taking(id))
    }

    async fn end_take(&mut self, op: Resource<Operation>) -> Answer {
        enter!(self, "downstream.end-take");
        let outcome = self.finish(op).await?;
        self.downstream(outcome, "downstream.end-take")
    }
}
