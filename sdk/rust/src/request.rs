//! The request of the current exchange: [`Request`] is its head, [`RequestBody`] its body.

use alloc::string::String;
use alloc::vec::Vec;

use crate::bindings::phasor::plugin::request as host;
use crate::operation::Operation;

pub use host::{BodyError, HeadError, RequestHead};

/// The head. As `&Request` it can be read wherever there is a request; as `&mut Request` it can be
/// changed, in the phases up to `header_filter` in which that still has a meaning.
#[derive(Debug)]
pub struct Request(pub(crate) ());

impl Request {
    /// The whole head in one host call.
    #[must_use]
    pub fn head(&self) -> RequestHead {
        host::head()
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> String {
        host::method()
    }

    /// Path and query as they are now.
    #[must_use]
    pub fn uri(&self) -> String {
        host::uri()
    }

    /// The path: the URI without its query.
    #[must_use]
    pub fn path(&self) -> String {
        let mut uri = host::uri();
        if let Some(end) = uri.find('?') {
            uri.truncate(end);
        }
        uri
    }

    /// The first value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<Vec<u8>> {
        host::get_header(name)
    }

    /// All headers, in the order in which they came.
    #[must_use]
    pub fn headers(&self) -> Vec<(String, Vec<u8>)> {
        host::get_headers()
    }

    /// Replaces the method.
    pub fn set_method(&mut self, method: &str) -> Result<(), HeadError> {
        host::set_method(method)
    }

    /// Replaces path and query; the route stays.
    pub fn set_uri(&mut self, uri: &str) -> Result<(), HeadError> {
        host::set_uri(uri, false)
    }

    /// Replaces path and query; when the handler returns, the route is found again.
    pub fn reroute(&mut self, uri: &str) -> Result<(), HeadError> {
        host::set_uri(uri, true)
    }

    /// Replaces all values of a header by one.
    pub fn set_header(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<(), HeadError> {
        host::set_header(name, &[value.as_ref()])
    }

    /// Adds one more value.
    pub fn add_header(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<(), HeadError> {
        host::add_header(name, value.as_ref())
    }

    /// Takes a header away.
    pub fn remove_header(&mut self, name: &str) -> Result<(), HeadError> {
        host::set_header(name, &[])
    }
}

/// The body, in the phases that may read it: `rewrite`, `access`, `precontent`, `content`.
#[derive(Debug)]
pub struct RequestBody(pub(crate) ());

impl RequestBody {
    /// The whole body, at most as long as the route's `body_limit`. It is kept: a second call
    /// gives the same bytes.
    pub fn whole(&mut self) -> Result<Vec<u8>, BodyError> {
        host::read_body(0)
    }

    /// The whole body, at most `limit` bytes.
    pub fn at_most(&mut self, limit: u64) -> Result<Vec<u8>, BodyError> {
        host::read_body(limit)
    }

    /// `at_most`, begun only; `end` it. A limit of 0 is the route's `body_limit`.
    #[must_use]
    pub fn begin(&mut self, limit: u64) -> Operation {
        Operation(host::begin_read_body(limit))
    }

    /// Ends a `begin`; waits if it is not ready.
    pub fn end(&mut self, operation: Operation) -> Result<Vec<u8>, BodyError> {
        host::end_read_body(operation.0)
    }

    /// The next piece, which is not kept; `None` at the end.
    pub fn piece(&mut self) -> Result<Option<Vec<u8>>, BodyError> {
        host::read()
    }

    /// Replaces the body that later handlers and the upstream see.
    pub fn replace(&mut self, body: &[u8]) -> Result<(), BodyError> {
        host::set_body(body)
    }

    /// Reads and forgets the rest.
    pub fn discard(&mut self) -> Result<(), BodyError> {
        host::discard_body()
    }
}
