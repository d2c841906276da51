//! The answer to a request for a file, as a pure function of the request's conditions and the file's
//! metadata: what HTTP says about conditions and ranges (RFC 9110, 13.2.2 and 14), in nginx's forms.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::range::{Asked, ByteRange, parse};

/// The headers of a request that the answer depends on.
const CONDITIONS: [HeaderName; 6] = [
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    RANGE,
];

/// What the answer depends on of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// Its length in bytes.
    pub size: u64,
    /// When it was changed last, in seconds since the epoch.
    pub modified: u64,
}

impl Metadata {
    pub(super) fn of(metadata: &std::fs::Metadata) -> Self {
        let modified = metadata
            .modified()
            .ok()
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Self {
            size: metadata.len(),
            modified: modified.map_or(0, |since| since.as_secs()),
        }
    }

    /// The entity tag in nginx's form: time and size in hexadecimal.
    #[must_use]
    pub fn etag(&self) -> String {
        format!("\"{:x}-{:x}\"", self.modified, self.size)
    }

    /// `Last-Modified`.
    #[must_use]
    pub fn last_modified(&self) -> String {
        httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(self.modified))
    }
}

/// A piece of an answer's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Bytes that stand between parts.
    Text(Bytes),
    /// A part of the file.
    Range {
        /// Where it begins.
        start: u64,
        /// How long it is; not 0.
        length: u64,
    },
}

impl Piece {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Range { length, .. } => *length,
        }
    }
}

/// An answer without its body's bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status: 200, 206, 304, 412 or 416.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; empty for HEAD, too.
    pub pieces: Vec<Piece>,
}

/// A copy of the headers that [`decide`] reads, small enough to be handed to another thread.
pub(super) fn conditions(headers: &HeaderMap) -> HeaderMap {
    let mut copy = HeaderMap::new();
    for name in CONDITIONS {
        for value in headers.get_all(&name) {
            copy.append(&name, value.clone());
        }
    }
    copy
}

/// The answer to GET or HEAD for a file of that metadata and content type.
#[must_use]
pub fn decide(method: &Method, request: &HeaderMap, file: &Metadata, content_type: &str) -> Answer {
    let etag = file.etag();
    let mut headers = HeaderMap::new();
    insert(&mut headers, LAST_MODIFIED, &file.last_modified());
    insert(&mut headers, ETAG, &etag);
    if let Some(status) = failed_condition(request, file, &etag) {
        if status == 412 {
            headers.clear();
        }
        return Answer {
            status,
            headers,
            pieces: Vec::new(),
        };
    }
    let asked = match request.get(RANGE) {
        Some(range) if method == Method::GET && range_is_current(request, file, &etag) => {
            parse(range.as_bytes(), file.size)
        }
        Some(_) | None => Asked::Whole,
    };
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let Some((status, pieces)) = pieces(asked, &mut headers, file.size, content_type) else {
        let mut headers = HeaderMap::new();
        let size = format!("bytes */{}", file.size);
        insert(&mut headers, CONTENT_RANGE, &size);
        return Answer {
            status: 416,
            headers,
            pieces: Vec::new(),
        };
    };
    headers.insert(
        CONTENT_LENGTH,
        pieces.iter().map(Piece::len).sum::<u64>().into(),
    );
    Answer {
        status,
        headers,
        pieces: if method == Method::HEAD {
            Vec::new()
        } else {
            pieces
        },
    }
}

/// The status and the pieces that were asked for, and the headers that describe them; `None` when the
/// file has nothing of that.
#[must_use]
pub fn pieces(
    asked: Asked,
    headers: &mut HeaderMap,
    size: u64,
    content_type: &str,
) -> Option<(u16, Vec<Piece>)> {
    match asked {
        Asked::Nothing => None,
        Asked::Whole => {
            insert(headers, CONTENT_TYPE, content_type);
            let whole = Piece::Range {
                start: 0,
                length: size,
            };
            let pieces = if size == 0 { Vec::new() } else { vec![whole] };
            Some((200, pieces))
        }
        Asked::Parts(parts) => match parts.as_slice() {
            [part] => {
                insert(headers, CONTENT_TYPE, content_type);
                insert(headers, CONTENT_RANGE, &content_range(*part, size));
                let piece = Piece::Range {
                    start: part.start,
                    length: part.length,
                };
                Some((206, vec![piece]))
            }
            parts => Some((206, multipart(headers, parts, size, content_type))),
        },
    }
}

/// The status of the first condition that fails, in RFC 9110's order.
fn failed_condition(request: &HeaderMap, file: &Metadata, etag: &str) -> Option<u16> {
    if request.contains_key(IF_MATCH) {
        if !matches_any(request, &IF_MATCH, etag, false) {
            return Some(412);
        }
    } else if date(request, &IF_UNMODIFIED_SINCE).is_some_and(|since| file.modified > since) {
        return Some(412);
    }
    if request.contains_key(IF_NONE_MATCH) {
        return matches_any(request, &IF_NONE_MATCH, etag, true).then_some(304);
    }
    date(request, &IF_MODIFIED_SINCE)
        .is_some_and(|since| file.modified <= since)
        .then_some(304)
}

/// Whether the file's tag stands in a list of tags. `weak`: a weak tag is as good as a strong one.
fn matches_any(request: &HeaderMap, name: &HeaderName, etag: &str, weak: bool) -> bool {
    let is_ours = |tag: &[u8]| {
        let tag = tag.trim_ascii();
        let tag = if weak {
            tag.strip_prefix(b"W/").unwrap_or(tag)
        } else {
            tag
        };
        // Ours has no comma in it, so that one inside another's quotes does no harm.
        tag == b"*" || tag == etag.as_bytes()
    };
    request
        .get_all(name)
        .iter()
        .any(|value| value.as_bytes().split(|&byte| byte == b',').any(is_ours))
}

/// Whether the parts that the client has are of this very file.
fn range_is_current(request: &HeaderMap, file: &Metadata, etag: &str) -> bool {
    match request.get(IF_RANGE) {
        None => true,
        Some(tag) if tag.as_bytes().contains(&b'"') => {
            tag.as_bytes().trim_ascii() == etag.as_bytes()
        }
        Some(_) => date(request, &IF_RANGE) == Some(file.modified),
    }
}

/// A header's date in seconds since the epoch; one that cannot be read is as good as none.
fn date(request: &HeaderMap, name: &HeaderName) -> Option<u64> {
    let time = httpdate::parse_http_date(request.get(name)?.to_str().ok()?).ok()?;
    time.duration_since(UNIX_EPOCH)
        .ok()
        .map(|since| since.as_secs())
}

/// `Content-Range` of a part.
#[must_use]
pub fn content_range(part: ByteRange, size: u64) -> String {
    format!(
        "bytes {}-{}/{size}",
        part.start,
        part.start + part.length - 1
    )
}

fn multipart(
    headers: &mut HeaderMap,
    parts: &[ByteRange],
    size: u64,
    content_type: &str,
) -> Vec<Piece> {
    let boundary = boundary();
    insert(
        headers,
        CONTENT_TYPE,
        &format!("multipart/byteranges; boundary={boundary}"),
    );
    let mut pieces = Vec::with_capacity(parts.len() * 2 + 1);
    for &part in parts {
        let range = content_range(part, size);
        let head = format!(
            "\r\n--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: {range}\r\n\r\n"
        );
        pieces.push(Piece::Text(Bytes::from(head)));
        pieces.push(Piece::Range {
            start: part.start,
            length: part.length,
        });
    }
    pieces.push(Piece::Text(Bytes::from(format!("\r\n--{boundary}--\r\n"))));
    pieces
}

/// Twenty digits that no file can foresee.
fn boundary() -> String {
    static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!(
        "{:020}",
        SEED.hash_one(COUNT.fetch_add(1, Ordering::Relaxed))
    )
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // All values are ASCII texts made above: there is none that a header could not hold.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
