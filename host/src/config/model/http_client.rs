//! `[http_client]` as it is meant.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

/// `[http_client]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpClient {
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// Idle connections per worker and origin.
    pub keepalive: usize,
    /// Connections per worker and origin.
    pub connections: Option<NonZeroU32>,
    /// How long they are kept.
    pub keepalive_timeout: Duration,
    /// HTTP/2 where a server offers it.
    pub http2: bool,
    /// The authorities of TLS, as a PEM file.
    pub ca: Option<PathBuf>,
}
