//! Requests inside the server: routed, run and answered like a client's, without a connection.
//!
//! Needs `allow.subrequest`. The phases `access` and `log` are not run for them; routes marked `internal` are open to them.

use alloc::string::String;
use alloc::vec::Vec;

use crate::bindings::phasor::plugin::subrequest as host;
use crate::task::Pending;

pub use host::{Captured, SubrequestError, VariablesFrom};

/// A request in the making. What it does not name is the current request's.
#[derive(Clone, Debug)]
#[must_use = "send it"]
pub struct Subrequest {
    target: String,
    method: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Option<Vec<u8>>,
    forward: bool,
    inherit: VariablesFrom,
    variables: Vec<(String, Vec<u8>)>,
    context: Vec<(String, Vec<u8>)>,
}

/// A request of any method to a path of this server, or to `@name`.
pub fn request(method: &str, target: &str) -> Subrequest {
    Subrequest {
        target: target.into(),
        method: method.into(),
        headers: Vec::new(),
        body: None,
        forward: false,
        inherit: VariablesFrom::None,
        variables: Vec::new(),
        context: Vec::new(),
    }
}

/// A GET.
pub fn get(target: &str) -> Subrequest {
    request("GET", target)
}

impl Subrequest {
    /// Replaces a header of the current request.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    /// Gives it a body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Gives it the current request's body, as far as that has been read whole.
    pub const fn forward_body(mut self) -> Self {
        self.forward = true;
        self
    }

    /// Begins with a copy of the current request's variables, or shares them.
    pub const fn inherit(mut self, from: VariablesFrom) -> Self {
        self.inherit = from;
        self
    }

    /// Sets a variable that some route declares.
    pub fn variable(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.variables.push((name.into(), value.as_ref().to_vec()));
        self
    }

    /// A value that its plugins find in their `Context`.
    pub fn context(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.context.push((name.into(), value.as_ref().to_vec()));
        self
    }

    /// Sends it. The answer comes whole.
    pub fn send(&self) -> Pending<Result<Captured, SubrequestError>> {
        fn lend(list: &[(String, Vec<u8>)]) -> Vec<(&str, &[u8])> {
            list.iter()
                .map(|(name, value)| (name.as_str(), &value[..]))
                .collect()
        }
        let operation = host::begin_capture(host::Inner {
            target: &self.target,
            method: &self.method,
            headers: &lend(&self.headers),
            body: match &self.body {
                Some(bytes) => host::BodySource::Bytes(bytes),
                None if self.forward => host::BodySource::Current,
                None => host::BodySource::None,
            },
            inherit: self.inherit,
            variables: &lend(&self.variables),
            context: &lend(&self.context),
        });
        Pending::new(operation, host::end_capture)
    }
}

/// How deep the current request is nested; 0 is a client's own.
#[must_use]
pub fn depth() -> u32 {
    host::depth()
}
