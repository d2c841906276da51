//! From a target to a connected stream: the pool first, else the addresses of the name one after the
//! other, all within one time-out.

use std::fmt::Write as _;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpSocket, UnixStream};

use super::pool::{self, Bounds, Claim, Grant};
use super::transport::{Plain, Transport};
use super::{SocketError, Stream, resolve};

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A host's port.
    Tcp {
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
    },
    /// A unix socket's path.
    Unix(String),
}

impl Target {
    /// `unix:/path` is a unix socket, all else a host.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Self {
        match host.strip_prefix("unix:") {
            Some(path) => Self::Unix(path.to_owned()),
            None => Self::Tcp {
                host: host.to_owned(),
                port,
            },
        }
    }
}

impl Target {
    /// The name of its pool: as it is displayed, and asked for with each `connect`.
    fn pool(&self) -> String {
        match self {
            Self::Tcp { host, port } => {
                let mut name = String::with_capacity(host.len() + 6);
                name.push_str(host);
                name.push(':');
                let _infallible = write!(name, "{port}").is_ok();
                name
            }
            Self::Unix(_) => self.to_string(),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// How to connect.
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    /// For everything together.
    pub timeout: Duration,
    /// The pool's name; `None` is the target's.
    pub pool: Option<String>,
    /// Connections that a new pool keeps.
    pub pool_size: Option<usize>,
    /// The same when nothing is said.
    pub usual_size: usize,
    /// Idle connections of all pools of the owner.
    pub max_idle: usize,
    /// Bounds the pool's connections, and how many may wait for one.
    pub backlog: Option<usize>,
    /// The local address.
    pub local: Option<String>,
    /// Of the names that are looked up.
    pub names: resolve::Bounds,
}

/// How a `connect` began.
pub enum Connecting<F> {
    /// It is over: a connection of the pool, or none.
    Now(Result<Stream, SocketError>),
    /// It takes time.
    Later(F),
}

/// Connects, or takes a connection out of the pool. `owner` is the plugin: pools are its own, or a
/// name of a pool would reach what `allow.connect` does not.
pub fn connect(
    owner: &str,
    target: Target,
    options: ConnectOptions,
) -> Connecting<impl Future<Output = Result<Stream, SocketError>> + Send + 'static> {
    let own;
    let name = match &options.pool {
        Some(name) => name,
        None => {
            own = target.pool();
            &own
        }
    };
    let bounds = Bounds {
        size: options.pool_size,
        usual: options.usual_size,
        most: options.max_idle,
    };
    let claim = match pool::claim(owner, name, bounds, options.backlog) {
        Ok(Claim::Idle(stream)) => return Connecting::Now(Ok(stream)),
        Ok(claim) => claim,
        Err(error) => return Connecting::Now(Err(error)),
    };
    Connecting::Later(async move {
        match tokio::time::timeout(options.timeout, obtain(claim, target, options)).await {
            Ok(result) => result,
            Err(_) => Err(SocketError::Timeout),
        }
    })
}

async fn obtain(
    claim: Claim,
    target: Target,
    options: ConnectOptions,
) -> Result<Stream, SocketError> {
    let place = match claim {
        Claim::Idle(stream) => return Ok(stream),
        Claim::Dial(place) => place,
        Claim::Wait(mut place, granted) => match granted.await {
            Ok(Grant::Idle(idle)) => return Ok(idle.into_stream(place.key)),
            Ok(Grant::Dial(lease)) => {
                place.lease = Some(lease);
                place
            }
            Err(_) => return Err(SocketError::Closed),
        },
    };
    let transport = dial(target, options.local, options.names).await?;
    Ok(Stream::new(transport, place, 0))
}

async fn dial(
    target: Target,
    local: Option<String>,
    names: resolve::Bounds,
) -> Result<Transport, SocketError> {
    match target {
        Target::Unix(path) => UnixStream::connect(path)
            .await
            .map(|stream| Transport::Plain(Plain::Unix(stream)))
            .map_err(|error| SocketError::system(&error)),
        Target::Tcp { host, port } => {
            let local = local.as_deref().map(local_address).transpose()?;
            let mut last = SocketError::other("no address");
            for address in resolve::addresses(&host, port, names).await? {
                match to_address(address, local).await {
                    Ok(stream) => return Ok(Transport::Plain(Plain::Tcp(stream))),
                    Err(error) => last = SocketError::system(&error),
                }
            }
            Err(last)
        }
    }
}

pub(super) fn local_address(text: &str) -> Result<SocketAddr, SocketError> {
    text.parse::<SocketAddr>()
        .or_else(|_| {
            text.parse::<IpAddr>()
                .map(|address| SocketAddr::new(address, 0))
        })
        .map_err(|_| SocketError::other("bad address"))
}

async fn to_address(
    address: SocketAddr,
    local: Option<SocketAddr>,
) -> std::io::Result<tokio::net::TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // nginx sets it on every upstream connection, too.
    socket.set_nodelay(true)?;
    if let Some(local) = local {
        socket.set_reuseaddr(true)?;
        socket.bind(local)?;
    }
    socket.connect(address).await
}
