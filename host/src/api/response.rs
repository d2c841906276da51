//! `response`: the answer's head until it is sent, and its body, whole or in pieces.

use bytes::Bytes;
use wasmtime::component::Resource;

use super::bindings::phasor::plugin::response::{Host, ResponseError};
use super::operation::{Outcome, Work, wrong_kind};
use super::request::{field, header_list, replace};
use super::{HostState, Operation, enter};
use crate::exchange::{self, Exchange, ExchangeId};

/// A change of the head, if it can still change.
fn edit(
    id: ExchangeId,
    f: impl FnOnce(&mut Exchange) -> Result<(), ResponseError>,
) -> Result<(), ResponseError> {
    exchange::with(id, |x| {
        if x.response.sent {
            Err(ResponseError::HeadSent)
        } else {
            f(x)
        }
    })
}

/// Queues a piece of the body and lets the head go, if it has not gone yet.
fn piece(id: ExchangeId, bytes: Vec<u8>) -> Result<(), ResponseError> {
    exchange::with(id, |x| {
        if x.output.is_unwanted() {
            return Err(ResponseError::Closed);
        }
        if x.output.ended {
            return Err(ResponseError::Ended);
        }
        if x.response.status == 0 {
            x.response.status = 200;
        }
        x.response.ready = true;
        x.output.push(Bytes::from(bytes));
        x.wake();
        Ok(())
    })
}

fn written(outcome: &Outcome, function: &str) -> wasmtime::Result<Result<(), ResponseError>> {
    match outcome {
        Outcome::Written(true) => Ok(Ok(())),
        Outcome::Written(false) => Ok(Err(ResponseError::Closed)),
        _ => Err(wrong_kind(function)),
    }
}

impl Host for HostState {
    fn send(
        &mut self,
        status: u16,
        headers: Vec<(String, Vec<u8>)>,
        body: Vec<u8>,
    ) -> wasmtime::Result<Result<(), ResponseError>> {
        let id = enter!(self, "response.send");
        if !(100..=999).contains(&status) {
            return Ok(Err(ResponseError::Invalid));
        }
        Ok(edit(id, |x| {
            if x.output.ended {
                return Err(ResponseError::Ended);
            }
            for (name, value) in &headers {
                let (name, value) = field(name, value).ok_or(ResponseError::Invalid)?;
                x.response.headers.insert(name, value);
            }
            x.response.status = status;
            x.response.ready = true;
            x.output.whole = x.output.queued() == 0;
            x.output.push(Bytes::from(body));
            x.output.end();
            Ok(())
        }))
    }

    fn status(&mut self) -> wasmtime::Result<u16> {
        let id = enter!(self, "response.status");
        Ok(exchange::with(id, |x| x.response.status))
    }

    fn set_status(&mut self, status: u16) -> wasmtime::Result<Result<(), ResponseError>> {
        let id = enter!(self, "response.set-status");
        if !(100..=999).contains(&status) {
            return Ok(Err(ResponseError::Invalid));
        }
        Ok(edit(id, |x| {
            x.response.status = status;
            Ok(())
        }))
    }

    fn get_header(&mut self, name: String) -> wasmtime::Result<Option<Vec<u8>>> {
        let id = enter!(self, "response.get-header");
        Ok(exchange::with(id, |x| {
            x.response
                .headers
                .get(name)
                .map(|value| value.as_bytes().to_vec())
        }))
    }

    fn get_headers(&mut self) -> wasmtime::Result<Vec<(String, Vec<u8>)>> {
        let id = enter!(self, "response.get-headers");
        Ok(exchange::with(id, |x| header_list(&x.response.headers)))
    }

    fn set_header(
        &mut self,
        name: String,
        values: Vec<Vec<u8>>,
    ) -> wasmtime::Result<Result<(), ResponseError>> {
        let id = enter!(self, "response.set-header");
        Ok(edit(id, |x| {
            if replace(&mut x.response.headers, &name, &values) {
                Ok(())
            } else {
                Err(ResponseError::Invalid)
            }
        }))
    }

    fn add_header(
        &mut self,
        name: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), ResponseError>> {
        let id = enter!(self, "response.add-header");
        Ok(edit(id, |x| {
            let (name, value) = field(&name, &value).ok_or(ResponseError::Invalid)?;
            x.response.headers.append(name, value);
            Ok(())
        }))
    }

    fn head_sent(&mut self) -> wasmtime::Result<bool> {
        let id = enter!(self, "response.head-sent");
        Ok(exchange::with(id, |x| x.response.sent))
    }

    async fn write(&mut self, bytes: Vec<u8>) -> wasmtime::Result<Result<(), ResponseError>> {
        let exchange = enter!(self, "response.write");
        if let Err(error) = piece(exchange, bytes) {
            return Ok(Err(error));
        }
        written(
            &Operation::new(Work::Write { exchange }).wait().await,
            "response.write",
        )
    }

    fn begin_write(&mut self, bytes: Vec<u8>) -> wasmtime::Result<Resource<Operation>> {
        let exchange = enter!(self, "response.begin-write");
        match piece(exchange, bytes) {
            Ok(()) => self.begin(Work::Write { exchange }),
            Err(_) => self.begin(Work::Done(Outcome::Written(false))),
        }
    }

    async fn end_write(
        &mut self,
        op: Resource<Operation>,
    ) -> wasmtime::Result<Result<(), ResponseError>> {
        enter!(self, "response.end-write");
        written(&self.finish(op).await?, "response.end-write")
    }

    fn finish(&mut self) -> wasmtime::Result<Result<(), ResponseError>> {
        let id = enter!(self, "response.finish");
        exchange::with(id, |x| {
            if x.response.status == 0 {
                x.response.status = 200;
            }
            x.response.ready = true;
            x.output.end();
            x.wake();
        });
        Ok(Ok(()))
    }
}
