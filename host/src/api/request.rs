//! `request`: the head, which handlers may change, and the body, which is read when asked for.

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use wasmtime::component::Resource;

use super::bindings::phasor::plugin::request::{BodyError, HeadError, Host, RequestHead};
use super::operation::{Outcome, Work, wrong_kind};
use super::{HostState, Operation, enter};
use crate::exchange::body::BodyError as Cause;
use crate::exchange::{self, ExchangeId};

/// A header list as the contract has it.
pub(super) fn header_list(headers: &http::HeaderMap) -> Vec<(String, Vec<u8>)> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
        .collect()
}

/// Name and value, checked.
pub(super) fn field(name: &str, value: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    Some((
        HeaderName::from_bytes(name.as_bytes()).ok()?,
        HeaderValue::from_bytes(value).ok()?,
    ))
}

/// Replaces all values of a name, or takes it away; false when something is not valid.
pub(super) fn replace(headers: &mut http::HeaderMap, name: &str, values: &[Vec<u8>]) -> bool {
    let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
        return false;
    };
    let Ok(values) = values
        .iter()
        .map(|v| HeaderValue::from_bytes(v))
        .collect::<Result<Vec<_>, _>>()
    else {
        return false;
    };
    headers.remove(&name);
    for value in values {
        headers.append(&name, value);
    }
    true
}

fn body_error(cause: Cause) -> BodyError {
    match cause {
        Cause::TooLarge => BodyError::TooLarge,
        Cause::Timeout => BodyError::Timeout,
        Cause::Closed => BodyError::Closed,
        Cause::Taken => BodyError::Taken,
    }
}

fn body(outcome: Outcome, function: &str) -> wasmtime::Result<Result<Vec<u8>, BodyError>> {
    match outcome {
        Outcome::Body(result) => Ok(result.map(|bytes| bytes.to_vec()).map_err(body_error)),
        _ => Err(wrong_kind(function)),
    }
}

async fn piece(id: ExchangeId) -> Result<Option<Bytes>, Cause> {
    std::future::poll_fn(|cx| exchange::with(id, |x| x.body.poll_piece(cx))).await
}

impl Host for HostState {
    fn head(&mut self) -> wasmtime::Result<RequestHead> {
        let id = enter!(self, "request.head");
        Ok(exchange::with(id, |x| RequestHead {
            method: x.request.method.as_str().to_owned(),
            uri: x.request.target.as_str().to_owned(),
            version: match x.request.version {
                http::Version::HTTP_10 => 10,
                http::Version::HTTP_2 => 20,
                _ => 11,
            },
            headers: header_list(&x.request.headers),
        }))
    }

    fn method(&mut self) -> wasmtime::Result<String> {
        let id = enter!(self, "request.method");
        Ok(exchange::with(id, |x| x.request.method.as_str().to_owned()))
    }

    fn uri(&mut self) -> wasmtime::Result<String> {
        let id = enter!(self, "request.uri");
        Ok(exchange::with(id, |x| x.request.target.as_str().to_owned()))
    }

    fn get_header(&mut self, name: String) -> wasmtime::Result<Option<Vec<u8>>> {
        let id = enter!(self, "request.get-header");
        Ok(exchange::with(id, |x| {
            x.request
                .headers
                .get(name)
                .map(|value| value.as_bytes().to_vec())
        }))
    }

    fn get_headers(&mut self) -> wasmtime::Result<Vec<(String, Vec<u8>)>> {
        let id = enter!(self, "request.get-headers");
        Ok(exchange::with(id, |x| header_list(&x.request.headers)))
    }

    fn set_method(&mut self, method: String) -> wasmtime::Result<Result<(), HeadError>> {
        let id = enter!(self, "request.set-method");
        let Ok(method) = http::Method::from_bytes(method.as_bytes()) else {
            return Ok(Err(HeadError::Invalid));
        };
        exchange::with(id, |x| x.request.method = method);
        Ok(Ok(()))
    }

    fn set_uri(&mut self, uri: String, reroute: bool) -> wasmtime::Result<Result<(), HeadError>> {
        let id = enter!(self, "request.set-uri");
        let early = self.phase <= crate::phase::Phase::Rewrite;
        if reroute && !early {
            return Ok(Err(HeadError::TooLate));
        }
        Ok(exchange::with(id, |x| {
            x.request.set_target(&uri).map_err(|_| HeadError::Invalid)?;
            x.reroute |= reroute;
            Ok(())
        }))
    }

    fn set_header(
        &mut self,
        name: String,
        values: Vec<Vec<u8>>,
    ) -> wasmtime::Result<Result<(), HeadError>> {
        let id = enter!(self, "request.set-header");
        let valid = exchange::with(id, |x| replace(&mut x.request.headers, &name, &values));
        Ok(if valid {
            Ok(())
        } else {
            Err(HeadError::Invalid)
        })
    }

    fn add_header(
        &mut self,
        name: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), HeadError>> {
        let id = enter!(self, "request.add-header");
        let Some((name, value)) = field(&name, &value) else {
            return Ok(Err(HeadError::Invalid));
        };
        exchange::with(id, |x| x.request.headers.append(name, value));
        Ok(Ok(()))
    }

    async fn read_body(&mut self, limit: u64) -> wasmtime::Result<Result<Vec<u8>, BodyError>> {
        let exchange = enter!(self, "request.read-body");
        let operation = Operation::new(Work::ReadBody { exchange, limit });
        body(operation.wait().await, "request.read-body")
    }

    fn begin_read_body(&mut self, limit: u64) -> wasmtime::Result<Resource<Operation>> {
        let exchange = enter!(self, "request.begin-read-body");
        self.begin(Work::ReadBody { exchange, limit })
    }

    async fn end_read_body(
        &mut self,
        op: Resource<Operation>,
    ) -> wasmtime::Result<Result<Vec<u8>, BodyError>> {
        enter!(self, "request.end-read-body");
        let outcome = self.finish(op).await?;
        body(outcome, "request.end-read-body")
    }

    async fn read(&mut self) -> wasmtime::Result<Result<Option<Vec<u8>>, BodyError>> {
        let id = enter!(self, "request.read");
        Ok(piece(id)
            .await
            .map(|piece| piece.map(|bytes| bytes.to_vec()))
            .map_err(body_error))
    }

    fn begin_read(&mut self) -> wasmtime::Result<Resource<Operation>> {
        let exchange = enter!(self, "request.begin-read");
        self.begin(Work::ReadPiece { exchange })
    }

    async fn end_read(
        &mut self,
        op: Resource<Operation>,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, BodyError>> {
        enter!(self, "request.end-read");
        match self.finish(op).await? {
            Outcome::Piece(piece) => Ok(piece
                .map(|piece| piece.map(|bytes| bytes.to_vec()))
                .map_err(body_error)),
            _ => Err(wrong_kind("request.end-read")),
        }
    }

    fn set_body(&mut self, body: Vec<u8>) -> wasmtime::Result<Result<(), BodyError>> {
        let id = enter!(self, "request.set-body");
        exchange::with(id, |x| {
            let length = HeaderValue::from(body.len());
            x.request
                .headers
                .insert(http::header::CONTENT_LENGTH, length);
            x.request.headers.remove(http::header::TRANSFER_ENCODING);
            x.body.replace(body.into());
        });
        Ok(Ok(()))
    }

    async fn discard_body(&mut self) -> wasmtime::Result<Result<(), BodyError>> {
        let id = enter!(self, "request.discard-body");
        loop {
            match piece(id).await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(Ok(())),
                Err(error) => return Ok(Err(body_error(error))),
            }
        }
    }
}
