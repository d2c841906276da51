//! The heads of a request and of its answer: one place knows how a header is replaced, added, removed.

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Version};
use percent_encoding::{AsciiSet, CONTROLS};

/// Header fields of a map that is kept for another head.
const SPARE: usize = 64;

/// A request's head.
#[derive(Debug)]
pub struct Request {
    /// `GET`, …
    pub method: Method,
    /// HTTP/1.0, 1.1 or 2.
    pub version: Version,
    /// Path and query as they are now.
    pub target: PathAndQuery,
    /// As the client sent them.
    pub original: PathAndQuery,
    /// The header fields.
    pub headers: HeaderMap,
    /// Of HTTP/2's `:authority` or an absolute URI.
    pub authority: Option<Bytes>,
    /// A rewrite or `exec` changed where the request goes.
    pub internal: bool,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            method: Method::GET,
            version: Version::HTTP_11,
            target: PathAndQuery::from_static("/"),
            original: PathAndQuery::from_static("/"),
            headers: HeaderMap::new(),
            authority: None,
            internal: false,
        }
    }
}

/// Why a head could not be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalid;

impl Request {
    /// The map of the headers is kept in `spare` if that has none: hyper takes an answer's map for the
    /// next request on its connection, so that maps go round and none is allocated.
    pub(super) fn clear(&mut self, spare: &mut HeaderMap) {
        if spare.capacity() == 0 && self.headers.capacity() <= SPARE {
            self.headers.clear();
            std::mem::swap(spare, &mut self.headers);
        }
        *self = Self::default();
    }

    /// The head of a request inside the server, which begins as this one's; `@name` has its path.
    ///
    /// # Errors
    /// When the target is neither `@name` nor a path.
    pub fn inner(&self, target: &str) -> Result<Self, Invalid> {
        let mut inner = Self {
            method: self.method.clone(),
            version: self.version,
            target: self.target.clone(),
            original: self.original.clone(),
            headers: self.headers.clone(),
            authority: self.authority.clone(),
            internal: true,
        };
        if !target.starts_with('@') {
            inner.set_target(target)?;
        }
        Ok(inner)
    }

    /// The host that the request names, without a port.
    #[must_use]
    pub fn host(&self) -> &str {
        let bytes = match &self.authority {
            Some(authority) => &authority[..],
            None => self
                .headers
                .get(http::header::HOST)
                .map_or(&b""[..], HeaderValue::as_bytes),
        };
        let text = std::str::from_utf8(bytes).unwrap_or("");
        if text.starts_with('[') {
            return text.find(']').map_or(text, |end| &text[..=end]);
        }
        text.rsplit_once(':').map_or(text, |(host, _)| host)
    }

    /// Whether it names its host, as HTTP/1.1 demands; HTTP/1.0 need not.
    #[must_use]
    pub fn has_host(&self) -> bool {
        self.version != Version::HTTP_11
            || self.authority.is_some()
            || self.headers.contains_key(http::header::HOST)
    }

    /// Replaces path and query. What a URI may not hold is percent-encoded, as nginx would send it.
    ///
    /// # Errors
    /// When it does not begin with `/`.
    pub fn set_target(&mut self, target: &str) -> Result<(), Invalid> {
        if !target.starts_with('/') {
            return Err(Invalid);
        }
        self.target = match PathAndQuery::try_from(target) {
            Ok(target) => target,
            Err(_) => PathAndQuery::try_from(escape(target)).map_err(|_| Invalid)?,
        };
        Ok(())
    }
}

/// What may not stand as it is in a path that is sent (nginx: `ngx_escape_uri`).
pub const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Percent-encodes what a URI may not hold and leaves the rest alone: it may be encoded already.
fn escape(target: &str) -> String {
    const UNSAFE: &AsciiSet = &PATH.remove(b'%').remove(b'?');
    percent_encoding::utf8_percent_encode(target, UNSAFE).to_string()
}

/// An answer's head.
#[derive(Debug, Default)]
pub struct Response {
    /// 0 while there is none.
    pub status: u16,
    /// The header fields.
    pub headers: HeaderMap,
    /// The head is on its way: nothing of it can change any more.
    pub sent: bool,
    /// The head is complete and the connection may take it.
    pub ready: bool,
}

impl Response {
    pub(super) fn clear(&mut self) {
        self.status = 0;
        self.headers.clear();
        self.sent = false;
        self.ready = false;
    }
}

/// What happens to a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadChange {
    /// Replaces all values.
    Set,
    /// Adds one.
    Add,
    /// Takes the name away.
    Remove,
}

/// Applies one change.
///
/// # Errors
/// When name or value are not what HTTP allows.
pub fn change(
    headers: &mut HeaderMap,
    change: HeadChange,
    name: &[u8],
    value: &[u8],
) -> Result<(), Invalid> {
    let name = HeaderName::from_bytes(name).map_err(|_| Invalid)?;
    match change {
        HeadChange::Remove => {
            headers.remove(&name);
        }
        HeadChange::Set => {
            headers.insert(name, HeaderValue::from_bytes(value).map_err(|_| Invalid)?);
        }
        HeadChange::Add => {
            headers.append(name, HeaderValue::from_bytes(value).map_err(|_| Invalid)?);
        }
    }
    Ok(())
}

/// What header fields take on the wire: name, colon, blank, value, line end.
fn wire_bytes(headers: &HeaderMap) -> u64 {
    headers
        .iter()
        .map(|(name, value)| (name.as_str().len() + value.len() + 4) as u64)
        .sum()
}

impl Request {
    /// About what the head took on the wire.
    #[must_use]
    pub fn head_bytes(&self) -> u64 {
        let line = self.method.as_str().len() + self.original.as_str().len() + 12;
        line as u64 + wire_bytes(&self.headers) + 2
    }
}

impl Response {
    /// About what the head took on the wire.
    #[must_use]
    pub fn head_bytes(&self) -> u64 {
        if self.status == 0 {
            0
        } else {
            17 + wire_bytes(&self.headers) + 2
        }
    }
}
