//! Datagrams with one peer: UDP, and unix sockets of datagrams.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{Domain, SockAddr, Socket as SystemSocket, Type};
use tokio::io::ReadBuf;
use tokio::net::{UdpSocket, UnixDatagram};

use super::connect::{Target, local_address};
use super::{Closable, Closer, Limit, RECEIVE_MOST, SocketError, resolve};

#[derive(Debug)]
enum Plain {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Plain {
    fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self {
            Self::Udp(socket) => socket.poll_recv(cx, buffer),
            Self::Unix(socket) => socket.poll_recv(cx, buffer),
        }
    }

    fn try_send(&self, bytes: &[u8]) -> std::io::Result<usize> {
        // Straight to the kernel: what tokio knows of the socket's room is old right after `connect`.
        let socket = match self {
            Self::Udp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        };
        socket2::SockRef::from(&socket).send(bytes)
    }
}

struct Socket {
    /// `None`: closed.
    plain: Option<Plain>,
    receiving: bool,
    receiver: Option<Waker>,
}

impl Closable for Mutex<Socket> {
    fn close(&self) {
        let mut socket = self.lock();
        socket.plain = None;
        if let Some(waker) = socket.receiver.take() {
            waker.wake();
        }
    }
}

/// A socket of datagrams. Clones are the same socket.
#[derive(Clone)]
pub struct Datagrams(Arc<Mutex<Socket>>);

impl std::fmt::Debug for Datagrams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Datagrams").finish_non_exhaustive()
    }
}

/// Makes a socket whose peer this is. Of a name's addresses the first is taken: there is no answer
/// that would tell whether somebody is there.
///
/// # Errors
/// That the name is unknown, the local address is none, or the system's own.
pub async fn open(
    target: Target,
    local: Option<String>,
    names: resolve::Bounds,
    timeout: Duration,
) -> Result<Datagrams, SocketError> {
    let opening = async {
        match target {
            Target::Unix(path) => unix(&path),
            Target::Tcp { host, port } => {
                let addresses = resolve::addresses(&host, port, names).await?;
                let Some(peer) = addresses.first() else {
                    return Err(SocketError::other("no address"));
                };
                let own = match local {
                    Some(local) => local_address(&local)?,
                    None if peer.is_ipv6() => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
                    None => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
                };
                let system = |e: std::io::Error| SocketError::system(&e);
                let socket = UdpSocket::bind(own).await.map_err(system)?;
                socket.connect(peer).await.map_err(system)?;
                Ok(Plain::Udp(socket))
            }
        }
    };
    let plain = tokio::time::timeout(timeout, opening)
        .await
        .map_err(|_| SocketError::Timeout)??;
    Ok(Datagrams(Arc::new(Mutex::new(Socket {
        plain: Some(plain),
        receiving: false,
        receiver: None,
    }))))
}

fn unix(path: &str) -> Result<Plain, SocketError> {
    let make = || {
        let socket = SystemSocket::new(Domain::UNIX, Type::DGRAM.nonblocking(), None)?;
        // A name that the kernel makes up: without one the peer could not answer.
        socket.bind(&SockAddr::unix("")?)?;
        socket.connect(&SockAddr::unix(Path::new(path))?)?;
        let socket: std::os::unix::net::UnixDatagram = std::os::fd::OwnedFd::from(socket).into();
        UnixDatagram::from_std(socket)
    };
    make().map(Plain::Unix).map_err(|e| SocketError::system(&e))
}

impl Datagrams {
    /// For who is to close it later.
    #[must_use]
    pub fn closer(&self) -> Closer {
        let shared: Arc<dyn Closable> = self.0.clone();
        Closer::new(&shared)
    }

    /// Closes it; a `receive` under way ends with `Closed`.
    pub fn close(&self) {
        Closable::close(&*self.0);
    }

    /// Sends one datagram; never waits.
    ///
    /// # Errors
    /// The system's own: of this datagram, or of one before that nobody took.
    pub fn send(&self, bytes: &[u8]) -> Result<(), SocketError> {
        match &self.0.lock().plain {
            None => Err(SocketError::Closed),
            Some(plain) => match plain.try_send(bytes) {
                Ok(_) => Ok(()),
                Err(error) => Err(SocketError::system(&error)),
            },
        }
    }

    /// Begins to receive one datagram; what is longer than `max` is cut off.
    #[must_use]
    pub fn receive(&self, max: usize, timeout: Duration) -> ReceiveDatagram {
        let mine = !std::mem::replace(&mut self.0.lock().receiving, true);
        ReceiveDatagram {
            socket: self.clone(),
            max: max.clamp(1, RECEIVE_MOST),
            limit: Limit::new(timeout),
            mine,
        }
    }
}

/// A `receive` under way.
#[derive(Debug)]
pub struct ReceiveDatagram {
    socket: Datagrams,
    max: usize,
    limit: Limit,
    mine: bool,
}

impl ReceiveDatagram {
    /// Polls; gives one datagram, which may be empty.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<u8>, SocketError>> {
        if !self.mine {
            return Poll::Ready(Err(SocketError::Busy));
        }
        let mut socket = self.socket.0.lock();
        let Some(plain) = &socket.plain else {
            return Poll::Ready(Err(SocketError::Closed));
        };
        let max = self.max;
        let received =
            super::transport::Scratch::fill(max, |buffer| plain.poll_receive(cx, buffer));
        match received {
            Poll::Ready(Ok(bytes)) => Poll::Ready(Ok(bytes)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(SocketError::system(&error))),
            Poll::Pending => {
                socket.receiver = Some(cx.waker().clone());
                drop(socket);
                self.limit.poll(cx).map(|()| Err(SocketError::Timeout))
            }
        }
    }
}

impl Drop for ReceiveDatagram {
    fn drop(&mut self) {
        if self.mine {
            self.socket.0.lock().receiving = false;
        }
    }
}
