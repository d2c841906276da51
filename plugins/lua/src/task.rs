//! Tasks: each runs one handler (or timer) as a coroutine with globals of its own.
//!
//! Coroutine, globals and the handlers' closures are pooled: making them anew costs more than a
//! small handler. They are used again only when nothing of the last run is left in them
//! (`phasor_clean`); otherwise no request may see what another left behind.
#![expect(unsafe_code, reason = "drives Lua threads")]

use crate::bindings::phasor::plugin::operation::Operation;
use crate::coroutine::Mark;
use crate::ffi::{self, State};
use crate::job::{Exit, Job, NONE};
use crate::phase::Phase;
use crate::thread;
use crate::vm::vm;
use std::ffi::{c_int, c_void};

/// What a task runs for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A step of a job's segment.
    Step,
    /// A filter of head or body.
    Filter,
    /// A handler of the phase `log`.
    Log,
    /// A handler without an exchange; answers `call`.
    Call,
    /// A timer's callback.
    Timer,
    /// A light thread of another task.
    Thread,
}

/// How far a task came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    /// It has ended.
    Done,
    /// It waits for something.
    Waits,
    /// It raised an error; the message is in `Task::message`.
    Failed,
}

/// Why a coroutine is not let go on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dying {
    No,
    /// `ngx.exit` and its like.
    Exit,
    /// The CPU budget is spent.
    Budget,
}

/// One handler or light thread in progress, or a free slot for one.
pub(crate) struct Task {
    pub(crate) number: u32,
    pub(crate) thread: *mut State,
    pub(crate) reference: c_int,
    pub(crate) globals: *const c_void,
    pub(crate) kind: Kind,
    pub(crate) phase: Phase,
    pub(crate) job: *mut Job,
    pub(crate) handler: u16,
    /// The innermost coroutine, which waits, and how many results lie on its stack.
    pub(crate) leaf: *mut State,
    pub(crate) leaf_results: c_int,
    pub(crate) live: bool,
    /// Counts uses of the slot, so that a late wake-up finds nobody.
    pub(crate) dying: Dying,
    /// Processor time against the budget; a light thread's counts when the connection has left HTTP.
    pub(crate) spent: u64,
    /// It was interrupted to let others run, and waits for nothing.
    pub(crate) sliced: bool,
    /// Memory that it and its light threads have taken and not given back.
    pub(crate) memory: isize,
    pub(crate) message: Vec<u8>,
    /// The wait that wakes it.
    pub(crate) token: u32,
    /// The number of the `call` that it answers.
    pub(crate) call: u32,
    /// How the handler ended itself.
    pub(crate) exit: Exit,
    /// 1 when what it calls must not yield to the scheduler: somebody in C waits for its end.
    pub(crate) blocks: u32,
    /// The task that this light thread belongs to; itself for all others.
    pub(crate) root: u32,
    /// Its light threads that run or have not been waited for, and how many of them run.
    pub(crate) threads: Vec<u32>,
    pub(crate) running: usize,
    /// Its own coroutine has ended, its light threads have not.
    pub(crate) ended: bool,
    /// How many modules it loads.
    pub(crate) loads: u32,
    /// How many flights of caches it has.
    pub(crate) flights: u32,
    /// How many guards of locks it has: one without a job.
    pub(crate) guards: u32,
    /// What it waits for, on the stack of its coroutine.
    pub(crate) pending: *mut Option<Operation>,
    /// Lua code got hold of the coroutine.
    pub(crate) handed_out: bool,
    /// Of a light thread: who made it, and waits for it.
    pub(crate) child: thread::Child,
}

/// The stack slot of the globals, and that of the first handler's closure.
const GLOBALS: c_int = 1;
const FIRST: c_int = 2;

/// How many free slots keep their coroutines.
const POOL: usize = 512;

/// Takes a task out of the pool, or makes one.
pub(crate) unsafe fn take(kind: Kind, phase: Phase, job: *mut Job) -> &'static mut Task {
    let free = vm().free_tasks.pop();
    let task = place(free, kind, phase, job);
    if task.thread.is_null() {
        // SAFETY: the main thread is live.
        unsafe { task.make_thread() };
    }
    task
}

/// Takes a slot without a coroutine.
pub(crate) fn take_bare(kind: Kind, phase: Phase, job: *mut Job) -> &'static mut Task {
    let free = vm().bare_tasks.pop();
    place(free, kind, phase, job)
}

fn place(free: Option<u32>, kind: Kind, phase: Phase, job: *mut Job) -> &'static mut Task {
    let vm = vm();
    let number = free.unwrap_or_else(|| {
        let number = u32::try_from(vm.tasks.len()).unwrap_or(NONE);
        vm.tasks.push(Box::into_raw(Box::new(Task {
            number,
            thread: std::ptr::null_mut(),
            reference: 0,
            globals: std::ptr::null(),
            kind,
            phase,
            job,
            handler: 0,
            leaf: std::ptr::null_mut(),
            leaf_results: 0,
            live: false,
            dying: Dying::No,
            spent: 0,
            sliced: false,
            memory: 0,
            message: Vec::new(),
            token: NONE,
            call: NONE,
            exit: Exit::Returned,
            blocks: 0,
            root: number,
            threads: Vec::new(),
            running: 0,
            ended: false,
            loads: 0,
            flights: 0,
            guards: 0,
            pending: std::ptr::null_mut(),
            handed_out: false,
            child: thread::Child::default(),
        })));
        number
    });
    // SAFETY: tasks are boxed and never freed.
    let task = unsafe { &mut *vm.tasks[number as usize] };
    task.kind = kind;
    task.phase = phase;
    task.job = job;
    task.leaf = std::ptr::null_mut();
    task.leaf_results = 0;
    task.live = true;
    task.dying = Dying::No;
    task.spent = 0;
    task.sliced = false;
    task.memory = 0;
    task.token = NONE;
    task.exit = Exit::Returned;
    task.blocks = 0;
    task.root = number;
    task.ended = false;
    task.handed_out = false;
    task
}

impl Task {
    unsafe fn make_thread(&mut self) {
        let vm = vm();
        // SAFETY: the registry keeps the thread.
        unsafe {
            self.thread = ffi::lua_newthread(vm.main);
            ffi::phasor_setmark(self.thread, Mark::OWN);
            self.reference = ffi::reference(vm.main);
            self.make_globals();
        }
    }

    /// New globals, and no closures.
    unsafe fn make_globals(&mut self) {
        let vm = vm();
        let t = self.thread;
        // SAFETY: the thread is at its base.
        unsafe {
            ffi::lua_settop(t, 0);
            ffi::lua_createtable(t, 0, 0);
            ffi::push_reference(t, vm.globals_metatable_ref);
            ffi::lua_setmetatable(t, GLOBALS);
            self.globals = ffi::lua_topointer(t, GLOBALS);
            let handlers = c_int::try_from(vm.program.handlers.len()).unwrap_or(0);
            ffi::lua_checkstack(t, handlers + 20);
            ffi::lua_settop(t, GLOBALS + handlers);
        }
    }

    /// Pushes the closure of a handler over this task's globals.
    pub(crate) unsafe fn push_handler(&mut self, handler: u16) {
        self.handler = handler;
        let t = self.thread;
        let slot = FIRST + c_int::from(handler);
        // SAFETY: the slot is below the top; `function` is a Lua function.
        unsafe {
            if ffi::lua_type(t, slot) == ffi::TNIL {
                ffi::push_reference(t, vm().program.handlers[usize::from(handler)].function);
                ffi::lua_pushvalue(t, GLOBALS);
                ffi::lua_cloneenv(t, -2);
                ffi::lua_replace(t, slot);
                ffi::pop(t, 1);
            }
            ffi::lua_pushvalue(t, slot);
        }
    }

    /// Whether its connection is not HTTP's any more.
    pub(crate) fn has_left_http(&self) -> bool {
        // SAFETY: jobs are boxed and never freed.
        !self.job.is_null() && unsafe { (*self.job).raw }
    }

    /// Runs until the end, a wait or an error. Function and arguments (at first) or results lie on
    /// the stack of the coroutine that goes on. An entry task has ended when its threads have, too.
    pub(crate) unsafe fn resume(&mut self, results: c_int) -> Progress {
        let vm = vm();
        let outer = (vm.task, ffi::globals(), vm.blocked, vm.budget);
        self.pending = std::ptr::null_mut();
        let seen = vm.budget.is_of(vm.switches);
        if !std::mem::take(&mut self.sliced) && self.has_left_http() {
            self.spent = 0;
        }
        let root = vm.tasks[self.root as usize];
        vm.task = self.number;
        // SAFETY: tasks are boxed and never freed.
        let charged = crate::alloc::charge(unsafe { (*root).memory });
        vm.blocked = self.blocks;
        vm.switches += 1;
        ffi::set_globals(self.globals);
        // SAFETY: the thread is new or suspended.
        let status = unsafe { ffi::lua_resume(self.thread, std::ptr::null_mut(), results) };
        // SAFETY: as above.
        unsafe {
            (*root).memory = crate::alloc::charge(charged);
            let payer = if self.has_left_http() {
                std::ptr::from_mut(self)
            } else {
                root
            };
            (*payer).spent += crate::budget::stopped();
        }
        vm.task = outer.0;
        vm.blocked = outer.2;
        vm.switches += 1;
        ffi::set_globals(outer.1);
        if outer.0 != NONE && seen {
            // A filter inside a handler: the handler's time goes on.
            vm.budget = outer.3.resumed(vm.switches);
        }
        let waiting = std::mem::take(&mut vm.waiting);
        // SAFETY: the coroutine has returned.
        let progress = unsafe { self.outcome(status, waiting) };
        if self.threads.is_empty() {
            return progress;
        }
        // SAFETY: as above.
        unsafe { thread::settle(self, progress) }
    }

    unsafe fn outcome(&mut self, status: c_int, waiting: bool) -> Progress {
        match status {
            ffi::OK => Progress::Done,
            ffi::YIELD => {
                if self.dying == Dying::Exit {
                    // SAFETY: the coroutine is left behind for the collector.
                    unsafe { self.abandon() };
                    return Progress::Done;
                }
                if !waiting {
                    // `coroutine.yield` with nobody to yield to: others go first.
                    self.leaf = self.thread;
                    self.leaf_results = 0;
                    // SAFETY: the yielded values are dropped.
                    unsafe { ffi::lua_settop(self.thread, 0) };
                    crate::wait::queue(self);
                }
                Progress::Waits
            }
            _ => {
                // SAFETY: the error lies on the top of the dead coroutine.
                unsafe { self.fail(status) }
            }
        }
    }

    /// Goes on after a wait, whose results lie on the leaf's stack.
    pub(crate) unsafe fn wake(&mut self) -> Progress {
        let results = if self.leaf == self.thread {
            self.leaf_results
        } else {
            0
        };
        // SAFETY: the thread is suspended.
        unsafe { self.resume(results) }
    }

    unsafe fn fail(&mut self, status: c_int) -> Progress {
        if self.dying == Dying::Exit {
            // SAFETY: as below.
            unsafe { self.abandon() };
            return Progress::Done;
        }
        self.message.clear();
        // SAFETY: the coroutine is dead, its stack is still there.
        unsafe {
            self.leave_duties();
            crate::traceback::describe(self.thread, status, &mut self.message);
            if self.kind != Kind::Thread {
                self.abandon();
            }
            if status == ffi::ERRMEM {
                ffi::lua_gc(vm().main, ffi::GCCOLLECT, 0);
            }
        }
        Progress::Failed
    }

    /// Leaves the coroutine to the collector; the next use of this slot makes another.
    pub(crate) unsafe fn abandon(&mut self) {
        if self.thread.is_null() {
            return;
        }
        // SAFETY: the registry kept it.
        unsafe {
            self.leave_duties();
            ffi::phasor_setmark(self.thread, Mark::DEAD);
            ffi::unreference(vm().main, self.reference);
        }
        self.thread = std::ptr::null_mut();
        self.globals = std::ptr::null();
    }

    /// What it was loading is no longer being loaded, what it was to bring to a cache others bring, and
    /// what it waits for it does not wait for any more.
    unsafe fn leave_duties(&mut self) {
        let pending = std::mem::replace(&mut self.pending, std::ptr::null_mut());
        // SAFETY: its coroutine, which is there still, has the operation on its stack.
        if let Some(operation) = unsafe { pending.as_mut() } {
            // It is not to wait for the collector: what it stands in line for another could have.
            drop(operation.take());
        }
        if self.guards != 0 {
            crate::guard::give_back_all(crate::guard::Owner::Task(self.number));
        }
        if self.flights != 0 {
            crate::flight::leave_all(self.number);
        }
        if std::mem::take(&mut self.loads) != 0 {
            // SAFETY: nothing of it runs.
            unsafe { crate::module::leave(self.number) };
        }
    }

    /// Goes on at once with one that must end now: it has waited with the whole stack, so it can
    /// only have yielded by itself.
    pub(crate) unsafe fn insist(&mut self) -> Progress {
        vm().waits.forget(self.token);
        // SAFETY: it is suspended, or only its light threads are left.
        unsafe {
            if self.ended {
                thread::kill_all(self);
                return Progress::Done;
            }
            self.wake()
        }
    }

    /// Ends it from outside, and its light threads: it waits, or its own coroutine has ended.
    pub(crate) unsafe fn cancel(&mut self) {
        vm().waits.forget(self.token);
        // SAFETY: nothing of it runs.
        unsafe {
            thread::kill_all(self);
            self.abandon();
        }
    }

    /// Puts an ended task back.
    pub(crate) unsafe fn give_back(&mut self) {
        let vm = vm();
        self.live = false;
        self.job = std::ptr::null_mut();
        // SAFETY: it has ended.
        unsafe { self.leave_duties() };
        let t = self.thread;
        if !t.is_null() {
            // SAFETY: the coroutine has ended: it is at its base.
            unsafe {
                let slot = FIRST + c_int::from(self.handler);
                let handlers = c_int::try_from(vm.program.handlers.len()).unwrap_or(0);
                ffi::lua_settop(t, GLOBALS + handlers);
                let plain = self.kind != Kind::Timer;
                if vm.free_tasks.len() >= POOL || std::mem::take(&mut self.handed_out) {
                    self.abandon();
                } else if !plain || ffi::phasor_clean(t, GLOBALS, slot, vm.globals_metatable) == 0 {
                    self.make_globals();
                }
            }
        }
        vm.free_tasks.push(self.number);
    }
}
