//! One exchange as the guest sees it: which step runs, what the answer's head and body are so far.
//!
//! The head is kept in its wire form (`docs/reactor.md`), so that sending is one copy.

use crate::phase::Phase;

/// No task, no job.
pub(crate) const NONE: u32 = u32::MAX;

/// How the running handler ended itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It returned.
    Returned,
    /// `ngx.exit(code)`.
    Code(i32),
    /// `ngx.exec`, `ngx.req.set_uri(…, true)`: the host goes on elsewhere.
    Elsewhere,
}

/// One exchange.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own about the answer"
)]
pub(crate) struct Job {
    pub(crate) number: u32,
    pub(crate) live: bool,
    /// Tells the exchanges of this slot and of all others apart.
    pub(crate) serial: u64,
    pub(crate) segment: u16,
    /// The next step of the segment.
    pub(crate) step: usize,
    /// The phase of the step that runs or ran.
    pub(crate) phase: Phase,
    pub(crate) status: u16,
    pub(crate) method: u8,
    pub(crate) version: u8,
    pub(crate) uri: Vec<u8>,
    /// Header changes in wire form, and their number.
    pub(crate) head: Vec<u8>,
    pub(crate) head_count: u16,
    /// Gathered output.
    pub(crate) out: Vec<u8>,
    /// It is a subrequest.
    pub(crate) inner: bool,
    /// It is not as a client sent it.
    pub(crate) internal: bool,
    /// The host holds a status or headers already.
    pub(crate) host_head: bool,
    /// The head has crossed.
    pub(crate) head_sent: bool,
    /// The handler has written something: for Lua the head is sent.
    pub(crate) said: bool,
    /// The body's end has been written (`ngx.eof`).
    pub(crate) eof: bool,
    /// The handler has the client's connection: nothing else is written to the client.
    pub(crate) raw: bool,
    /// Flag 1 has crossed.
    pub(crate) body_ended: bool,
    /// The header filters have run.
    pub(crate) filtered: bool,
    /// Bytes sent since the last `drained`.
    pub(crate) unacknowledged: usize,
    /// A filter failed: nothing more crosses for this answer.
    pub(crate) failed: bool,
    /// Where the sending of head and body stands.
    pub(crate) sending: crate::filter::Sending,
    /// The task that runs a step for this job.
    pub(crate) task: u32,
    /// `ngx.ctx`, in the registry; 0: none yet.
    pub(crate) context: i32,
    /// What `ngx.on_abort` was given, in the registry; 0: nothing.
    pub(crate) on_abort: i32,
    /// The request's body once read.
    pub(crate) body: Option<Vec<u8>>,
    /// How many guards of locks it has.
    pub(crate) guards: u32,
    /// The tokens of the tasks that wait for `drained`.
    pub(crate) drain: Vec<u32>,
}

/// The flags of a header change.
const REPLACE: u8 = 0;
const ADD: u8 = 1;
const REMOVE: u8 = 2;

/// One change as it lies in the head.
pub(crate) struct Change<'a> {
    pub(crate) flag: u8,
    pub(crate) name: &'a [u8],
    pub(crate) value: &'a [u8],
    start: usize,
    end: usize,
}

impl Job {
    pub(crate) fn new(number: u32) -> Self {
        Self {
            number,
            live: false,
            serial: 0,
            segment: 0,
            step: 0,
            phase: 0,
            status: 0,
            method: 0,
            version: 0,
            uri: Vec::new(),
            head: Vec::new(),
            head_count: 0,
            out: Vec::new(),
            inner: false,
            internal: false,
            host_head: false,
            head_sent: false,
            said: false,
            eof: false,
            raw: false,
            body_ended: false,
            filtered: false,
            unacknowledged: 0,
            failed: false,
            sending: crate::filter::Sending::new(),
            task: NONE,
            context: 0,
            on_abort: 0,
            body: None,
            guards: 0,
            drain: Vec::new(),
        }
    }

    /// Begins a new exchange in this slot; buffers keep their room.
    pub(crate) fn reset(&mut self) {
        self.live = true;
        crate::vm::vm().serial += 1;
        self.serial = crate::vm::vm().serial;
        self.head.clear();
        self.head_count = 0;
        self.out.clear();
        self.head_sent = false;
        self.said = false;
        self.eof = false;
        self.raw = false;
        self.body_ended = false;
        self.filtered = false;
        self.unacknowledged = 0;
        self.failed = false;
        self.task = NONE;
        self.body = None;
        self.drain.clear();
    }

    /// The changes in order.
    pub(crate) fn changes(&self) -> Changes<'_> {
        Changes {
            head: &self.head,
            at: 0,
        }
    }

    /// Appends one change.
    fn push(&mut self, flag: u8, name: &[u8], value: &[u8]) {
        let name = &name[..name.len().min(usize::from(u16::MAX))];
        self.head.push(flag);
        self.head
            .extend_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes());
        self.head
            .extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.head.extend_from_slice(name);
        self.head.extend_from_slice(value);
        self.head_count += 1;
    }

    /// Forgets the changes of a name.
    fn forget(&mut self, name: &[u8]) {
        let mut at = 0;
        loop {
            let mut rest = Changes {
                head: &self.head,
                at,
            };
            let Some(change) = rest.next() else { break };
            let (start, end) = (change.start, change.end);
            if change.name.eq_ignore_ascii_case(name) {
                self.head.drain(start..end);
                self.head_count -= 1;
            } else {
                at = end;
            }
        }
    }

    /// Replaces a header.
    pub(crate) fn set_header(&mut self, name: &[u8], value: &[u8]) {
        if self.head_count != 0 {
            self.forget(name);
        }
        self.push(REPLACE, name, value);
    }

    /// Where the changes are written, for who makes room there.
    pub(crate) fn head(&mut self) -> &mut Vec<u8> {
        &mut self.head
    }

    /// Adds one more value.
    pub(crate) fn add_header(&mut self, name: &[u8], value: &[u8]) {
        self.push(ADD, name, value);
    }

    /// Takes a header away.
    pub(crate) fn remove_header(&mut self, name: &[u8]) {
        self.forget(name);
        self.push(REMOVE, name, b"");
    }

    /// Whether a change names this header: `Some(true)` when it sets it.
    pub(crate) fn has_header(&self, name: &[u8]) -> Option<bool> {
        self.changes()
            .filter(|c| c.name.eq_ignore_ascii_case(name))
            .map(|c| c.flag != REMOVE)
            .last()
    }
}

/// Walks over the wire form.
pub(crate) struct Changes<'a> {
    head: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Changes<'a> {
    type Item = Change<'a>;
    fn next(&mut self) -> Option<Change<'a>> {
        let rest = self.head.get(self.at..)?;
        let (fixed, rest) = rest.split_first_chunk::<7>()?;
        let name_len = usize::from(u16::from_le_bytes([fixed[1], fixed[2]]));
        let value_len = u32::from_le_bytes([fixed[3], fixed[4], fixed[5], fixed[6]]) as usize;
        let name = rest.get(..name_len)?;
        let value = rest.get(name_len..name_len + value_len)?;
        let start = self.at;
        self.at += 7 + name_len + value_len;
        Some(Change {
            flag: fixed[0],
            name,
            value,
            start,
            end: self.at,
        })
    }
}

impl Change<'_> {
    /// Whether it takes the header away.
    pub(crate) fn removes(&self) -> bool {
        self.flag == REMOVE
    }
    /// Whether it adds to what the host holds.
    pub(crate) fn adds(&self) -> bool {
        self.flag == ADD
    }
}
