//! Calls to other HTTP services. Needs `allow.http`.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::bindings::phasor::plugin::http_client as host;
use crate::task::Pending;

pub use host::{ClientError, Incoming};

/// A request in the making.
#[derive(Clone, Debug)]
#[must_use = "send it"]
pub struct Fetch {
    method: String,
    url: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    timeout: u32,
    limit: u64,
}

/// A request of any method.
pub fn request(method: &str, url: &str) -> Fetch {
    Fetch {
        method: method.into(),
        url: url.into(),
        headers: Vec::new(),
        body: Vec::new(),
        timeout: 0,
        limit: 0,
    }
}

/// A GET.
pub fn get(url: &str) -> Fetch {
    request("GET", url)
}

/// A POST.
pub fn post(url: &str, body: impl Into<Vec<u8>>) -> Fetch {
    request("POST", url).body(body)
}

impl Fetch {
    /// Adds a header.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    /// Gives it a body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// How long all of it may take; a minute otherwise.
    pub fn timeout(mut self, most: Duration) -> Self {
        self.timeout = u32::try_from(most.as_millis()).unwrap_or(u32::MAX).max(1);
        self
    }

    /// The longest body of the answer; 16 MiB otherwise.
    pub const fn limit(mut self, bytes: u64) -> Self {
        self.limit = bytes;
        self
    }

    /// Sends it. The answer comes whole.
    pub fn send(&self) -> Pending<Result<Incoming, ClientError>> {
        Pending::new(self.give(host::begin_fetch), host::end_fetch)
    }

    /// Sends it. The answer's body comes as it is read.
    pub fn open(&self) -> Pending<Result<Streaming, ClientError>> {
        Pending::new(self.give(host::begin_open), |operation| {
            host::end_open(operation).map(Streaming::from)
        })
    }

    /// Begins to send it; its body, the first piece, is followed by what is written.
    ///
    /// # Errors
    /// When it is no request, or `allow.http` does not name the origin.
    pub fn upload(&self) -> Result<Upload, ClientError> {
        self.give(host::Upload::begin).map(Upload)
    }

    fn give<T>(&self, send: impl FnOnce(host::Outgoing<'_>) -> T) -> T {
        let headers = self.headers.iter();
        let headers: Vec<_> = headers
            .map(|(name, value)| (name.as_str(), &value[..]))
            .collect();
        send(host::Outgoing {
            method: &self.method,
            url: &self.url,
            headers: &headers,
            body: &self.body,
            timeout: self.timeout,
            limit: self.limit,
        })
    }
}

/// An answer whose body is still coming; dropping it ends the request.
#[derive(Debug)]
pub struct Streaming {
    /// The status.
    pub status: u16,
    /// In the order in which they came.
    pub headers: Vec<(String, Vec<u8>)>,
    body: host::Body,
}

impl From<host::Streaming> for Streaming {
    fn from(answer: host::Streaming) -> Self {
        Self {
            status: answer.status,
            headers: answer.headers,
            body: answer.body,
        }
    }
}

impl Streaming {
    /// The next piece of the body; `None` is its end.
    pub fn read(&self) -> Pending<Result<Option<Vec<u8>>, ClientError>> {
        Pending::new(self.body.begin_read(0), host::Body::end_read)
    }
}

/// A request whose body is sent as it is made; dropping it ends the request.
#[derive(Debug)]
pub struct Upload(host::Upload);

impl Upload {
    /// Gives the next piece of the body; waits while the server does not take the last one. False:
    /// no more is wanted (the server has answered with an error, or is gone), and `finish` tells.
    pub fn write(&self, bytes: impl AsRef<[u8]>) -> Pending<Result<bool, ClientError>> {
        let operation = self.0.begin_write(bytes.as_ref(), 0);
        Pending::new(operation, host::Upload::end_write)
    }

    /// Ends the body. The answer's body comes as it is read.
    pub fn finish(self) -> Pending<Result<Streaming, ClientError>> {
        Pending::new(self.0.begin_finish(0), |operation| {
            host::Upload::end_finish(operation).map(Streaming::from)
        })
    }
}
