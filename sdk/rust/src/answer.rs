//! An answer that is made whole and crosses to the host in one call.

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::bindings::phasor::plugin::response;
use crate::response::ResponseError;

/// Status, headers and body, to be returned by a handler that may answer. Texts that live as long
/// as the program are borrowed, so that a fixed answer allocates nothing here.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    content_type: Option<Cow<'static, str>>,
    headers: Vec<(Cow<'static, str>, Cow<'static, [u8]>)>,
    body: Cow<'static, [u8]>,
}

impl Answer {
    /// An answer with an empty body.
    #[must_use]
    pub const fn new(status: u16) -> Self {
        Self {
            status,
            content_type: None,
            headers: Vec::new(),
            body: Cow::Borrowed(&[]),
        }
    }

    /// 200 with plain text.
    #[must_use]
    pub fn text(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(200).content_type("text/plain").body(text)
    }

    /// 200 with HTML.
    #[must_use]
    pub fn html(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(200)
            .content_type("text/html; charset=utf-8")
            .body(text)
    }

    /// 200 with JSON that is text already.
    #[must_use]
    pub fn json(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(200).content_type("application/json").body(text)
    }

    /// Another status.
    #[must_use]
    pub const fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The `Content-Type`.
    #[must_use]
    pub fn content_type(mut self, value: impl Into<Cow<'static, str>>) -> Self {
        self.content_type = Some(value.into());
        self
    }

    /// Adds a header; the first of a name replaces what the answer had under that name.
    #[must_use]
    pub fn header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Self {
        self.headers.push((name.into(), octets(value.into())));
        self
    }

    /// The body as text.
    #[must_use]
    pub fn body(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.body = octets(text.into());
        self
    }

    /// The body as bytes.
    #[must_use]
    pub fn bytes(mut self, bytes: impl Into<Cow<'static, [u8]>>) -> Self {
        self.body = bytes.into();
        self
    }

    /// Sends it; the one host call.
    pub(crate) fn send(&self) -> Result<(), String> {
        let result = match (&self.content_type, self.headers.is_empty()) {
            (None, true) => response::send(self.status, &[], &self.body),
            (Some(kind), true) => {
                let header = [("content-type", kind.as_bytes())];
                response::send(self.status, &header, &self.body)
            }
            (kind, false) => {
                let kind = kind.iter().map(|kind| ("content-type", kind.as_bytes()));
                let others = self.headers.iter().map(|(name, value)| (&**name, &**value));
                let headers: Vec<_> = kind.chain(others).collect();
                response::send(self.status, &headers, &self.body)
            }
        };
        match result {
            // A client that has left is nobody's fault, and nothing is left to be done.
            Ok(()) | Err(ResponseError::Closed) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn octets(text: Cow<'static, str>) -> Cow<'static, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}
