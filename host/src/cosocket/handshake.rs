//! TLS on a connected stream, as a client: the handshake is a value that is polled, like the rest.
//!
//! What is believed and shown makes a rustls configuration; a worker keeps the last few, because a
//! session is only resumed under the configuration that it was made under, and because a key is not
//! to be parsed for every connection.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::pki_types::ServerName;
use tokio_rustls::{Connect, TlsConnector};

use super::transport::{Plain, Secured, Transport};
use super::{Limit, SocketError, Stream};
use crate::tls_client::{self, Trust};

/// Configurations that a worker keeps: one for each set of authorities and certificates in use.
const CONFIGURATIONS: usize = 64;
/// Servers that a session holds tickets of; it is made with one.
const SERVERS: usize = 1;

thread_local!(static KEPT: RefCell<Vec<(Trust, Arc<ClientConfig>)>> = const { RefCell::new(Vec::new()) });

fn configuration(trust: &Trust) -> Result<Arc<ClientConfig>, SocketError> {
    KEPT.with_borrow_mut(|kept| {
        if let Some(at) = kept.iter().position(|(known, _)| known == trust) {
            // The one used last stands last.
            let found = kept.remove(at);
            let config = found.1.clone();
            kept.push(found);
            return Ok(config);
        }
        let config = tls_client::trusting(trust).map_err(SocketError::Other)?;
        if kept.len() >= CONFIGURATIONS {
            kept.remove(0);
        }
        kept.push((trust.clone(), config.clone()));
        Ok(config)
    })
}

/// What a server gave to resume a connection with: it fills while the connection is used, because
/// TLS 1.3 sends its tickets after the handshake.
#[derive(Clone)]
pub struct Session(Arc<ClientSessionMemoryCache>);

impl Session {
    fn empty() -> Self {
        Self(Arc::new(ClientSessionMemoryCache::new(SERVERS)))
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// Why a handshake failed: what the guest is told, and what the error log is told beside it.
#[derive(Debug)]
pub struct HandshakeError {
    /// For the guest.
    pub error: SocketError,
    /// TLS's own reason.
    pub detail: Option<String>,
}

impl From<SocketError> for HandshakeError {
    fn from(error: SocketError) -> Self {
        Self {
            error,
            detail: None,
        }
    }
}

impl HandshakeError {
    fn new(error: &io::Error) -> Self {
        let tls = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let text = tls.and_then(tls_client::refusal);
        Self {
            error: SocketError::other(text.unwrap_or("handshake failed")),
            detail: Some(error.to_string()),
        }
    }
}

/// A handshake under way; dropping it before its end closes the stream.
pub struct Handshake {
    stream: Stream,
    state: State,
    limit: Limit,
    mine: bool,
}

enum State {
    Connecting(Box<Connect<Plain>>, Session),
    Failed(Option<SocketError>),
    /// TLS was there already: the connection comes from a pool.
    Over,
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake").finish_non_exhaustive()
    }
}

impl Stream {
    /// Begins a handshake. `name` is sent and looked for in the certificate; without one neither is
    /// done. With a session the server may resume it.
    #[must_use]
    pub fn handshake(
        &self,
        name: Option<&str>,
        trust: &Trust,
        session: Option<&Session>,
        timeout: Duration,
    ) -> Handshake {
        let mut socket = self.0.lock();
        // The client's own connection is not ours to secure.
        let mine = !socket.reading && !socket.writing && !socket.is_downstream();
        let mut state = State::Over;
        if mine && !matches!(socket.transport, Some(Transport::Tls(_))) {
            state = match prepare(name, trust, session) {
                Err(error) => State::Failed(Some(error)),
                Ok((connector, name, session)) => match socket.transport.take() {
                    Some(Transport::Plain(plain)) => {
                        State::Connecting(Box::new(connector.connect(name, plain)), session)
                    }
                    _ => State::Failed(Some(SocketError::Closed)),
                },
            };
        }
        if mine {
            (socket.reading, socket.writing) = (true, true);
        }
        drop(socket);
        Handshake {
            stream: self.clone(),
            state,
            limit: Limit::new(timeout),
            mine,
        }
    }

    /// What another connection to the same server can be resumed with.
    #[must_use]
    pub fn session(&self) -> Option<Session> {
        match &self.0.lock().transport {
            Some(Transport::Tls(secured)) => Some(secured.session.clone()),
            _ => None,
        }
    }
}

fn prepare(
    name: Option<&str>,
    trust: &Trust,
    session: Option<&Session>,
) -> Result<(TlsConnector, ServerName<'static>, Session), SocketError> {
    let mut config = (*configuration(trust)?).clone();
    let session = session.cloned().unwrap_or_else(Session::empty);
    config.resumption = Resumption::store(session.0.clone());
    let name = match name {
        Some(name) => ServerName::try_from(name.to_owned())
            .map_err(|_| SocketError::other("bad server name"))?,
        // An address is not sent; `trust` says that it is not looked for either.
        None => {
            config.enable_sni = false;
            ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into())
        }
    };
    Ok((TlsConnector::from(Arc::new(config)), name, session))
}

impl Handshake {
    /// Polls until the stream speaks TLS.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HandshakeError>> {
        if !self.mine {
            return Poll::Ready(Err(SocketError::Busy.into()));
        }
        let (connect, session) = match &mut self.state {
            State::Over => return Poll::Ready(Ok(())),
            State::Failed(error) => {
                let error = error.take().unwrap_or(SocketError::Closed);
                return Poll::Ready(Err(error.into()));
            }
            State::Connecting(connect, session) => (connect, session),
        };
        let mut socket = self.stream.0.lock();
        if socket.place.is_none() {
            return Poll::Ready(Err(SocketError::Closed.into()));
        }
        match std::pin::Pin::new(connect.as_mut()).poll(cx) {
            Poll::Ready(Ok(stream)) => {
                let session = session.clone();
                socket.transport = Some(Transport::Tls(Box::new(Secured { stream, session })));
                drop(socket);
                self.state = State::Over;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(HandshakeError::new(&error))),
            Poll::Pending => {
                socket.reader = Some(cx.waker().clone());
                drop(socket);
                self.limit
                    .poll(cx)
                    .map(|()| Err(SocketError::Timeout.into()))
            }
        }
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        if self.mine {
            let mut socket = self.stream.0.lock();
            (socket.reading, socket.writing) = (false, false);
            if !matches!(self.state, State::Over) {
                socket.close();
            }
        }
    }
}
