//! The answer of the current exchange: [`Response`] is its head, [`Writer`] makes its body piece by
//! piece. An answer that is known at once is an [`Answer`](crate::Answer) instead.

use alloc::string::String;
use alloc::vec::Vec;

use crate::bindings::phasor::plugin::response as host;
use crate::operation::Operation;

pub use host::ResponseError;

/// The head. As `&Response` it can be read wherever there is a request; as `&mut Response` it can
/// be changed until it is sent.
#[derive(Debug)]
pub struct Response(pub(crate) ());

impl Response {
    /// The status; 0 while there is none.
    #[must_use]
    pub fn status(&self) -> u16 {
        host::status()
    }

    /// The first value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<Vec<u8>> {
        host::get_header(name)
    }

    /// All headers.
    #[must_use]
    pub fn headers(&self) -> Vec<(String, Vec<u8>)> {
        host::get_headers()
    }

    /// Whether the head has been sent.
    #[must_use]
    pub fn head_sent(&self) -> bool {
        host::head_sent()
    }

    /// Sets the status.
    pub fn set_status(&mut self, status: u16) -> Result<(), ResponseError> {
        host::set_status(status)
    }

    /// Replaces all values of a header by one.
    pub fn set_header(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<(), ResponseError> {
        host::set_header(name, &[value.as_ref()])
    }

    /// Adds one more value.
    pub fn add_header(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<(), ResponseError> {
        host::add_header(name, value.as_ref())
    }

    /// Takes a header away.
    pub fn remove_header(&mut self, name: &str) -> Result<(), ResponseError> {
        host::set_header(name, &[])
    }
}

/// Sends the answer in pieces, in the phases that may answer. Return
/// [`Verdict::Exit(0)`](crate::Verdict::Exit) afterwards, which keeps what was sent.
#[derive(Debug)]
pub struct Writer(pub(crate) ());

impl Writer {
    /// The whole answer in one host call; headers replace those of the same name.
    pub fn send(
        &mut self,
        status: u16,
        headers: &[(&str, &[u8])],
        body: &[u8],
    ) -> Result<(), ResponseError> {
        host::send(status, headers, body)
    }

    /// Sends the head if that is still to be done, then a piece of the body. Waits while the
    /// client takes nothing.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), ResponseError> {
        host::write(bytes.as_ref())
    }

    /// `write`, begun only; `end` it.
    #[must_use]
    pub fn begin_write(&mut self, bytes: impl AsRef<[u8]>) -> Operation {
        Operation(host::begin_write(bytes.as_ref()))
    }

    /// Ends a `begin_write`; waits if it is not ready.
    pub fn end_write(&mut self, operation: Operation) -> Result<(), ResponseError> {
        host::end_write(operation.0)
    }

    /// Ends the body; the handler may go on working.
    pub fn finish(&mut self) -> Result<(), ResponseError> {
        host::finish()
    }
}
