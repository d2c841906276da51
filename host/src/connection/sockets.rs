//! The client sockets of a worker, as its supervisor sees them: when the worker hangs in a guest, its
//! clients are let go from outside, in place of waiting for their own time-outs.
//!
//! The lock is taken when a connection begins and ends, by the worker alone; the supervisor takes it
//! once, when the worker is given up.

use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::sync::Arc;

use parking_lot::Mutex;
use slab::Slab;
use tokio::net::TcpStream;

/// The open client sockets of one worker.
#[derive(Debug, Clone, Default)]
pub struct Sockets(Arc<Mutex<Slab<RawFd>>>);

impl Sockets {
    /// Notes a socket until what it gives is dropped; that has to be before the socket is.
    pub(super) fn note(&self, stream: &TcpStream) -> Noted {
        Noted {
            place: self.0.lock().insert(stream.as_raw_fd()),
            sockets: self.clone(),
        }
    }

    /// Ends every connection, from any thread.
    #[expect(
        unsafe_code,
        reason = "a second descriptor for each connection would halve how many there may be"
    )]
    pub fn close(&self) {
        for (_, socket) in &*self.0.lock() {
            // SAFETY: what is noted is open: `Noted` is dropped, under this lock, before its socket.
            let socket = unsafe { BorrowedFd::borrow_raw(*socket) };
            // A socket that the client has closed already is what is wanted.
            let _shut = rustix::net::shutdown(socket, rustix::net::Shutdown::Both).is_ok();
        }
    }
}

/// A socket that is noted.
#[derive(Debug)]
pub(super) struct Noted {
    place: usize,
    sockets: Sockets,
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.sockets.0.lock().remove(self.place);
    }
}
