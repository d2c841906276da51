//! `cosocket`: the worker's non-blocking sockets, within what `allow.connect` names.

mod datagram;

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use wasmtime::component::Resource;

use super::bindings::phasor::plugin::cosocket as wit;
use super::operation::{Outcome, Work, wrong_kind};
use super::{HostState, Operation, enter};
use crate::cosocket::{
    self, ConnectOptions, Connecting, Session, SocketError, Stream, StreamOption, Target,
};
use crate::exchange::{self, NO_EXCHANGE};
use crate::observe::error_log::Level;
use crate::tls_client::{Identity, Trust};

fn error(error: SocketError) -> wit::SocketError {
    match error {
        SocketError::Timeout => wit::SocketError::Timeout,
        SocketError::Closed => wit::SocketError::Closed,
        SocketError::Refused => wit::SocketError::Refused,
        SocketError::Busy => wit::SocketError::Busy,
        SocketError::Other(text) => wit::SocketError::Other(text),
    }
}

fn option(option: wit::StreamOption) -> StreamOption {
    match option {
        wit::StreamOption::Keepalive => StreamOption::KeepAlive,
        wit::StreamOption::Reuseaddr => StreamOption::ReuseAddress,
        wit::StreamOption::TcpNodelay => StreamOption::NoDelay,
        wit::StreamOption::Sndbuf => StreamOption::SendBuffer,
        wit::StreamOption::Rcvbuf => StreamOption::ReceiveBuffer,
    }
}

/// Zero is nothing said.
fn said(size: u32) -> Option<usize> {
    (size > 0).then_some(size as usize)
}

fn milliseconds(time: u32) -> Duration {
    Duration::from_millis(u64::from(time))
}

type Handle = Resource<Stream>;
type Answer<T> = wasmtime::Result<Result<T, wit::SocketError>>;

/// A future or operation, polled once to see whether there is anything to wait for.
fn at_once<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
    match poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

impl HostState {
    fn stream(&self, handle: &Handle) -> wasmtime::Result<Stream> {
        enter!(self, "cosocket.stream");
        Ok(self.table.get(handle)?.clone())
    }

    /// Whether `allow.connect` names the target; if not, the error log says so.
    fn may_connect(&mut self, host: &str, port: u16) -> bool {
        let allowed = self
            .plugin
            .allow
            .connect
            .allows(|allowed| allowed.fits(host, port));
        if !allowed {
            self.refuse("connect", &Target::new(host, port).to_string());
        }
        allowed
    }

    /// A connection of the pool at once, or one under way.
    fn connecting(
        &mut self,
        host: &str,
        port: u16,
        options: wit::ConnectOptions,
    ) -> Connecting<impl Future<Output = Result<Stream, SocketError>> + Send + 'static> {
        if !self.may_connect(host, port) {
            return Connecting::Now(Err(SocketError::Refused));
        }
        let settings = &self.plugin.cosocket;
        let options = ConnectOptions {
            timeout: milliseconds(options.timeout),
            pool: options.pool,
            pool_size: said(options.pool_size),
            usual_size: settings.pool_size,
            max_idle: settings.max_idle,
            backlog: options.backlog.map(|n| n as usize),
            local: options.local,
            names: settings.names,
        };
        cosocket::connect(&self.plugin.name, Target::new(host, port), options)
    }

    /// Gives a connected stream to the guest, and its end to the exchange.
    fn connected(&mut self, result: Result<Stream, SocketError>) -> Answer<Handle> {
        let stream = match result {
            Ok(stream) => stream,
            Err(cause) => return Ok(Err(error(cause))),
        };
        if self.exchange != NO_EXCHANGE {
            exchange::try_with(self.exchange, |x| x.adopt(stream.closer()));
        }
        Ok(Ok(self.table.push(stream)?))
    }
}

impl HostState {
    /// A handshake under way, with what the configuration says where the guest says nothing.
    fn handshaking(
        &self,
        stream: &Handle,
        options: wit::TlsOptions,
        session: Option<&Resource<Session>>,
    ) -> wasmtime::Result<Work> {
        let stream = self.stream(stream)?;
        let session = session.map(|s| self.table.get(s)).transpose()?;
        let configured = &self.plugin.cosocket.trust;
        let given = options.identity.map(|identity| Identity {
            certificate: identity.certificate.into(),
            key: identity.key.into(),
        });
        let trust = Trust {
            authorities: match options.authorities {
                Some(pem) => Some(pem.into()),
                None => configured.authorities.clone(),
            },
            verify: options.verify,
            check_name: options.server_name.is_some(),
            identity: given.or_else(|| configured.identity.clone()),
        };
        let mut handshake = stream.handshake(
            options.server_name.as_deref(),
            &trust,
            session,
            milliseconds(options.timeout),
        );
        Ok(Work::Task(Box::pin(async move {
            Outcome::Secured(std::future::poll_fn(|cx| handshake.poll(cx)).await)
        })))
    }

    /// A refused certificate says why; of all else the error log has the reason.
    fn secured(&self, outcome: Outcome, function: &str) -> Answer<()> {
        let Outcome::Secured(result) = outcome else {
            return Err(wrong_kind(function));
        };
        Ok(result.map_err(|failed| {
            if let Some(detail) = failed.detail {
                self.log(Level::Error, &format!("TLS handshake failed: {detail}"));
            }
            error(failed.error)
        }))
    }
}

impl wit::HostTlsSession for HostState {
    fn drop(&mut self, session: Resource<Session>) -> wasmtime::Result<()> {
        self.table.delete(session)?;
        Ok(())
    }
}

fn received(outcome: Outcome, function: &str) -> Answer<Vec<u8>> {
    match outcome {
        Outcome::Received(result) => Ok(result.map_err(error)),
        _ => Err(wrong_kind(function)),
    }
}

fn sent(outcome: Outcome, function: &str) -> Answer<()> {
    match outcome {
        Outcome::Sent(result) => Ok(result.map_err(error)),
        _ => Err(wrong_kind(function)),
    }
}

impl wit::Host for HostState {}

impl wit::HostStream for HostState {
    async fn connect(
        &mut self,
        host: String,
        port: u16,
        options: wit::ConnectOptions,
    ) -> Answer<Handle> {
        enter!(self, "cosocket.stream");
        let result = match self.connecting(&host, port, options) {
            Connecting::Now(result) => result,
            Connecting::Later(connecting) => connecting.await,
        };
        self.connected(result)
    }

    fn begin_connect(
        &mut self,
        host: String,
        port: u16,
        options: wit::ConnectOptions,
    ) -> wasmtime::Result<wit::Connecting> {
        enter!(self, "cosocket.stream");
        Ok(match self.connecting(&host, port, options) {
            Connecting::Now(result) => wit::Connecting::Now(self.connected(result)?),
            Connecting::Later(connecting) => {
                wit::Connecting::Later(self.begin(Work::Task(Box::pin(async move {
                    Outcome::Connected(connecting.await)
                })))?)
            }
        })
    }

    async fn end_connect(&mut self, op: Resource<Operation>) -> Answer<Handle> {
        enter!(self, "cosocket.stream");
        match self.finish(op).await? {
            Outcome::Connected(result) => self.connected(result),
            _ => Err(wrong_kind("cosocket.stream.end-connect")),
        }
    }

    async fn handshake(
        &mut self,
        stream: Handle,
        options: wit::TlsOptions,
        session: Option<Resource<Session>>,
    ) -> Answer<()> {
        let work = self.handshaking(&stream, options, session.as_ref())?;
        let outcome = Operation::new(work).wait().await;
        self.secured(outcome, "cosocket.stream.handshake")
    }

    fn begin_handshake(
        &mut self,
        stream: Handle,
        options: wit::TlsOptions,
        session: Option<Resource<Session>>,
    ) -> wasmtime::Result<Resource<Operation>> {
        let work = self.handshaking(&stream, options, session.as_ref())?;
        self.begin(work)
    }

    async fn end_handshake(&mut self, op: Resource<Operation>) -> Answer<()> {
        enter!(self, "cosocket.stream");
        let outcome = self.finish(op).await?;
        self.secured(outcome, "cosocket.stream.end-handshake")
    }

    fn session(&mut self, stream: Handle) -> wasmtime::Result<Option<Resource<Session>>> {
        let session = self.stream(&stream)?.session();
        Ok(session.map(|s| self.table.push(s)).transpose()?)
    }

    async fn send(&mut self, stream: Handle, bytes: Vec<u8>, timeout: u32) -> Answer<()> {
        let mut send = self.stream(&stream)?.send(bytes, milliseconds(timeout));
        Ok(std::future::poll_fn(|cx| send.poll(cx))
            .await
            .map_err(error))
    }

    fn begin_send(
        &mut self,
        stream: Handle,
        bytes: Vec<u8>,
        timeout: u32,
    ) -> wasmtime::Result<wit::Sending> {
        let mut send = self.stream(&stream)?.send(bytes, milliseconds(timeout));
        Ok(match at_once(|cx| send.poll(cx)) {
            Some(result) => wit::Sending::Now(result.map_err(error)),
            None => wit::Sending::Later(self.begin(Work::Send(send))?),
        })
    }

    async fn end_send(&mut self, op: Resource<Operation>) -> Answer<()> {
        enter!(self, "cosocket.stream");
        sent(self.finish(op).await?, "cosocket.stream.end-send")
    }

    async fn receive(&mut self, stream: Handle, max: u32, timeout: u32) -> Answer<Vec<u8>> {
        let mut receive = self
            .stream(&stream)?
            .receive(max as usize, milliseconds(timeout));
        Ok(std::future::poll_fn(|cx| receive.poll(cx))
            .await
            .map_err(error))
    }

    fn begin_receive(
        &mut self,
        stream: Handle,
        max: u32,
        timeout: u32,
    ) -> wasmtime::Result<wit::Receiving> {
        let mut receive = self
            .stream(&stream)?
            .receive(max as usize, milliseconds(timeout));
        Ok(match at_once(|cx| receive.poll(cx)) {
            Some(result) => wit::Receiving::Now(result.map_err(error)),
            None => wit::Receiving::Later(self.begin(Work::Receive(receive))?),
        })
    }

    async fn end_receive(&mut self, op: Resource<Operation>) -> Answer<Vec<u8>> {
        enter!(self, "cosocket.stream");
        received(self.finish(op).await?, "cosocket.stream.end-receive")
    }

    fn close(&mut self, stream: Handle) -> wasmtime::Result<()> {
        self.stream(&stream)?.close();
        Ok(())
    }

    fn keep_alive(&mut self, stream: Handle, idle: u32, size: u32) -> Answer<()> {
        enter!(self, "cosocket.stream");
        let stream = self.table.delete(stream)?;
        let kept = stream.keep_alive(milliseconds(idle), said(size));
        if kept.is_err() {
            stream.let_go();
        }
        Ok(kept.map_err(error))
    }

    fn reused(&mut self, stream: Handle) -> wasmtime::Result<u32> {
        Ok(self.stream(&stream)?.reused())
    }

    fn set_option(&mut self, stream: Handle, which: wit::StreamOption, value: u32) -> Answer<()> {
        Ok(self
            .stream(&stream)?
            .set_option(option(which), value)
            .map_err(error))
    }

    fn get_option(&mut self, stream: Handle, which: wit::StreamOption) -> Answer<u32> {
        Ok(self.stream(&stream)?.option(option(which)).map_err(error))
    }

    fn drop(&mut self, stream: Handle) -> wasmtime::Result<()> {
        self.table.delete(stream)?.let_go();
        Ok(())
    }
}
