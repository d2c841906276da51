//! The loop: hand over what is finished, take what is new, run it. Implements `docs/reactor.md`.
#![expect(unsafe_code, reason = "runs Lua tasks")]

use crate::bindings::exports::phasor::plugin::pump::Guest;
use crate::bindings::phasor::plugin::{reactor, time, worker};
use crate::ffi;
use crate::filter;
use crate::flow;
use crate::job::{Job, NONE};
use crate::program::Program;
use crate::task::{self, Kind, Progress, Task};
use crate::thread;
use crate::timer;
use crate::vm::{self, Vm, vm};
use crate::wait::Waiter;
use crate::wire::{self, Reader, from_host};

/// Above this a number is no exchange: calls and timers have such numbers.
const MAX_JOB: u32 = 1 << 24;

struct Plugin;

impl Guest for Plugin {
    fn prepare() -> Result<(), String> {
        let program = Program::parse(&reactor::program())?;
        // SAFETY: called once, before anything else.
        unsafe {
            let main = crate::libs::new_state(&program)?;
            vm::set(Vm::new(main, program));
            crate::libs::open_all(main)?;
            compile()?;
            run_init()?;
            crate::api_shared::close_all();
            Ok(())
        }
    }

    fn call(payload: Vec<u8>) -> Result<Vec<u8>, String> {
        crate::worker_thread::call(&payload)
    }

    fn run() {
        // SAFETY: `prepare` has run.
        unsafe {
            crate::libs::seed_random(vm().main, worker::random());
            vm().selected = (NONE, u8::MAX);
            vm().serving = true;
            loop {
                let batch = reactor::next(&vm().records);
                let vm = vm();
                vm.records.clear();
                vm.selected = (NONE, u8::MAX);
                crate::held::clear();
                if !run_batch(&batch) {
                    return;
                }
            }
        }
    }
}

/// Compiles every handler; the first message that a compiler gives is the outcome.
unsafe fn compile() -> Result<(), String> {
    let vm = vm();
    let main = vm.main;
    for handler in &mut vm.program.handlers {
        let mut source = "\n".repeat(handler.line.saturating_sub(1) as usize);
        source.push_str(&handler.source);
        let chunk = std::ffi::CString::new(handler.chunk.as_str()).unwrap_or_default();
        // SAFETY: the main thread is at its base.
        unsafe {
            if ffi::load(main, source.as_bytes(), &chunk) != ffi::OK {
                return Err(take_message(main));
            }
            handler.function = ffi::reference(main);
        }
    }
    Ok(())
}

unsafe fn take_message(l: *mut ffi::State) -> String {
    // SAFETY: the message lies on the top.
    unsafe {
        let text = ffi::to_bytes(l, -1).map_or_else(
            || "(error object is not a string)".to_owned(),
            |m| String::from_utf8_lossy(m).into_owned(),
        );
        ffi::pop(l, 1);
        text
    }
}

/// Runs the `init` handlers: in the shared globals, without an exchange.
unsafe fn run_init() -> Result<(), String> {
    let vm = vm();
    vm.until = time::monotonic() + vm.program.limits.init_ms.saturating_mul(1_000_000);
    for i in 0..vm.program.init.len() {
        let handler = &vm.program.handlers[usize::from(vm.program.init[i])];
        // SAFETY: the main thread is at its base.
        unsafe {
            ffi::push_reference(vm.main, handler.function);
            if ffi::lua_pcallk(vm.main, 0, 0, 0, 0, None) != ffi::OK {
                return Err(take_message(vm.main));
            }
        }
    }
    vm.until = 0;
    Ok(())
}

/// Runs all records of a batch; false at `stop`.
unsafe fn run_batch(batch: &[u8]) -> bool {
    let mut reader = Reader::new(batch);
    while let Some(kind) = reader.u8() {
        // SAFETY: as `run`.
        match unsafe { run_record(kind, &mut reader) } {
            Some(true) => {
                if !vm().queue.is_empty() {
                    // SAFETY: as above.
                    unsafe { run_queue() };
                }
            }
            Some(false) => return false,
            None => break,
        }
    }
    true
}

/// How many tasks may wake each other before the host's other events get their turn.
const TURNS: u32 = 1000;

/// Runs the tasks that can go on without the host.
unsafe fn run_queue() {
    let vm = vm();
    for _ in 0..TURNS {
        let Some(token) = vm.queue.pop_front() else {
            return;
        };
        // SAFETY: no task runs.
        unsafe { ready(token) };
    }
    while let Some(token) = vm.queue.pop_front() {
        vm.waits.send(token);
        wire::sleep(&mut vm.records, NONE, token, 0);
    }
}

/// Runs one record; `None` when it is cut short.
unsafe fn run_record(kind: u8, reader: &mut Reader<'_>) -> Option<bool> {
    let number = reader.u32()?;
    // SAFETY: jobs are boxed and never freed; no other reference to this one is alive.
    unsafe {
        if kind == from_host::RUN {
            return run_job(&mut *vm().job(number), reader);
        }
        match kind {
            from_host::READY => ready(reader.u32()?),
            from_host::CALL => call(number, reader.u16()?),
            from_host::STOP => {
                timer::stop();
                run_queue();
                return Some(false);
            }
            _ if number > MAX_JOB => return None,
            _ => {
                let job = &mut *vm().job(number);
                match kind {
                    from_host::CANCEL => flow::cancel(job),
                    from_host::LEFT => crate::abort::left(job),
                    from_host::LOG => {
                        flow::cancel(job);
                        job.step = 0;
                        job.said = true;
                        // What became of the answer only the host knows.
                        job.status = 0;
                        job.host_head = true;
                        flow::log(job);
                    }
                    from_host::RELEASE => {
                        flow::cancel(job);
                        flow::forget(job);
                    }
                    from_host::CHUNK => {
                        let flags = reader.u8()?;
                        filter::piece(job, flags, reader.bytes()?);
                    }
                    from_host::DRAINED => {
                        job.unacknowledged = 0;
                        for token in job.drain.drain(..) {
                            vm().queue.push_back(token);
                        }
                    }
                    _ => return None,
                }
            }
        }
    }
    Some(true)
}

unsafe fn run_job(job: &mut Job, reader: &mut Reader<'_>) -> Option<bool> {
    let flags = reader.u8()?;
    if flags & wire::RUN_NEW != 0 {
        if job.live {
            // SAFETY: the host has forgotten it.
            unsafe { flow::forget(job) };
        }
        job.reset();
    }
    job.segment = reader.u16()?;
    job.step = usize::from(reader.u8()?);
    job.status = reader.u16()?;
    job.method = reader.u8()?;
    job.version = reader.u8()?;
    let uri = reader.bytes()?;
    job.uri.clear();
    job.uri.extend_from_slice(uri);
    job.inner = flags & wire::RUN_INNER != 0;
    job.internal = flags & wire::RUN_INTERNAL != 0;
    job.host_head = flags & wire::RUN_HOST_HEAD != 0;
    job.head_sent = flags & wire::RUN_HEAD_SENT != 0;
    job.said = job.head_sent;
    job.eof = false;
    job.body_ended = false;
    // SAFETY: no task of this job runs.
    unsafe { flow::advance(job) };
    Some(true)
}

unsafe fn ready(token: u32) {
    let vm = vm();
    match vm.waits.redeem(token) {
        Waiter::Nobody => {}
        // SAFETY: as `timer::fire`.
        Waiter::Timer(at) => unsafe { timer::fire(at, false) },
        Waiter::Semaphore(at) => crate::semaphore::serve(at),
        Waiter::Task(number) => {
            let Some(&task) = vm.tasks.get(number as usize) else {
                return;
            };
            // SAFETY: tasks are never freed; this one waits.
            unsafe {
                let task = &mut *task;
                let progress = task.wake();
                if progress == Progress::Waits {
                    return;
                }
                if task.kind == Kind::Thread {
                    let Some((root, progress)) = thread::ended(task, progress) else {
                        return;
                    };
                    ended(root, progress);
                } else {
                    ended(task, progress);
                }
            }
        }
    }
}

/// A task that waited has ended: what it ran for goes on.
unsafe fn ended(task: &mut Task, progress: Progress) {
    // SAFETY: jobs and tasks are never freed.
    unsafe {
        match task.kind {
            Kind::Step => {
                let job = &mut *task.job;
                if flow::step_ended(job, task, progress) {
                    flow::advance(job);
                }
            }
            Kind::Log => {
                let job = &mut *task.job;
                flow::log_ended(job, task, progress);
                flow::log(job);
            }
            Kind::Call => call_ended(task, progress),
            Kind::Timer => timer::ended(task, progress),
            Kind::Filter => filter::ended(&mut *task.job, task, progress),
            // `ready` has given their entry task.
            Kind::Thread => {}
        }
    }
}

/// Runs a handler that has no exchange.
unsafe fn call(number: u32, handler: u16) {
    let vm = vm();
    let Some(phase) = vm
        .program
        .handlers
        .get(usize::from(handler))
        .map(|h| h.phase)
    else {
        wire::fail(&mut vm.records, number, b"no such handler");
        return;
    };
    // SAFETY: the task is new.
    unsafe {
        let task = task::take(Kind::Call, phase, std::ptr::null_mut());
        task.call = number;
        task.push_handler(handler);
        let progress = task.resume(0);
        if progress != Progress::Waits {
            call_ended(task, progress);
        }
    }
}

unsafe fn call_ended(task: &mut Task, progress: Progress) {
    let vm = vm();
    if progress == Progress::Failed {
        wire::fail(&mut vm.records, task.call, &task.message);
    } else {
        wire::end(&mut vm.records, task.call);
    }
    // SAFETY: it has ended.
    unsafe { task.give_back() };
}

crate::bindings::export!(Plugin with_types_in crate::bindings);
