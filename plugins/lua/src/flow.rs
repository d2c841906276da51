//! The life of a job: its steps one after the other, what their ends mean, how the answer crosses.
#![expect(unsafe_code, reason = "runs Lua tasks")]

use crate::bindings::phasor::plugin::{error_log, variable};
use crate::ffi;
use crate::filter::{self, Sent};
use crate::job::{Exit, Job, NONE};
use crate::phase;
use crate::task::{self, Kind, Progress, Task};
use crate::vm::vm;
use crate::wire::{self, Head};

/// What `finish` tells the host.
pub(crate) const NEXT: u8 = 0;
const DONE: u8 = 1;
pub(crate) const EXIT: u8 = 2;

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
        if job.inner && job.phase == phase::ACCESS {
            // As in nginx, access is checked for the request that a client sent.
            continue;
        }
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
        if segment.steps.is_empty() && !segment.header_filter.is_empty() {
            filter::head(job);
        } else if segment.is_log_only() {
            // The answer was made elsewhere and has left.
            log(job);
        } else {
            finish(job, NEXT, 0);
        }
    }
}

/// What a step's end means; true: the next step.
pub(crate) unsafe fn step_ended(job: &mut Job, task: &mut Task, progress: Progress) -> bool {
    let (phase, exit) = (task.phase, task.exit);
    job.task = NONE;
    // SAFETY: the task has ended.
    unsafe {
        if progress == Progress::Failed {
            job.out.clear();
            stop_sending(job);
            wire::fail(&mut vm().records, job.number, &task.message);
            task.give_back();
            return false;
        }
        if phase == phase::SET && !set_variable(job, task) {
            task.give_back();
            return false;
        }
        task.give_back();
        match exit {
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
pub(crate) unsafe fn finish(job: &mut Job, verdict: u8, code: u16) {
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
    unsafe { send_rest(job, wire::BODY_ENDS | wire::HANDLER_ENDED) };
}

/// Sends what is left of an answer whose handler has ended.
pub(crate) unsafe fn send_rest(job: &mut Job, flags: u8) {
    // SAFETY: no step of this job runs.
    unsafe {
        if let Sent::Exited(code) = filter::commit(job, flags, true) {
            finish(job, EXIT, code);
        }
    }
}

/// The answer has ended: where nothing can follow, both sides forget the job.
pub(crate) unsafe fn forget_if_last(job: &mut Job) {
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
    crate::abort::forget(job);
    if job.out.capacity() > 1 << 20 {
        job.out = Vec::new();
    }
    job.body = None;
    if job.guards != 0 {
        crate::guard::give_back_all(crate::guard::Owner::Job(job.number));
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

/// Ends what runs of the job (a step, a filter, a `log` handler, their light threads) and drops
/// what it wrote.
pub(crate) unsafe fn cancel(job: &mut Job) {
    // SAFETY: what runs of it waits.
    unsafe {
        stop_sending(job);
        end_task(job.task);
    }
    for token in job.drain.drain(..) {
        vm().waits.forget(token);
    }
    job.task = NONE;
    job.out.clear();
    job.body_ended = true;
}

/// Ends the filter that waits, if one does.
unsafe fn stop_sending(job: &mut Job) {
    // SAFETY: it waits.
    unsafe { end_task(job.sending.task) };
    job.sending.reset();
}

unsafe fn end_task(number: u32) {
    if let Some(&task) = vm().tasks.get(number as usize) {
        // SAFETY: tasks are never freed; it waits, so its coroutine can be left behind.
        unsafe {
            (*task).cancel();
            (*task).give_back();
        }
    }
}
