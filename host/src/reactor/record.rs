//! The packed records of the reactor protocol, written and read in one place, bounds checked: what
//! comes from a guest never panics the host.

use crate::exchange::{Exchange, HeadChange};

/// Kinds of records that the host sends.
pub(super) mod to_guest {
    pub(in crate::reactor) const RUN: u8 = 1;
    pub(in crate::reactor) const READY: u8 = 2;
    pub(in crate::reactor) const CANCEL: u8 = 3;
    pub(in crate::reactor) const LOG: u8 = 4;
    pub(in crate::reactor) const RELEASE: u8 = 5;
    pub(in crate::reactor) const CHUNK: u8 = 6;
    pub(in crate::reactor) const DRAINED: u8 = 7;
    pub(in crate::reactor) const CALL: u8 = 8;
    pub(in crate::reactor) const STOP: u8 = 9;
    pub(in crate::reactor) const LEFT: u8 = 10;
}

/// Kinds of records that the guest sends.
pub(super) mod from_guest {
    pub(in crate::reactor) const FINISH: u8 = 1;
    pub(in crate::reactor) const RESPOND: u8 = 2;
    pub(in crate::reactor) const CHUNK: u8 = 3;
    pub(in crate::reactor) const END: u8 = 4;
    pub(in crate::reactor) const FAIL: u8 = 5;
    pub(in crate::reactor) const SLEEP: u8 = 6;
}

/// The body ends with this piece.
pub(super) const BODY_ENDS: u8 = 1;
/// The handler has ended.
pub(super) const HANDLER_ENDS: u8 = 2;
/// The guest wants a `drained`.
pub(super) const TELL_DRAINED: u8 = 4;
/// The segment's filters have run.
pub(super) const FILTERED: u8 = 8;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// The segment.
    pub segment: u16,
    /// The first of its steps.
    pub from: u8,
}

/// Flags of `run`, by name.
#[derive(Debug, Clone, Copy)]
pub struct RunFlags;

impl RunFlags {
    /// The job is new.
    pub const NEW: u8 = 1;
    /// The host holds a status or headers of the answer.
    pub const HEAD: u8 = 2;
    /// The answer's head has been sent.
    pub const SENT: u8 = 4;
    /// It is a subrequest.
    pub const INNER: u8 = 8;
    /// It is not as a client sent it.
    pub const INTERNAL: u8 = 16;
}

pub(super) fn bare(out: &mut Vec<u8>, kind: u8, job: u32) {
    out.push(kind);
    out.extend_from_slice(&job.to_le_bytes());
}

pub(super) fn ready(out: &mut Vec<u8>, job: u32, token: u32) {
    bare(out, to_guest::READY, job);
    out.extend_from_slice(&token.to_le_bytes());
}

pub(super) fn call(out: &mut Vec<u8>, job: u32, handler: u16) {
    bare(out, to_guest::CALL, job);
    out.extend_from_slice(&handler.to_le_bytes());
}

pub(super) fn chunk(out: &mut Vec<u8>, job: u32, flags: u8, bytes: &[u8]) {
    bare(out, to_guest::CHUNK, job);
    out.push(flags);
    out.extend_from_slice(&length(bytes.len()).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Lengths are u32; a piece of 4 GiB cannot come to be (windows and limits are far below).
fn length(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

pub(super) fn run(out: &mut Vec<u8>, job: u32, x: &Exchange, call: Call, new: bool) {
    let head = x.response.status != 0 || !x.response.headers.is_empty();
    let flags = u8::from(new) * RunFlags::NEW
        + u8::from(head) * RunFlags::HEAD
        + u8::from(x.response.sent) * RunFlags::SENT
        + u8::from(x.family.depth != 0) * RunFlags::INNER
        + u8::from(x.request.internal) * RunFlags::INTERNAL;
    let uri = x.request.target.as_str().as_bytes();
    bare(out, to_guest::RUN, job);
    out.push(flags);
    out.extend_from_slice(&call.segment.to_le_bytes());
    out.push(call.from);
    out.extend_from_slice(&x.response.status.to_le_bytes());
    out.push(method(&x.request.method));
    out.push(version(x.request.version));
    out.extend_from_slice(&length(uri.len()).to_le_bytes());
    out.extend_from_slice(uri);
}

fn method(method: &http::Method) -> u8 {
    match method.as_str() {
        "GET" => 1,
        "HEAD" => 2,
        "POST" => 3,
        "PUT" => 4,
        "DELETE" => 5,
        "OPTIONS" => 6,
        "PATCH" => 7,
        "TRACE" => 8,
        "CONNECT" => 9,
        _ => 0,
    }
}

/// 10, 11 or 20, as in `request.head`.
pub(super) fn version(version: http::Version) -> u8 {
    match version {
        http::Version::HTTP_10 => 10,
        http::Version::HTTP_2 => 20,
        _ => 11,
    }
}

/// Reads what a guest sent.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    /// Kind and job of the next record.
    pub(super) fn begin(&mut self) -> Result<Option<(u8, u32)>, String> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        Ok(Some((self.u8()?, self.u32()?)))
    }

    fn bytes(&mut self, n: usize) -> Result<&'a [u8], String> {
        let (head, rest) = self
            .rest
            .split_at_checked(n)
            .ok_or_else(|| format!("a record wants {n} bytes, {} are left", self.rest.len()))?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, String> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, String> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn blob(&mut self) -> Result<&'a [u8], String> {
        let n = self.u32()? as usize;
        self.bytes(n)
    }

    pub(super) fn text(&mut self) -> Result<String, String> {
        Ok(String::from_utf8_lossy(self.blob()?).into_owned())
    }

    fn head(&mut self) -> Result<Head<'a>, String> {
        let status = self.u16()?;
        if status != 0 && !(100..=999).contains(&status) {
            return Err(format!("{status} is no status"));
        }
        let count = self.u16()?;
        let begin = self.rest;
        for _ in 0..count {
            self.change()?;
        }
        Ok(Head {
            status,
            count,
            begin,
        })
    }

    fn change(&mut self) -> Result<(HeadChange, &'a [u8], &'a [u8]), String> {
        let change = match self.u8()? {
            0 => HeadChange::Set,
            1 => HeadChange::Add,
            2 => HeadChange::Remove,
            flag => return Err(format!("{flag} is no change of a header")),
        };
        let (name, value) = (usize::from(self.u16()?), self.u32()? as usize);
        Ok((change, self.bytes(name)?, self.bytes(value)?))
    }
}

/// Changes of an answer's head; they have been read through once, so that what follows is known.
pub(super) struct Head<'a> {
    pub(super) status: u16,
    count: u16,
    begin: &'a [u8],
}

impl<'a> Head<'a> {
    pub(super) fn changes(&self) -> impl Iterator<Item = (HeadChange, &'a [u8], &'a [u8])> {
        let mut reader = Reader::new(self.begin);
        (0..self.count).map_while(move |_| reader.change().ok())
    }
}

/// A record about an exchange.
pub(super) enum Done<'a> {
    Finish {
        verdict: u8,
        code: u16,
        head: Head<'a>,
    },
    Respond {
        flags: u8,
        head: Head<'a>,
        body: &'a [u8],
    },
    Chunk {
        flags: u8,
        body: &'a [u8],
    },
    End,
    Fail(String),
}

pub(super) fn parse<'a>(kind: u8, reader: &mut Reader<'a>) -> Result<Done<'a>, String> {
    Ok(match kind {
        from_guest::FINISH => Done::Finish {
            verdict: reader.u8()?,
            code: reader.u16()?,
            head: reader.head()?,
        },
        from_guest::RESPOND => Done::Respond {
            flags: reader.u8()?,
            head: reader.head()?,
            body: reader.blob()?,
        },
        from_guest::CHUNK => Done::Chunk {
            flags: reader.u8()?,
            body: reader.blob()?,
        },
        from_guest::END => Done::End,
        from_guest::FAIL => Done::Fail(reader.text()?),
        _ => return Err(format!("{kind} is no record")),
    })
}
