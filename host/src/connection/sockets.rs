//! The client sockets of a worker, as its supervisor sees them: when the worker hangs in a guest, its
//! clients are let go from outside, in place of waiting for their own time-outs.
//!
//! The lock is taken when a connection begins and ends, by the worker alone; the supervisor takes it
//! once, when the worker is given up.

use std::any::Any;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::sync::Arc;

use parking_lot::Mutex;
use slab::Slab;
use tokio::net::TcpStream;

/// The open client sockets of one worker.
#[derive(Debug, Clone, Default)]
pub struct Sockets(Arc<Mutex<Slab<RawFd>>>);

impl Sockets {
    /// Notes a socket as long as it is open.
    pub(super) fn note(&self, stream: TcpStream) -> ClientSocket {
        let noted = Noted {
            place: self.0.lock().insert(stream.as_raw_fd()),
            sockets: self.clone(),
        };
        ClientSocket { noted, stream }
    }

    /// Ends every connection, from any thread.
    #[expect(
        unsafe_code,
        reason = "a second descriptor for each connection would halve how many there may be"
    )]
    pub fn close(&self) {
        for (_, socket) in &*self.0.lock() {
            // SAFETY: what is noted is open: `Noted` is dropped, under this lock, before its socket,
            // by the order of fields here and in `cosocket::Downstream`.
            let socket = unsafe { BorrowedFd::borrow_raw(*socket) };
            // A socket that the client has closed already is what is wanted.
            let _shut = rustix::net::shutdown(socket, rustix::net::Shutdown::Both).is_ok();
        }
    }
}

/// A client's socket. Fields are dropped in their order.
#[derive(Debug)]
pub(super) struct ClientSocket {
    noted: Noted,
    pub(super) stream: TcpStream,
}

impl ClientSocket {
    /// The socket, and what has to be dropped before it.
    pub(super) fn into_parts(self) -> (Box<dyn Any + Send + Sync>, TcpStream) {
        (Box::new(self.noted), self.stream)
    }
}

/// The note of a socket.
#[derive(Debug)]
struct Noted {
    place: usize,
    sockets: Sockets,
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.sockets.0.lock().remove(self.place);
    }
}
