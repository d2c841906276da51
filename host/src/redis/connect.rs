//! A connection comes about: address, TLS, log-in and protocol, and the sentinels' word on which
//! server is the master.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::redis::aio::{ConnectionLike as _, MultiplexedConnection, PubSub};
use ::redis::{AsyncConnectionConfig, ProtocolVersion, RedisConnectionInfo, Value};
use tokio::io::{AsyncRead, AsyncWrite};

use super::limit::Limited;
use super::{RedisError, text};
use crate::config::model::{Redis, RedisAddress, RedisKind};
use crate::tls_client;

/// Anything that a connection can run on.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

type BoxedStream = Box<dyn Stream>;

/// Commands that may wait to be written before their senders wait, too; the client's own bound is
/// the one that counts.
const BUFFER: usize = 4096;

/// A connection, and how it fares.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) multiplexed: MultiplexedConnection,
    /// Its task has ended.
    pub(super) closed: Arc<AtomicBool>,
    /// A reply was too long.
    pub(super) exceeded: Arc<AtomicBool>,
    /// Aborts the task with the last clone.
    _task: Arc<Task>,
}

struct Task(tokio::task::AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An error of the `redis` crate as one of ours.
pub(super) fn fault(error: &::redis::RedisError) -> RedisError {
    if error.is_timeout() {
        return RedisError::Timeout;
    }
    if let Some(errors) = error.clone().into_server_errors() {
        // Which of its commands is to blame, in the server's words.
        return RedisError::Failed(match errors.first() {
            Some((_, first)) => format!("EXECABORT {}", text(first)),
            None => "EXECABORT".to_owned(),
        });
    }
    match error.kind() {
        ::redis::ErrorKind::Server(_) | ::redis::ErrorKind::Extension => {
            let code = error.code().unwrap_or("ERR");
            RedisError::Failed(match error.detail() {
                Some(detail) => format!("{code} {detail}"),
                None => code.to_owned(),
            })
        }
        _ => RedisError::Unavailable(error.to_string()),
    }
}

fn unavailable(address: &RedisAddress, error: &dyn std::fmt::Display) -> RedisError {
    RedisError::Unavailable(format!("{address}: {error}"))
}

/// A socket to an address, with TLS when the configuration says so.
async fn open(config: &Redis, address: &RedisAddress) -> Result<BoxedStream, RedisError> {
    let wrong = |error: std::io::Error| unavailable(address, &error);
    let (host, port) = match address {
        RedisAddress::Unix(path) => {
            let stream = tokio::net::UnixStream::connect(path).await.map_err(wrong)?;
            return Ok(Box::new(stream));
        }
        RedisAddress::Tcp(host, port) => (host.as_str(), *port),
    };
    let stream = tokio::net::TcpStream::connect((host, port))
        .await
        .map_err(wrong)?;
    stream.set_nodelay(true).map_err(wrong)?;
    if !config.url.tls {
        return Ok(Box::new(stream));
    }
    let connector = tokio_rustls::TlsConnector::from(
        tls_client::client_config(config.ca.as_deref(), &[])
            .map_err(|e| unavailable(address, &e))?,
    );
    let name = rustls::pki_types::ServerName::try_from(host.to_owned())
        .map_err(|e| unavailable(address, &e))?;
    let stream = connector.connect(name, stream).await.map_err(wrong)?;
    Ok(Box::new(stream))
}

/// How to log in.
fn login(config: &Redis, protocol: ProtocolVersion, db: i64) -> RedisConnectionInfo {
    let mut login = RedisConnectionInfo::default()
        .set_protocol(protocol)
        .set_db(db)
        .set_lib_name("phasor", env!("CARGO_PKG_VERSION"));
    if let Some(user) = &config.url.user {
        login = login.set_username(user);
    }
    if let Some(password) = &config.url.password {
        login = login.set_password(password);
    }
    login
}

async fn log_in(
    config: &Redis,
    address: &RedisAddress,
    protocol: ProtocolVersion,
    db: i64,
) -> Result<Connection, RedisError> {
    let exceeded = Arc::new(AtomicBool::new(false));
    let stream = open(config, address).await?;
    let stream = Limited::new(stream, config.reply_limit, exceeded.clone());
    let settings = AsyncConnectionConfig::new()
        .set_response_timeout(None)
        .set_pipeline_buffer_size(BUFFER);
    let (multiplexed, driver) =
        MultiplexedConnection::new_with_config(&login(config, protocol, db), stream, settings)
            .await
            .map_err(|error| match fault(&error) {
                RedisError::Unavailable(text) => unavailable(address, &text),
                other => other,
            })?;
    let closed = Arc::new(AtomicBool::new(false));
    let over = closed.clone();
    let task = tokio::task::spawn_local(async move {
        driver.await;
        over.store(true, Ordering::Relaxed);
    });
    Ok(Connection {
        multiplexed,
        closed,
        exceeded,
        _task: Arc::new(Task(task.abort_handle())),
    })
}

/// A server that does not know RESP3 says so in the words of an unknown command.
fn lacks_resp3(error: &RedisError) -> bool {
    match error {
        RedisError::Failed(text) => text.contains("unknown command") || text.starts_with("NOPROTO"),
        RedisError::Unavailable(text) => text.contains("RESP3"),
        _ => false,
    }
}

async fn to_address(
    config: &Redis,
    address: &RedisAddress,
    db: i64,
) -> Result<Connection, RedisError> {
    let first = match config.protocol {
        Some(2) => ProtocolVersion::RESP2,
        _ => ProtocolVersion::RESP3,
    };
    match log_in(config, address, first, db).await {
        Err(error) if config.protocol.is_none() && lacks_resp3(&error) => {
            log_in(config, address, ProtocolVersion::RESP2, db).await
        }
        outcome => outcome,
    }
}

/// The server that commands go to: the only one, or the master that a sentinel names.
async fn server(config: &Redis) -> Result<RedisAddress, RedisError> {
    let RedisKind::Sentinel(master) = &config.url.kind else {
        return Ok(config.url.addresses[0].clone());
    };
    let mut last = RedisError::Unavailable("no sentinel answers".to_owned());
    // A sentinel asks for no log-in of the server's, and has one database.
    let mut asking = config.clone();
    asking.url.user = None;
    asking.url.password = None;
    for sentinel in &config.url.addresses {
        match ask_sentinel(&asking, sentinel, master).await {
            Ok(address) => return Ok(address),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn ask_sentinel(
    config: &Redis,
    sentinel: &RedisAddress,
    master: &str,
) -> Result<RedisAddress, RedisError> {
    let mut connection = to_address(config, sentinel, 0).await?;
    let mut command = ::redis::cmd("SENTINEL");
    command.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    let reply = connection
        .multiplexed
        .req_packed_command(&command)
        .await
        .map_err(|e| fault(&e))?;
    match reply {
        Value::Array(parts) => match parts.as_slice() {
            [Value::BulkString(host), Value::BulkString(port)] => {
                let port = std::str::from_utf8(port).ok().and_then(|p| p.parse().ok());
                let host = String::from_utf8_lossy(host).into_owned();
                port.map(|port| RedisAddress::Tcp(host, port))
                    .ok_or_else(|| unavailable(sentinel, &"the sentinel's answer is no address"))
            }
            _ => Err(unavailable(
                sentinel,
                &"the sentinel's answer is no address",
            )),
        },
        _ => Err(unavailable(
            sentinel,
            &format!("the sentinel knows no master `{master}`"),
        )),
    }
}

/// Whether a server is the master that a sentinel took it for: right after a failover it may be wrong.
async fn demand_master(
    connection: &mut Connection,
    address: &RedisAddress,
) -> Result<(), RedisError> {
    let command = ::redis::cmd("ROLE");
    let reply = connection.multiplexed.req_packed_command(&command).await;
    match reply.map_err(|e| fault(&e))? {
        Value::Array(parts) if parts.first() == Some(&Value::BulkString(b"slave".to_vec())) => {
            Err(unavailable(address, &"it is not the master any more"))
        }
        // A user that may not ask finds out by the first command that writes.
        _ => Ok(()),
    }
}

/// A connection for commands, to a node of a cluster when one is named.
pub(super) async fn connect(
    config: &Redis,
    node: Option<&RedisAddress>,
) -> Result<Connection, RedisError> {
    if let Some(node) = node {
        return to_address(config, node, 0).await;
    }
    let address = server(config).await?;
    let mut connection = to_address(config, &address, config.url.db).await?;
    if matches!(config.url.kind, RedisKind::Sentinel(_)) {
        demand_master(&mut connection, &address).await?;
    }
    Ok(connection)
}

async fn pubsub_to(config: &Redis, address: &RedisAddress) -> Result<PubSub, RedisError> {
    let stream = open(config, address).await?;
    let exceeded = Arc::new(AtomicBool::new(false));
    let stream = Limited::new(stream, config.reply_limit, exceeded);
    PubSub::new(&login(config, ProtocolVersion::RESP2, 0), stream)
        .await
        .map_err(|e| fault(&e))
}

/// A connection for a subscription. It speaks RESP2, which every server has. In a cluster, whose
/// nodes tell each other every message, the first that answers will do.
pub(super) async fn connect_pubsub(
    config: &Redis,
    nodes: &[RedisAddress],
) -> Result<PubSub, RedisError> {
    if config.url.kind != RedisKind::Cluster {
        return pubsub_to(config, &server(config).await?).await;
    }
    let mut last = RedisError::Unavailable("no node of the cluster answers".to_owned());
    for node in nodes.iter().chain(&config.url.addresses) {
        match pubsub_to(config, node).await {
            Ok(pubsub) => return Ok(pubsub),
            Err(error) => last = error,
        }
    }
    Err(last)
}
