//! Socket options that a guest may set and read.

use std::time::Duration;

use socket2::SockRef;

use super::SocketError;
use super::transport::{Plain, Transport};

/// An option of a connected stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamOption {
    /// `SO_KEEPALIVE`.
    KeepAlive,
    /// `SO_REUSEADDR`.
    ReuseAddress,
    /// `TCP_NODELAY`.
    NoDelay,
    /// `SO_SNDBUF`.
    SendBuffer,
    /// `SO_RCVBUF`.
    ReceiveBuffer,
}

fn socket(transport: &Transport) -> Result<SockRef<'_>, SocketError> {
    let plain = match transport {
        Transport::Plain(plain) => plain,
        Transport::Tls(secured) => secured.stream.get_ref().0,
        Transport::Downstream(client) => return Ok(SockRef::from(&client.stream)),
        Transport::Reader(_) => return Err(SocketError::other("a body has no options")),
    };
    Ok(match plain {
        Plain::Tcp(stream) => SockRef::from(stream),
        Plain::Unix(stream) => SockRef::from(stream),
    })
}

pub(super) fn set(
    transport: &Transport,
    option: StreamOption,
    value: u32,
) -> Result<(), SocketError> {
    let socket = socket(transport)?;
    match option {
        StreamOption::KeepAlive => socket.set_keepalive(value != 0),
        StreamOption::ReuseAddress => socket.set_reuse_address(value != 0),
        StreamOption::NoDelay => socket.set_tcp_nodelay(value != 0),
        StreamOption::SendBuffer => socket.set_send_buffer_size(value as usize),
        StreamOption::ReceiveBuffer => socket.set_recv_buffer_size(value as usize),
    }
    .map_err(|error| SocketError::system(&error))
}

pub(super) fn read(transport: &Transport, option: StreamOption) -> Result<u32, SocketError> {
    let socket = socket(transport)?;
    let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    match option {
        StreamOption::KeepAlive => socket.keepalive().map(u32::from),
        StreamOption::ReuseAddress => socket.reuse_address().map(u32::from),
        StreamOption::NoDelay => socket.tcp_nodelay().map(u32::from),
        StreamOption::SendBuffer => socket.send_buffer_size().map(size),
        StreamOption::ReceiveBuffer => socket.recv_buffer_size().map(size),
    }
    .map_err(|error| SocketError::system(&error))
}

/// The longest wait that the timer takes for "no limit".
pub(super) const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);
