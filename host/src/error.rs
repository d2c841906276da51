//! How a request fails, because whoever meets a failure must tell whose fault it was and whether
//! another try may help: the answer's status, the log's level and the retry all follow from that.
//!
//! The client sees the short text of the status; the log sees the chain of causes.

use std::error::Error;
use std::fmt;

/// What went wrong. Each kind has one status, in `response::error_page::status_of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request was not HTTP, or contradicted itself.
    BadRequest,
    /// The request's head did not come in time.
    RequestTimeout,
    /// The request's head is over `header_limit`.
    HeaderTooLarge,
    /// The request's body is over `body_limit`.
    BodyTooLarge,
    /// The request's target is too long.
    UriTooLong,
    /// No route, or nothing there.
    NotFound,
    /// The route has no such method.
    MethodNotAllowed,
    /// A range that the file does not have.
    RangeNotSatisfiable,
    /// A condition of the request does not hold.
    PreconditionFailed,
    /// The request may not have that.
    Forbidden,
    /// The client left before the answer was complete.
    ClientClosed,
    /// A plugin trapped.
    PluginTrap,
    /// A plugin's handler returned an error.
    PluginFailed,
    /// A plugin used up its `limits.cpu`.
    PluginCpu,
    /// A plugin went over its `limits.memory`.
    PluginMemory,
    /// The exchange went over a plugin's `limits.deadline`.
    PluginDeadline,
    /// No instance of a plugin came free in time.
    PoolExhausted,
    /// The rewrite phase asked for another route too often.
    RerouteLimit,
    /// Subrequests went too deep.
    SubrequestLimit,
    /// An upstream's peer could not be reached.
    UpstreamConnect,
    /// An upstream's peer did not answer in time.
    UpstreamTimeout,
    /// An upstream's peer closed, or sent what is not HTTP.
    UpstreamFailed,
    /// No peer of the upstream may be tried.
    NoLivePeer,
    /// The server is ending.
    Draining,
    /// A fault of the server's own.
    Host,
}

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Who sent the request.
    Client,
    /// Who was asked for the answer.
    Upstream,
    /// What a handler did.
    Plugin,
    /// Phasor itself.
    Host,
}

/// Whether another try may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// It would end in the same way, or do something twice.
    Never,
    /// The connection was an idle one that the peer had closed: a fresh one is as good as the first.
    FreshConnection,
    /// Nothing has been done yet: any other peer will do.
    Yes,
}

impl ErrorKind {
    /// Every kind, for tests and metrics.
    pub const ALL: &'static [Self] = &[
        Self::BadRequest,
        Self::RequestTimeout,
        Self::HeaderTooLarge,
        Self::BodyTooLarge,
        Self::UriTooLong,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RangeNotSatisfiable,
        Self::PreconditionFailed,
        Self::Forbidden,
        Self::ClientClosed,
        Self::PluginTrap,
        Self::PluginFailed,
        Self::PluginCpu,
        Self::PluginMemory,
        Self::PluginDeadline,
        Self::PoolExhausted,
        Self::RerouteLimit,
        Self::SubrequestLimit,
        Self::UpstreamConnect,
        Self::UpstreamTimeout,
        Self::UpstreamFailed,
        Self::NoLivePeer,
        Self::Draining,
        Self::Host,
    ];

    /// Whose fault this kind is, unless the error says otherwise.
    #[must_use]
    pub fn source(self) -> Source {
        match self {
            Self::BadRequest
            | Self::RequestTimeout
            | Self::HeaderTooLarge
            | Self::BodyTooLarge
            | Self::UriTooLong
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::RangeNotSatisfiable
            | Self::PreconditionFailed
            | Self::Forbidden
            | Self::ClientClosed => Source::Client,
            Self::PluginTrap
            | Self::PluginFailed
            | Self::PluginCpu
            | Self::PluginMemory
            | Self::PluginDeadline
            | Self::PoolExhausted
            | Self::RerouteLimit
            | Self::SubrequestLimit => Source::Plugin,
            Self::UpstreamConnect
            | Self::UpstreamTimeout
            | Self::UpstreamFailed
            | Self::NoLivePeer => Source::Upstream,
            Self::Draining | Self::Host => Source::Host,
        }
    }

    /// What the log says first.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::BadRequest => "client sent an invalid request",
            Self::RequestTimeout => "client timed out",
            Self::HeaderTooLarge => "client sent too large a header",
            Self::BodyTooLarge => "client intended to send too large a body",
            Self::UriTooLong => "client sent too long a URI",
            Self::NotFound => "not found",
            Self::MethodNotAllowed => "method not allowed",
            Self::RangeNotSatisfiable => "range not satisfiable",
            Self::PreconditionFailed => "precondition failed",
            Self::Forbidden => "access forbidden",
            Self::ClientClosed => "client closed the connection",
            Self::PluginTrap => "plugin trapped",
            Self::PluginFailed => "plugin failed",
            Self::PluginCpu => "plugin exceeded its CPU limit",
            Self::PluginMemory => "plugin exceeded its memory limit",
            Self::PluginDeadline => "plugin exceeded its deadline",
            Self::PoolExhausted => "no instance of the plugin came free",
            Self::RerouteLimit => "rewrite or internal redirection cycle",
            Self::SubrequestLimit => "subrequests went too deep",
            Self::UpstreamConnect => "connect to upstream failed",
            Self::UpstreamTimeout => "upstream timed out",
            Self::UpstreamFailed => "upstream failed",
            Self::NoLivePeer => "no live upstreams",
            Self::Draining => "server is draining",
            Self::Host => "internal fault",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Plugin => "plugin",
            Self::Host => "host",
        })
    }
}

/// Whatever lies beneath an error.
pub type Cause = Box<dyn Error + Send + Sync>;

/// A request that failed. Two are equal when kind, source and retry are: causes have no equality.
#[derive(Debug)]
pub struct RequestError {
    /// What went wrong.
    pub kind: ErrorKind,
    /// Whose fault it is.
    pub source: Source,
    /// Whether another try may help.
    pub retry: Retry,
    /// What lies beneath, for the log alone.
    pub cause: Option<Cause>,
}

impl RequestError {
    /// An error of that kind, of the kind's usual source, not to be tried again.
    #[must_use]
    pub fn new(kind: ErrorKind) -> Self {
        Self {
            kind,
            source: kind.source(),
            retry: Retry::Never,
            cause: None,
        }
    }

    /// An error of that kind with what lies beneath it (an error, or a text).
    #[must_use]
    pub fn because(kind: ErrorKind, cause: impl Into<Cause>) -> Self {
        Self {
            cause: Some(cause.into()),
            ..Self::new(kind)
        }
    }

    /// A fault of the server's own.
    #[must_use]
    pub fn host(cause: impl Into<Cause>) -> Self {
        Self::because(ErrorKind::Host, cause)
    }

    /// The same error with another source.
    #[must_use]
    pub fn from_source(self, source: Source) -> Self {
        Self { source, ..self }
    }

    /// The same error with another answer to "again?".
    #[must_use]
    pub fn retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }
}

impl PartialEq for RequestError {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, self.source, self.retry) == (other.kind, other.source, other.retry)
    }
}

/// The whole chain on one record: `upstream failed: read head: connection reset by peer`.
impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.text())?;
        let mut said = String::from(self.kind.text());
        let mut next: Option<&dyn Error> = self.cause.as_ref().map(|cause| &**cause as &dyn Error);
        while let Some(cause) = next {
            let text = cause.to_string();
            // Many errors print what lies beneath them already: say nothing twice.
            if !said.contains(&text) {
                write!(f, ": {text}")?;
                said.push_str(&text);
            }
            next = cause.source();
        }
        Ok(())
    }
}

impl Error for RequestError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause
            .as_ref()
            .map(|cause| &**cause as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::{ErrorKind, RequestError, Retry, Source};

    #[test]
    fn the_chain_of_causes_is_said_once() {
        let reset = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "reset by peer");
        let error =
            RequestError::because(ErrorKind::UpstreamFailed, reset).retry(Retry::FreshConnection);
        let outer = RequestError::host(error);
        assert_eq!(
            outer.to_string(),
            "internal fault: upstream failed: reset by peer"
        );
    }

    #[test]
    fn equality_leaves_out_the_cause() {
        let error = RequestError::because(ErrorKind::NotFound, "no route");
        assert_eq!(error, RequestError::new(ErrorKind::NotFound));
        assert_ne!(
            error,
            RequestError::new(ErrorKind::NotFound).from_source(Source::Plugin)
        );
    }
}
