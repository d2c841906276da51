//! The datagrams of `cosocket`.

use wasmtime::component::Resource;

use super::super::bindings::phasor::plugin::cosocket as wit;
use super::super::operation::{Outcome, Work, wrong_kind};
use super::super::{HostState, Operation, enter};
use super::{Answer, at_once, error, milliseconds, received};
use crate::cosocket::{self, Datagrams, SocketError, Target};
use crate::exchange::{self, NO_EXCHANGE};

type Handle = Resource<Datagrams>;

impl HostState {
    fn datagrams(&self, handle: &Handle) -> wasmtime::Result<Datagrams> {
        enter!(self, "cosocket.datagram");
        Ok(self.table.get(handle)?.clone())
    }

    fn opening_datagrams(
        &mut self,
        host: &str,
        port: u16,
        local: Option<String>,
        timeout: u32,
    ) -> Work {
        if !self.may_connect(host, port) {
            return Work::Done(Outcome::Opened(Err(SocketError::Refused)));
        }
        let names = self.plugin.cosocket.names;
        let timeout = milliseconds(timeout);
        let opening = cosocket::open_datagrams(Target::new(host, port), local, names, timeout);
        Work::Task(Box::pin(async move { Outcome::Opened(opening.await) }))
    }

    fn opened_datagrams(&mut self, outcome: Outcome, function: &str) -> Answer<Handle> {
        let Outcome::Opened(result) = outcome else {
            return Err(wrong_kind(function));
        };
        let socket = match result {
            Ok(socket) => socket,
            Err(cause) => return Ok(Err(error(cause))),
        };
        if self.exchange != NO_EXCHANGE {
            exchange::try_with(self.exchange, |x| x.adopt(socket.closer()));
        }
        Ok(Ok(self.table.push(socket)?))
    }
}

impl wit::HostDatagram for HostState {
    async fn connect(
        &mut self,
        host: String,
        port: u16,
        local: Option<String>,
        timeout: u32,
    ) -> Answer<Handle> {
        enter!(self, "cosocket.datagram");
        let work = self.opening_datagrams(&host, port, local, timeout);
        let outcome = Operation::new(work).wait().await;
        self.opened_datagrams(outcome, "cosocket.datagram.connect")
    }

    fn begin_connect(
        &mut self,
        host: String,
        port: u16,
        local: Option<String>,
        timeout: u32,
    ) -> wasmtime::Result<Resource<Operation>> {
        enter!(self, "cosocket.datagram");
        let work = self.opening_datagrams(&host, port, local, timeout);
        self.begin(work)
    }

    async fn end_connect(&mut self, op: Resource<Operation>) -> Answer<Handle> {
        enter!(self, "cosocket.datagram");
        let outcome = self.finish(op).await?;
        self.opened_datagrams(outcome, "cosocket.datagram.end-connect")
    }

    fn send(&mut self, socket: Handle, bytes: Vec<u8>) -> Answer<()> {
        Ok(self.datagrams(&socket)?.send(&bytes).map_err(error))
    }

    async fn receive(&mut self, socket: Handle, max: u32, timeout: u32) -> Answer<Vec<u8>> {
        let socket = self.datagrams(&socket)?;
        let mut receive = socket.receive(max as usize, milliseconds(timeout));
        Ok(std::future::poll_fn(|cx| receive.poll(cx))
            .await
            .map_err(error))
    }

    fn begin_receive(
        &mut self,
        socket: Handle,
        max: u32,
        timeout: u32,
    ) -> wasmtime::Result<wit::Receiving> {
        let socket = self.datagrams(&socket)?;
        let mut receive = socket.receive(max as usize, milliseconds(timeout));
        Ok(match at_once(|cx| receive.poll(cx)) {
            Some(result) => wit::Receiving::Now(result.map_err(error)),
            None => wit::Receiving::Later(self.begin(Work::Task(Box::pin(async move {
                Outcome::Received(std::future::poll_fn(|cx| receive.poll(cx)).await)
            })))?),
        })
    }

    async fn end_receive(&mut self, op: Resource<Operation>) -> Answer<Vec<u8>> {
        enter!(self, "cosocket.datagram");
        received(self.finish(op).await?, "cosocket.datagram.end-receive")
    }

    fn close(&mut self, socket: Handle) -> wasmtime::Result<()> {
        self.datagrams(&socket)?.close();
        Ok(())
    }

    fn drop(&mut self, socket: Handle) -> wasmtime::Result<()> {
        self.table.delete(socket)?.close();
        Ok(())
    }
}
