//! The records of `docs/reactor.md`, as bytes: reading the host's, writing ours.

/// Kinds of records that the host sends.
pub(crate) mod from_host {
    pub(crate) const RUN: u8 = 1;
    pub(crate) const READY: u8 = 2;
    pub(crate) const CANCEL: u8 = 3;
    pub(crate) const LOG: u8 = 4;
    pub(crate) const RELEASE: u8 = 5;
    pub(crate) const CHUNK: u8 = 6;
    pub(crate) const DRAINED: u8 = 7;
    pub(crate) const CALL: u8 = 8;
    pub(crate) const STOP: u8 = 9;
    pub(crate) const LEFT: u8 = 10;
}

/// Flags of `run`.
pub(crate) const RUN_NEW: u8 = 1;
pub(crate) const RUN_HOST_HEAD: u8 = 2;
pub(crate) const RUN_HEAD_SENT: u8 = 4;
pub(crate) const RUN_INNER: u8 = 8;
pub(crate) const RUN_INTERNAL: u8 = 16;

/// Flags of `respond` and `chunk`.
pub(crate) const BODY_ENDS: u8 = 1;
pub(crate) const HANDLER_ENDED: u8 = 2;
pub(crate) const TELL_DRAINED: u8 = 4;
pub(crate) const FILTERED: u8 = 8;

const FINISH: u8 = 1;
const RESPOND: u8 = 2;
const CHUNK: u8 = 3;
const END: u8 = 4;
const FAIL: u8 = 5;
const SLEEP: u8 = 6;

/// Reads a batch; a record that is cut short ends it.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }
    pub(crate) fn u8(&mut self) -> Option<u8> {
        let (&v, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(v)
    }
    pub(crate) fn u16(&mut self) -> Option<u16> {
        let (v, rest) = self.bytes.split_first_chunk::<2>()?;
        self.bytes = rest;
        Some(u16::from_le_bytes(*v))
    }
    pub(crate) fn u32(&mut self) -> Option<u32> {
        let (v, rest) = self.bytes.split_first_chunk::<4>()?;
        self.bytes = rest;
        Some(u32::from_le_bytes(*v))
    }
    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let n = self.u32()? as usize;
        let v = self.bytes.get(..n)?;
        self.bytes = &self.bytes[n..];
        Some(v)
    }
}

/// What a record says of the answer's head.
pub(crate) struct Head<'a> {
    pub(crate) status: u16,
    pub(crate) count: u16,
    pub(crate) changes: &'a [u8],
}

fn begin(out: &mut Vec<u8>, kind: u8, job: u32) {
    out.push(kind);
    out.extend_from_slice(&job.to_le_bytes());
}

fn head_bytes(out: &mut Vec<u8>, head: &Head<'_>) {
    out.extend_from_slice(&head.status.to_le_bytes());
    out.extend_from_slice(&head.count.to_le_bytes());
    out.extend_from_slice(head.changes);
}

fn long_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

pub(crate) fn finish(out: &mut Vec<u8>, job: u32, verdict: u8, code: u16, head: &Head<'_>) {
    begin(out, FINISH, job);
    out.push(verdict);
    out.extend_from_slice(&code.to_le_bytes());
    head_bytes(out, head);
}

pub(crate) fn respond(out: &mut Vec<u8>, job: u32, flags: u8, head: &Head<'_>, body: &[u8]) {
    begin(out, RESPOND, job);
    out.push(flags);
    head_bytes(out, head);
    long_bytes(out, body);
}

pub(crate) fn chunk(out: &mut Vec<u8>, job: u32, flags: u8, body: &[u8]) {
    begin(out, CHUNK, job);
    out.push(flags);
    long_bytes(out, body);
}

pub(crate) fn end(out: &mut Vec<u8>, job: u32) {
    begin(out, END, job);
}

pub(crate) fn fail(out: &mut Vec<u8>, job: u32, message: &[u8]) {
    begin(out, FAIL, job);
    long_bytes(out, message);
}

pub(crate) fn sleep(out: &mut Vec<u8>, job: u32, token: u32, milliseconds: u32) {
    begin(out, SLEEP, job);
    out.extend_from_slice(&token.to_le_bytes());
    out.extend_from_slice(&milliseconds.to_le_bytes());
}
