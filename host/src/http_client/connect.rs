//! A connection to an HTTP server comes about: name, socket, TLS, and which HTTP it will speak.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::Settings;
use crate::tls_client;

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectError {
    /// It took too long.
    Timeout(String),
    /// The system's or TLS's own text, with the address.
    Failed(String),
}

impl std::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Timeout(address) => write!(f, "connect to {address} timed out"),
            Self::Failed(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for ConnectError {}

/// Makes connections.
#[derive(Clone)]
pub(super) struct Connector {
    timeout: Duration,
    http2: bool,
    tls: Result<Arc<rustls::ClientConfig>, String>,
}

impl Connector {
    pub(super) fn new(settings: &Settings) -> Self {
        let protocols: &[&[u8]] = if settings.http2 {
            &[b"h2", b"http/1.1"]
        } else {
            &[b"http/1.1"]
        };
        Self {
            timeout: settings.connect_timeout,
            http2: settings.http2,
            tls: tls_client::client_config(settings.ca.as_deref(), protocols),
        }
    }

    async fn connect(self, uri: Uri) -> Result<Socket, ConnectError> {
        let host = uri.host().unwrap_or_default();
        let tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let address = format!("{host}:{port}");
        let failed =
            |e: &dyn std::fmt::Display| ConnectError::Failed(format!("connect to {address}: {e}"));
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let connecting = async {
            let stream = TcpStream::connect((bare, port))
                .await
                .map_err(|e| failed(&e))?;
            stream.set_nodelay(true).map_err(|e| failed(&e))?;
            if !tls {
                return Ok(Socket::Plain(TokioIo::new(stream)));
            }
            let config = self.tls.clone().map_err(|e| failed(&e))?;
            let name =
                rustls::pki_types::ServerName::try_from(bare.to_owned()).map_err(|e| failed(&e))?;
            let stream = tokio_rustls::TlsConnector::from(config)
                .connect(name, stream)
                .await
                .map_err(|e| failed(&e))?;
            let h2 = self.http2 && stream.get_ref().1.alpn_protocol() == Some(b"h2");
            Ok(Socket::Tls(Box::new(TokioIo::new(stream)), h2))
        };
        match tokio::time::timeout(self.timeout, connecting).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ConnectError::Timeout(address)),
        }
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = Socket;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<Socket, ConnectError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// A connected socket.
pub(super) enum Socket {
    Plain(TokioIo<TcpStream>),
    /// With TLS, and whether HTTP/2 was agreed on.
    Tls(Box<TokioIo<TlsStream<TcpStream>>>, bool),
}

impl Connection for Socket {
    fn connected(&self) -> Connected {
        match self {
            Self::Tls(_, true) => Connected::new().negotiated_h2(),
            Self::Plain(_) | Self::Tls(_, false) => Connected::new(),
        }
    }
}

impl Read for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream, _) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl Write for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream, _) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Self::Tls(stream, _) => Pin::new(stream).poll_write_vectored(cx, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream, _) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream, _) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream, _) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
