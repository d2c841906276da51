//! What the HTTP cache keeps under a key, as bytes that any level can hold: an answer, the list of
//! headers that tell a URI's answers apart, or that there is nothing to wait for.
//!
//! A short body stands behind its head. A long one is cut into pieces under keys of their own, so that
//! it is stored while it streams, and a range of it needs its own pieces only. Reading copies nothing
//! but the names of unusual headers: values and bodies are views of the stored bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The first byte: what follows, and the form in which it is written.
const ANSWER: u8 = 0xa1;
const VARY: u8 = 0xa2;
const PASS: u8 = 0xa3;
const FAILED: u8 = 0xa4;

/// Where a body is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Here.
    Here(Bytes),
    /// In so many pieces, under keys made of this number.
    Pieces {
        /// The number.
        id: u64,
        /// How many.
        count: u32,
        /// Their bytes together.
        length: u64,
    },
}

impl Body {
    /// Its bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        match self {
            Self::Here(bytes) => bytes.len() as u64,
            Self::Pieces { length, .. } => *length,
        }
    }
}

/// The moments of an answer, in milliseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// When it was asked for: a purge after that is for it.
    pub begun: u64,
    /// When its head came.
    pub received: u64,
    /// How old it was then.
    pub age: u64,
    /// Until when it is fresh.
    pub fresh: u64,
    /// Until when it serves while a new one is brought.
    pub revalidate: u64,
    /// Until when it serves when none can be brought.
    pub stale: u64,
    /// Until when its source is left alone, which has failed.
    pub retry: u64,
}

impl Times {
    /// Until when it is good for anything.
    #[must_use]
    pub fn keep(&self) -> u64 {
        self.fresh.max(self.revalidate).max(self.stale)
    }

    /// `Age`, in seconds.
    #[must_use]
    pub fn age_at(&self, now: u64) -> u64 {
        (self.age + now.saturating_sub(self.received)) / 1000
    }
}

/// A stored answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Who shows a password may get it, too.
    pub public: bool,
    /// Its times.
    pub times: Times,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its tags.
    pub tags: Vec<Bytes>,
    /// Its body.
    pub body: Body,
}

/// By which headers the answers of a URI differ, and which there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vary {
    /// A part of their keys: what was purged is never found again.
    pub id: u64,
    /// The headers, sorted.
    pub names: Vec<HeaderName>,
    /// Which there are, the oldest first.
    pub known: Vec<u64>,
}

/// What is under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// An answer.
    Answer(Box<Answer>),
    /// Ask again, under a key made with these headers.
    Vary(Vary),
    /// The answers may not be stored: nobody is to wait for another's.
    Pass,
    /// Whoever was waited for got an error.
    Failed(u16),
}

fn put(out: &mut BytesMut, bytes: &[u8]) {
    // A header longer than that did not come in.
    out.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(bytes);
}

impl Answer {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let body = match &self.body {
            Body::Here(bytes) => bytes.len(),
            Body::Pieces { .. } => 0,
        };
        let mut out = BytesMut::with_capacity(512 + body);
        out.put_u8(ANSWER);
        out.put_u16(self.status);
        out.put_u8(u8::from(self.public));
        let times = &self.times;
        for time in [
            times.begun,
            times.received,
            times.age,
            times.fresh,
            times.revalidate,
            times.stale,
            times.retry,
        ] {
            out.put_u64(time);
        }
        let (id, count, length) = match &self.body {
            Body::Here(bytes) => (0, 0, bytes.len() as u64),
            Body::Pieces { id, count, length } => (*id, *count, *length),
        };
        out.put_u64(id);
        out.put_u32(count);
        out.put_u64(length);
        out.put_u32(u32::try_from(self.tags.len()).unwrap_or(0));
        for tag in &self.tags {
            put(&mut out, tag);
        }
        out.put_u32(u32::try_from(self.headers.len()).unwrap_or(0));
        for (name, value) in &self.headers {
            put(&mut out, name.as_str().as_bytes());
            put(&mut out, value.as_bytes());
        }
        if let Body::Here(bytes) = &self.body {
            out.extend_from_slice(bytes);
        }
        out.freeze()
    }

    fn decode(mut bytes: Bytes) -> Option<Self> {
        let status = bytes.try_get_u16().ok()?;
        let public = bytes.try_get_u8().ok()? != 0;
        let mut time = || bytes.try_get_u64().ok();
        let times = Times {
            begun: time()?,
            received: time()?,
            age: time()?,
            fresh: time()?,
            revalidate: time()?,
            stale: time()?,
            retry: time()?,
        };
        let id = bytes.try_get_u64().ok()?;
        let count = bytes.try_get_u32().ok()?;
        let length = bytes.try_get_u64().ok()?;
        let mut tags = Vec::new();
        for _ in 0..bytes.try_get_u32().ok()? {
            tags.push(take(&mut bytes)?);
        }
        let fields = bytes.try_get_u32().ok()?;
        let mut headers = HeaderMap::with_capacity(usize::try_from(fields.min(256)).ok()?);
        for _ in 0..fields {
            let name = HeaderName::from_bytes(&take(&mut bytes)?).ok()?;
            let value = HeaderValue::from_maybe_shared(take(&mut bytes)?).ok()?;
            headers.append(name, value);
        }
        let body = match count {
            0 if bytes.len() as u64 == length => Body::Here(bytes),
            0 => return None,
            count => Body::Pieces { id, count, length },
        };
        Some(Self {
            status,
            public,
            times,
            headers,
            tags,
            body,
        })
    }
}

fn take(bytes: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(bytes.try_get_u32().ok()?).ok()?;
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

impl Vary {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(VARY);
        out.put_u64(self.id);
        out.put_u32(u32::try_from(self.names.len()).unwrap_or(0));
        for name in &self.names {
            put(&mut out, name.as_str().as_bytes());
        }
        for known in &self.known {
            out.put_u64(*known);
        }
        out.freeze()
    }

    fn decode(mut bytes: Bytes) -> Option<Self> {
        let id = bytes.try_get_u64().ok()?;
        let mut names = Vec::new();
        for _ in 0..bytes.try_get_u32().ok()? {
            names.push(HeaderName::from_bytes(&take(&mut bytes)?).ok()?);
        }
        let mut known = Vec::with_capacity(bytes.len() / 8);
        while let Ok(hash) = bytes.try_get_u64() {
            known.push(hash);
        }
        Some(Self { id, names, known })
    }
}

impl Stored {
    /// What [`Stored::Pass`] is as bytes.
    #[must_use]
    pub fn pass() -> Bytes {
        Bytes::from_static(&[PASS])
    }

    /// What [`Stored::Failed`] is as bytes.
    #[must_use]
    pub fn failed(status: u16) -> Bytes {
        let [high, low] = status.to_be_bytes();
        Bytes::copy_from_slice(&[FAILED, high, low])
    }

    /// Reads what is under a key; `None` when it is nothing of ours.
    #[must_use]
    pub fn decode(mut bytes: Bytes) -> Option<Self> {
        match bytes.try_get_u8().ok()? {
            ANSWER => Answer::decode(bytes).map(Box::new).map(Self::Answer),
            VARY => Vary::decode(bytes).map(Self::Vary),
            PASS => Some(Self::Pass),
            FAILED => bytes.try_get_u16().ok().map(Self::Failed),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, Body, Stored, Times, Vary};
    use bytes::Bytes;
    use http::{HeaderMap, HeaderName};

    fn answer(body: Body) -> Answer {
        let mut headers = HeaderMap::new();
        headers.append("link", "</a>".parse().unwrap());
        headers.append("link", "</b>".parse().unwrap());
        headers.insert("x-other", "1".parse().unwrap());
        Answer {
            status: 203,
            public: true,
            times: Times {
                begun: 1,
                received: 2,
                age: 3000,
                fresh: 4,
                revalidate: 5,
                stale: 6,
                retry: 7,
            },
            headers,
            tags: vec![Bytes::from_static(b"a")],
            body,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let pieces = Body::Pieces {
            id: 9,
            count: 2,
            length: 300_000,
        };
        for body in [
            Body::Here(Bytes::new()),
            Body::Here(Bytes::from_static(b"hi")),
            pieces,
        ] {
            let one = answer(body);
            let stored = Stored::decode(one.encode());
            assert_eq!(stored, Some(Stored::Answer(Box::new(one))));
        }
        let vary = Vary {
            id: 7,
            names: vec![HeaderName::from_static("x-a")],
            known: vec![1, u64::MAX],
        };
        assert_eq!(Stored::decode(vary.encode()), Some(Stored::Vary(vary)));
        assert_eq!(Stored::decode(Stored::pass()), Some(Stored::Pass));
        let failed = Stored::failed(502);
        assert_eq!(Stored::decode(failed), Some(Stored::Failed(502)));
    }

    #[test]
    fn cut_or_foreign_bytes_are_no_answer() {
        let whole = answer(Body::Here(Bytes::from_static(b"body"))).encode();
        for end in 0..whole.len() {
            assert_eq!(Stored::decode(whole.slice(..end)), None, "{end}");
        }
        assert_eq!(Stored::decode(Bytes::from_static(b"a plugin's own")), None);
    }

    #[test]
    fn its_age_grows() {
        let times = answer(Body::Here(Bytes::new())).times;
        assert_eq!(times.age_at(2), 3);
        assert_eq!(times.age_at(2_002), 5);
    }
}
