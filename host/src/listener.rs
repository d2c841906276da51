//! Bound addresses: one socket per worker and address, so that the kernel spreads the connections.
//! Knows no HTTP: what takes a socket is passed in.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

/// The pause after the system refused an accept for want of descriptors or memory (nginx:
/// `accept_mutex_delay`, 500 ms).
const REFUSED: std::time::Duration = std::time::Duration::from_millis(500);

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Binds an address once for each worker. Port 0 is one free port for all.
///
/// # Errors
/// When the address is not there or somebody else has it: a shared port would be shared with a
/// stranger of the same user, so it is asked for alone first.
pub fn bind(address: SocketAddr, backlog: u32, workers: usize) -> io::Result<Vec<StdListener>> {
    drop(socket(address, false)?);
    bind_more(address, backlog, workers)
}

/// As [`bind`], for an address that this process has bound already.
///
/// # Errors
/// When the address is not there.
pub fn bind_more(
    mut address: SocketAddr,
    backlog: u32,
    workers: usize,
) -> io::Result<Vec<StdListener>> {
    let mut listeners = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = socket(address, true)?;
        socket.set_nonblocking(true)?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        let listener = StdListener::from(socket);
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Accepts until the task is ended.
pub async fn accept(listener: &TcpListener, mut take: impl FnMut(TcpStream)) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Without it the connection works, with more delay.
                let _delayed = stream.set_nodelay(true).is_err();
                take(stream);
            }
            Err(error) if is_of_the_client(&error) => {}
            Err(_) => tokio::time::sleep(REFUSED).await,
        }
    }
}

/// Takes what has come already, for a socket that is about to close.
pub fn accept_waiting(listener: &TcpListener, mut take: impl FnMut(TcpStream)) {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    while let std::task::Poll::Ready(Ok((stream, _))) = listener.poll_accept(&mut cx) {
        take(stream);
    }
}

fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
