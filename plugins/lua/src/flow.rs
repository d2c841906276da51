//! The life of a job: its steps one after the other, what their ends mean, how the answer crosses.
#![expect(unsafe_code, reason = "runs Lua tasks")]

use crate::bindings::phasor::plugin::{error_log, response, variable};
use crate::ffi;
use crate::job::{Exit, Job, NONE};
use crate::phase;
use crate::task::{self, Kind, Progress, Task};
use crate::vm::vm;
use crate::wire::{self, Head};

/// What `finish` tells the host.
const NEXT: u8 = 0;
const DONE: u8 = 1;
const EXIT: u8 = 2;

/// Runs the job's steps until one waits or the segment ends.
pub(crate) unsafe fn advance(job: &mut Job) {
    loop {
        let vm = vm();
        let Some(segment) = vm.program.segments.get(usize::from(job.segment)) else {
            wire::fail(&mut vm.records, job.number, b"no such segment");
            return;
        };
        let Some(&handler) = segment.steps.get(job.step) else {
            // SAFETY: no task of this job runs.
            unsafe { settle(job) };
            return;
        };
        job.step += 1;
        job.phase = vm.program.handlers[usize::from(handler)].phase;
        job.exit = Exit::Returned;
        // SAFETY: the task is new.
        unsafe {
            let task = task::take(Kind::Step, job.phase, job);
            job.task = task.number;
            task.push_handler(handler);
            let progress = task.resume(0);
            if progress == Progress::Waits || !step_ended(job, task, progress) {
                return;
            }
        }
    }
}

/// The segment's steps are through and none has answered.
unsafe fn settle(job: &mut Job) {
    let vm = vm();
    let segment = &vm.program.segments[usize::from(job.segment)];
    // SAFETY: no task of this job runs.
    unsafe {
        if segment.steps.is_empty() && !segment.header_filter.is_empty() && !filter_head(job) {
            return;
        }
        finish(job, NEXT, 0);
    }
}

/// What a step's end means; true: the next step.
pub(crate) unsafe fn step_ended(job: &mut Job, task: &mut Task, progress: Progress) -> bool {
    let phase = task.phase;
    job.task = NONE;
    // SAFETY: the task has ended.
    unsafe {
        if progress == Progress::Failed {
            job.out.clear();
            wire::fail(&mut vm().records, job.number, &task.message);
            task.give_back();
            return false;
        }
        if phase == phase::SET && !set_variable(job, task) {
            task.give_back();
            return false;
        }
        task.give_back();
        match job.exit {
            Exit::Returned if phase == phase::CONTENT || job.said => answer(job),
            Exit::Returned => return true,
            Exit::Elsewhere => finish(job, NEXT, 0),
            Exit::Code(code) => return exited(job, phase, code),
        }
    }
    false
}

/// `ngx.exit(code)`; true: the next step.
unsafe fn exited(job: &mut Job, phase: phase::Phase, code: i32) -> bool {
    const DECLINED: i32 = -5;
    // SAFETY: no task of this job runs.
    unsafe {
        match code {
            DECLINED if !job.said && phase != phase::CONTENT => return true,
            0 if !job.said && phase != phase::CONTENT => {
                let vm = vm();
                let segment = &vm.program.segments[usize::from(job.segment)];
                let handlers = &vm.program.handlers;
                let more = |s: &u16| handlers[usize::from(*s)].phase != phase;
                match segment.steps[job.step..].iter().position(more) {
                    Some(skip) => {
                        job.step += skip;
                        return true;
                    }
                    None => finish(job, DONE, 0),
                }
            }
            _ if job.said || code == 0 => answer(job),
            200..=299 if code != 204 => {
                if job.status == 0 {
                    job.status = u16::try_from(code).unwrap_or(200);
                }
                answer(job);
            }
            _ => {
                let code = u16::try_from(code)
                    .ok()
                    .filter(|c| *c >= 100)
                    .unwrap_or(500);
                finish(job, EXIT, code);
            }
        }
    }
    false
}

/// Gives a variable the value that its handler returned.
unsafe fn set_variable(job: &mut Job, task: &mut Task) -> bool {
    let vm = vm();
    if task.thread.is_null() {
        return true;
    }
    let handlers = i32::try_from(vm.program.handlers.len()).unwrap_or(0);
    // SAFETY: the results lie above the pooled slots.
    unsafe {
        let t = task.thread;
        if ffi::lua_gettop(t) > handlers + 1
            && let Some(value) = ffi::to_bytes(t, handlers + 2)
        {
            let outer = std::mem::replace(&mut vm.task, task.number);
            vm.select();
            vm.task = outer;
            let name = &vm.program.handlers[usize::from(task.handler)].variable;
            if let Err(e) = variable::set(name, value) {
                let text = format!("set {name}: {e:?}");
                wire::fail(&mut vm.records, job.number, text.as_bytes());
                return false;
            }
        }
    }
    true
}

/// The segment ends without an answer.
unsafe fn finish(job: &mut Job, verdict: u8, code: u16) {
    let head = Head {
        status: job.status,
        count: job.head_count,
        changes: &job.head,
    };
    wire::finish(&mut vm().records, job.number, verdict, code, &head);
    job.host_head |= job.head_count != 0;
    job.head.clear();
    job.head_count = 0;
    job.out.clear();
}

/// The handler has ended, and with it the answer.
pub(crate) unsafe fn answer(job: &mut Job) {
    // SAFETY: no task of this job runs.
    unsafe { commit(job, wire::BODY_ENDS | wire::HANDLER_ENDED) };
}

/// Sends what has gathered; the head first if that is still to be done. False: a filter failed,
/// the job with it.
pub(crate) unsafe fn commit(job: &mut Job, flags: u8) -> bool {
    let vm = vm();
    let mut flags = flags;
    if job.body_ended {
        if flags & wire::HANDLER_ENDED != 0 {
            wire::end(&mut vm.records, job.number);
            // SAFETY: no task of this job runs.
            unsafe { forget_if_last(job) };
        }
        return true;
    }
    // SAFETY: filters run as tasks of their own.
    unsafe {
        if !job.head_sent && !filter_head(job) {
            return false;
        }
        let last = flags & wire::BODY_ENDS != 0;
        vm.chunk_last = false;
        if !filter_body(job, last) {
            return false;
        }
        if vm.chunk_last && !last {
            // `ngx.arg[2] = true`: what the handler writes from now on is dropped.
            flags |= wire::BODY_ENDS;
            job.eof = true;
        }
    }
    if job.filtered {
        flags |= wire::FILTERED;
    }
    if job.head_sent {
        if job.out.is_empty()
            && flags & (wire::BODY_ENDS | wire::HANDLER_ENDED | wire::TELL_DRAINED) == 0
        {
            return true;
        }
        wire::chunk(&mut vm.records, job.number, flags, &job.out);
    } else {
        let status = if job.status == 0 { 200 } else { job.status };
        let head = Head {
            status,
            count: job.head_count,
            changes: &job.head,
        };
        wire::respond(&mut vm.records, job.number, flags, &head, &job.out);
        job.head_sent = true;
    }
    job.unacknowledged += job.out.len();
    job.out.clear();
    if flags & wire::BODY_ENDS != 0 {
        job.body_ended = true;
        if flags & wire::HANDLER_ENDED != 0 {
            // SAFETY: no task of this job runs.
            unsafe { forget_if_last(job) };
        }
    }
    true
}

/// The answer has ended: where nothing can follow, both sides forget the job.
unsafe fn forget_if_last(job: &mut Job) {
    let segment = &vm().program.segments[usize::from(job.segment)];
    if segment.last && segment.log.is_empty() {
        // SAFETY: no task of this job runs.
        unsafe { forget(job) };
    }
}

/// Lets the job go.
pub(crate) unsafe fn forget(job: &mut Job) {
    job.live = false;
    if job.context != 0 {
        // SAFETY: `ngx.ctx` was kept in the registry.
        unsafe { ffi::unreference(vm().main, job.context) };
        job.context = 0;
    }
    if job.out.capacity() > 1 << 20 {
        job.out = Vec::new();
    }
    job.body = None;
}

/// The default content type, then the segment's header filters.
unsafe fn filter_head(job: &mut Job) -> bool {
    let vm = vm();
    let segment = &vm.program.segments[usize::from(job.segment)];
    let own = !segment.steps.is_empty();
    if own && job.has_header(b"content-type").is_none() && job.status != 204 && job.status != 304 {
        let known = job.host_head && {
            let outer = vm.selected;
            vm.selected = (job.number, job.phase);
            if outer != vm.selected {
                crate::bindings::phasor::plugin::reactor::select(job.number, job.phase);
            }
            response::get_header("content-type").is_some()
        };
        if !known {
            job.set_header(b"content-type", b"text/plain");
        }
    }
    for i in 0..segment.header_filter.len() {
        let handler = vm.program.segments[usize::from(job.segment)].header_filter[i];
        // SAFETY: a filter's task is its own.
        if !unsafe { run_filter(job, handler, phase::HEADER_FILTER) } {
            return false;
        }
    }
    job.filtered |= own && !segment.header_filter.is_empty();
    true
}

/// The segment's body filters on what has gathered.
unsafe fn filter_body(job: &mut Job, last: bool) -> bool {
    let vm = vm();
    let segment = &vm.program.segments[usize::from(job.segment)];
    if segment.body_filter.is_empty() || job.out.is_empty() && !last {
        return true;
    }
    job.filtered = true;
    std::mem::swap(&mut vm.chunk, &mut job.out);
    job.out.clear();
    vm.chunk_last = last;
    for i in 0..segment.body_filter.len() {
        let handler = vm.program.segments[usize::from(job.segment)].body_filter[i];
        // SAFETY: a filter's task is its own.
        if !unsafe { run_filter(job, handler, phase::BODY_FILTER) } {
            vm.chunk.clear();
            return false;
        }
    }
    std::mem::swap(&mut vm.chunk, &mut job.out);
    vm.chunk.clear();
    true
}

/// Runs a filter to its end: inside it, waits take the whole stack.
unsafe fn run_filter(job: &mut Job, handler: u16, phase: phase::Phase) -> bool {
    let vm = vm();
    let (outer_exit, outer_phase) = (job.exit, job.phase);
    vm.blocked += 1;
    let outer_waiting = std::mem::take(&mut vm.waiting);
    // SAFETY: the task is new.
    let (task, progress) = unsafe {
        let task = task::take(Kind::Filter, phase, job);
        task.push_handler(handler);
        let mut progress = task.resume(0);
        while progress == Progress::Waits {
            progress = task.wake();
        }
        (task, progress)
    };
    vm.blocked -= 1;
    vm.waiting = outer_waiting;
    job.exit = outer_exit;
    job.phase = outer_phase;
    let failed = progress == Progress::Failed;
    if failed {
        wire::fail(&mut vm.records, job.number, &task.message);
        job.body_ended = true;
    }
    // SAFETY: it has ended.
    unsafe { task.give_back() };
    !failed
}

/// Runs the body filters on a chunk that was made elsewhere.
pub(crate) unsafe fn chunk(job: &mut Job, flags: u8, bytes: &[u8]) {
    job.out.clear();
    job.out.extend_from_slice(bytes);
    let last = flags & wire::BODY_ENDS != 0;
    // SAFETY: no task of this job runs.
    if unsafe { filter_body(job, last) } {
        wire::chunk(
            &mut vm().records,
            job.number,
            flags & wire::BODY_ENDS,
            &job.out,
        );
        job.out.clear();
    }
}

/// Runs the `log` handlers from `job.step` on, then says `end`.
pub(crate) unsafe fn log(job: &mut Job) {
    loop {
        let vm = vm();
        let segment = vm.program.segments.get(usize::from(job.segment));
        let Some(&handler) = segment.and_then(|s| s.log.get(job.step)) else {
            wire::end(&mut vm.records, job.number);
            // SAFETY: no task of this job runs.
            unsafe { forget(job) };
            return;
        };
        job.step += 1;
        job.phase = phase::LOG;
        // SAFETY: the task is new.
        unsafe {
            let task = task::take(Kind::Log, phase::LOG, job);
            job.task = task.number;
            task.push_handler(handler);
            let progress = task.resume(0);
            if progress == Progress::Waits {
                return;
            }
            log_ended(job, task, progress);
        }
    }
}

/// A `log` handler has ended: its error is a line in the error log, the answer has left already.
pub(crate) unsafe fn log_ended(job: &mut Job, task: &mut Task, progress: Progress) {
    job.task = NONE;
    if progress == Progress::Failed {
        vm().selected = (job.number, phase::LOG);
        crate::bindings::phasor::plugin::reactor::select(job.number, phase::LOG);
        let text = format!(
            "failed to run log_by_lua*: {}",
            String::from_utf8_lossy(&task.message)
        );
        error_log::write(error_log::Level::Error, &text);
    }
    // SAFETY: the task has ended.
    unsafe { task.give_back() };
}

/// Ends the job's running handler and drops what it wrote.
pub(crate) unsafe fn cancel(job: &mut Job) {
    let vm = vm();
    if let Some(&task) = vm.tasks.get(job.task as usize) {
        // SAFETY: tasks are never freed; it waits, so its coroutine can be left behind.
        unsafe {
            let task = &mut *task;
            vm.waits.redeem(task.token);
            if !task.thread.is_null() {
                task.abandon();
            }
            task.give_back();
        }
    }
    job.task = NONE;
    job.drain = None;
    job.out.clear();
    job.body_ended = true;
}
