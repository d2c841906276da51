//! How an answer crosses: header filters, body filters, then the record. A filter that waits leaves
//! the sending where it stands, and its end takes it up again: only this request waits.
#![expect(unsafe_code, reason = "runs Lua tasks")]

use crate::bindings::phasor::plugin::{reactor, response};
use crate::flow;
use crate::job::{Exit, Job, NONE};
use crate::phase;
use crate::task::{self, Kind, Progress, Task};
use crate::vm::vm;
use crate::wire::{self, Head};

/// What runs next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing is being sent.
    Idle,
    /// The header filter of this number.
    Head(usize),
    /// The body filter of this number.
    Body(usize),
}

/// What the filtered piece is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Output of a handler of this segment.
    Answer,
    /// The head of an answer made elsewhere.
    Head,
    /// A piece of a body made elsewhere.
    Piece,
}

/// How far sending came.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It has crossed.
    Done,
    /// A filter failed.
    Failed,
    /// A header filter called `ngx.exit(status)`: another answer takes this one's place.
    Exited(u16),
    /// A filter waits; `Sending::waiters` are woken when it is through.
    Waits,
    /// An earlier piece is still with the filters.
    Busy,
}

/// The piece that is on its way through the filters.
pub(crate) struct Sending {
    stage: Stage,
    purpose: Purpose,
    flags: u8,
    may_wait: bool,
    /// The filter that waits.
    pub(crate) task: u32,
    /// What body filters see as `ngx.arg`.
    pub(crate) chunk: Vec<u8>,
    pub(crate) last: bool,
    /// Tokens of tasks that wait until it is through.
    pub(crate) waiters: Vec<u32>,
    /// The handler has ended meanwhile: these flags are still to be sent.
    after: u8,
    outcome: Sent,
}

impl Sending {
    pub(crate) const fn new() -> Self {
        Self {
            stage: Stage::Idle,
            purpose: Purpose::Answer,
            flags: 0,
            may_wait: true,
            task: NONE,
            chunk: Vec::new(),
            last: false,
            waiters: Vec::new(),
            after: 0,
            outcome: Sent::Done,
        }
    }

    /// How the piece that was waited for ended.
    pub(crate) fn outcome(&self) -> Sent {
        self.outcome
    }

    /// Forgets what was on its way; its filter's task has ended.
    pub(crate) fn reset(&mut self) {
        self.stage = Stage::Idle;
        self.task = NONE;
        self.chunk.clear();
        self.waiters.clear();
        self.after = 0;
    }
}

/// Sends what has gathered; the head first if that is still to be done. With `may_wait` false the
/// filters' waits take the whole VM: the caller cannot yield.
pub(crate) unsafe fn commit(job: &mut Job, flags: u8, may_wait: bool) -> Sent {
    let ends = flags & wire::HANDLER_ENDED != 0;
    if job.sending.stage != Stage::Idle {
        if ends {
            job.sending.after = flags;
        }
        return Sent::Busy;
    }
    if job.failed {
        return Sent::Failed;
    }
    if job.body_ended {
        if ends {
            wire::end(&mut vm().records, job.number);
            // SAFETY: no task of this job runs.
            unsafe { flow::forget_if_last(job) };
        }
        return Sent::Done;
    }
    // SAFETY: filters run as tasks of their own.
    unsafe {
        job.sending.purpose = Purpose::Answer;
        job.sending.flags = flags;
        job.sending.may_wait = may_wait;
        if job.head_sent {
            begin_body(job);
        } else {
            default_type(job);
            job.sending.stage = Stage::Head(0);
        }
        drive(job)
    }
}

/// Runs the header filters of an answer that was made elsewhere; then the segment ends.
pub(crate) unsafe fn head(job: &mut Job) {
    job.sending.purpose = Purpose::Head;
    job.sending.may_wait = true;
    job.sending.stage = Stage::Head(0);
    // SAFETY: no task of this job runs.
    unsafe { drive(job) };
}

/// Runs the body filters on a chunk that was made elsewhere.
pub(crate) unsafe fn piece(job: &mut Job, flags: u8, bytes: &[u8]) {
    job.out.clear();
    job.out.extend_from_slice(bytes);
    job.sending.purpose = Purpose::Piece;
    job.sending.flags = flags & wire::BODY_ENDS;
    job.sending.may_wait = true;
    begin_body(job);
    // SAFETY: no task of this job runs.
    unsafe { drive(job) };
}

/// `text/plain`, where neither a handler nor the host says otherwise.
fn default_type(job: &mut Job) {
    let vm = vm();
    let segment = &vm.program.segments[usize::from(job.segment)];
    let own = !segment.steps.is_empty();
    if own && job.has_header(b"content-type").is_none() && job.status != 204 && job.status != 304 {
        let known = job.host_head && {
            let outer = vm.selected;
            vm.selected = (job.number, job.phase);
            if outer != vm.selected {
                reactor::select(job.number, job.phase);
            }
            response::get_header("content-type").is_some()
        };
        if !known {
            job.set_header(b"content-type", b"text/plain");
        }
    }
}

/// Hands what has gathered to the body filters, if there are any and there is something.
fn begin_body(job: &mut Job) {
    let segment = &vm().program.segments[usize::from(job.segment)];
    let last = job.sending.flags & wire::BODY_ENDS != 0;
    job.sending.last = last;
    if segment.body_filter.is_empty() || job.out.is_empty() && !last {
        job.sending.stage = Stage::Body(usize::MAX);
        return;
    }
    job.filtered = true;
    std::mem::swap(&mut job.sending.chunk, &mut job.out);
    job.out.clear();
    job.sending.stage = Stage::Body(0);
}

/// Runs filters until one waits or the piece has crossed.
unsafe fn drive(job: &mut Job) -> Sent {
    loop {
        let segment = &vm().program.segments[usize::from(job.segment)];
        let (handler, phase) = match job.sending.stage {
            Stage::Idle => return Sent::Done,
            Stage::Head(i) => {
                let Some(&handler) = segment.header_filter.get(i) else {
                    job.filtered |= !segment.steps.is_empty() && i != 0;
                    if job.sending.purpose == Purpose::Head {
                        job.sending.stage = Stage::Idle;
                        // SAFETY: no task of this job runs.
                        unsafe { flow::finish(job, flow::NEXT, 0) };
                        return Sent::Done;
                    }
                    begin_body(job);
                    continue;
                };
                job.sending.stage = Stage::Head(i + 1);
                (handler, phase::HEADER_FILTER)
            }
            Stage::Body(i) => {
                let Some(&handler) = segment.body_filter.get(i) else {
                    if i != usize::MAX {
                        let outside = std::mem::take(&mut job.out);
                        std::mem::swap(&mut job.sending.chunk, &mut job.out);
                        // What others wrote meanwhile.
                        job.sending.chunk = outside;
                    }
                    // SAFETY: no filter runs.
                    unsafe { deliver(job) };
                    return Sent::Done;
                };
                job.sending.stage = Stage::Body(i + 1);
                (handler, phase::BODY_FILTER)
            }
        };
        // SAFETY: a filter's task is its own.
        let outcome = unsafe {
            let task = task::take(Kind::Filter, phase, job);
            task.blocks = u32::from(!job.sending.may_wait);
            task.push_handler(handler);
            let mut progress = task.resume(0);
            while progress == Progress::Waits && !job.sending.may_wait {
                progress = task.insist();
            }
            if progress == Progress::Waits {
                job.sending.task = task.number;
                return Sent::Waits;
            }
            filter_ended(job, task, progress)
        };
        if outcome != Sent::Done {
            return outcome;
        }
    }
}

/// A filter has ended; `Done` when the next may run.
unsafe fn filter_ended(job: &mut Job, task: &mut Task, progress: Progress) -> Sent {
    let (phase, exit) = (task.phase, task.exit);
    let failed = progress == Progress::Failed;
    if failed {
        wire::fail(&mut vm().records, job.number, &task.message);
        job.body_ended = true;
        job.failed = true;
    }
    job.sending.task = NONE;
    // SAFETY: it has ended.
    unsafe { task.give_back() };
    if failed {
        job.sending.stage = Stage::Idle;
        job.sending.chunk.clear();
        return Sent::Failed;
    }
    match exit {
        // SAFETY: no filter runs.
        Exit::Code(code) if code != 0 && phase == phase::HEADER_FILTER => unsafe {
            head_exited(job, code)
        },
        _ => Sent::Done,
    }
}

/// A header filter called `ngx.exit(code)`: the answer has this status, and an error page's body or
/// none.
unsafe fn head_exited(job: &mut Job, code: i32) -> Sent {
    let code = u16::try_from(code)
        .ok()
        .filter(|c| (100..=999).contains(c))
        .unwrap_or(500);
    job.out.clear();
    if job.sending.purpose == Purpose::Head {
        job.sending.stage = Stage::Idle;
        // SAFETY: no task of this job runs.
        unsafe { flow::finish(job, flow::EXIT, code) };
        return Sent::Exited(code);
    }
    if code < 300 {
        job.status = code;
        job.eof = true;
        job.sending.flags |= wire::BODY_ENDS;
        return Sent::Done;
    }
    job.sending.stage = Stage::Idle;
    Sent::Exited(code)
}

/// The filters are through: the record crosses.
unsafe fn deliver(job: &mut Job) {
    let vm = vm();
    job.sending.stage = Stage::Idle;
    let mut flags = job.sending.flags;
    if job.sending.purpose == Purpose::Piece {
        wire::chunk(&mut vm.records, job.number, flags, &job.out);
        job.out.clear();
        return;
    }
    if job.sending.last && flags & wire::BODY_ENDS == 0 {
        // `ngx.arg[2] = true`: what the handler writes from now on is dropped.
        flags |= wire::BODY_ENDS;
        job.eof = true;
    }
    if job.filtered {
        flags |= wire::FILTERED;
    }
    if !job.head_sent {
        let status = if job.status == 0 { 200 } else { job.status };
        let head = Head {
            status,
            count: job.head_count,
            changes: &job.head,
        };
        wire::respond(&mut vm.records, job.number, flags, &head, &job.out);
        job.head_sent = true;
    } else if !job.out.is_empty()
        || flags & (wire::BODY_ENDS | wire::HANDLER_ENDED | wire::TELL_DRAINED) != 0
    {
        wire::chunk(&mut vm.records, job.number, flags, &job.out);
    }
    job.unacknowledged += job.out.len();
    job.out.clear();
    if !job.sending.chunk.is_empty() {
        std::mem::swap(&mut job.sending.chunk, &mut job.out);
    }
    if flags & wire::BODY_ENDS != 0 {
        job.body_ended = true;
        job.out.clear();
        if flags & wire::HANDLER_ENDED != 0 {
            // SAFETY: no task of this job runs.
            unsafe { flow::forget_if_last(job) };
        }
    }
}

/// A filter that waited has ended: the rest of the piece goes on, then whoever waited for it.
pub(crate) unsafe fn ended(job: &mut Job, task: &mut Task, progress: Progress) {
    // SAFETY: jobs are never freed.
    unsafe {
        let mut outcome = filter_ended(job, task, progress);
        if outcome == Sent::Done {
            outcome = drive(job);
        }
        if outcome == Sent::Waits {
            return;
        }
        job.sending.outcome = outcome;
        let vm = vm();
        for token in job.sending.waiters.drain(..) {
            vm.queue.push_back(token);
        }
        if job.sending.purpose != Purpose::Answer {
            return;
        }
        let after = std::mem::take(&mut job.sending.after);
        if let Sent::Exited(code) = outcome
            && (after | job.sending.flags) & wire::HANDLER_ENDED != 0
        {
            flow::finish(job, flow::EXIT, code);
        } else if after != 0 {
            flow::send_rest(job, after);
        }
    }
}
