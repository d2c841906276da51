//! The state of the one VM of this instance: reached from Rust functions that Lua calls, which get
//! nothing but a Lua thread.
//!
//! An instance has one thread, and no reference into the state is kept across a call into Lua.
#![expect(
    unsafe_code,
    reason = "one global state, reached through a raw pointer"
)]

use crate::bindings::phasor::plugin::reactor;
use crate::ffi::State;
use crate::job::{Job, NONE};
use crate::phase::{self, Phase};
use crate::program::Program;
use crate::task::Task;
use crate::wait::Waits;
use std::ffi::c_void;

/// Everything that the plugin keeps.
pub(crate) struct Vm {
    /// The main Lua thread.
    pub(crate) main: *mut State,
    pub(crate) program: Program,
    /// By job number.
    pub(crate) jobs: Vec<*mut Job>,
    /// By task number.
    pub(crate) tasks: Vec<*mut Task>,
    pub(crate) free_tasks: Vec<u32>,
    pub(crate) waits: Waits,
    /// Records for the host.
    pub(crate) records: Vec<u8>,
    /// The running task.
    pub(crate) task: u32,
    /// The metatable of globals tables.
    pub(crate) globals_metatable: *const c_void,
    pub(crate) globals_metatable_ref: i32,
    /// Set by a function that yields to the scheduler, not to Lua.
    pub(crate) waiting: bool,
    /// How many frames below the running coroutine cannot yield.
    pub(crate) blocked: u32,
    /// Counts exchanges.
    pub(crate) serial: u64,
    /// Counts the times a task began to run.
    pub(crate) switches: u64,
    /// What the host's current exchange is.
    pub(crate) selected: (u32, Phase),
    /// Slots of tasks that have no coroutine: light threads bring their own.
    pub(crate) bare_tasks: Vec<u32>,
    /// The tokens of tasks that can go on without the host.
    pub(crate) queue: std::collections::VecDeque<u32>,
    pub(crate) semaphores: crate::semaphore::Semaphores,
    pub(crate) timers: crate::timer::Timers,
    pub(crate) loads: crate::module::Loads,
    pub(crate) flights: crate::flight::Flights,
    pub(crate) guards: crate::guard::Guards,
    /// The shared dicts that were opened here, or by `init`.
    pub(crate) dicts: Vec<crate::api_shared::Opened>,
    pub(crate) budget: crate::budget::Budget,
    pub(crate) stopping: bool,
    /// This instance serves calls of others only.
    pub(crate) elsewhere: bool,
    /// The moment of the monotonic clock at which such a call, or `init`, ends; 0 is never.
    pub(crate) until: u64,
    /// `run` has begun.
    pub(crate) serving: bool,
}

/// A cell that lets a static hold the state of a program without threads.
struct Cell(std::cell::UnsafeCell<Option<Vm>>);
// SAFETY: a component instance has one thread.
unsafe impl Sync for Cell {}
static VM: Cell = Cell(std::cell::UnsafeCell::new(None));

/// The state. Valid after `set`.
#[inline]
pub(crate) fn vm() -> &'static mut Vm {
    // SAFETY: `set` runs before anything else; one thread, and no caller keeps the reference.
    unsafe { (*VM.0.get()).as_mut().unwrap_unchecked() }
}

/// Whether `set` has run.
pub(crate) fn is_set() -> bool {
    // SAFETY: as above.
    unsafe { (*VM.0.get()).is_some() }
}

/// Puts the state in place.
pub(crate) fn set(vm: Vm) {
    // SAFETY: as above.
    unsafe { *VM.0.get() = Some(vm) }
}

impl Vm {
    pub(crate) fn new(main: *mut State, program: Program) -> Self {
        Self {
            main,
            program,
            jobs: Vec::new(),
            tasks: Vec::new(),
            free_tasks: Vec::new(),
            waits: Waits::default(),
            records: Vec::with_capacity(4096),
            task: NONE,
            globals_metatable: std::ptr::null(),
            globals_metatable_ref: 0,
            waiting: false,
            blocked: 0,
            serial: 0,
            switches: 0,
            selected: (NONE, u8::MAX),
            bare_tasks: Vec::new(),
            queue: std::collections::VecDeque::new(),
            semaphores: crate::semaphore::Semaphores::default(),
            timers: crate::timer::Timers::default(),
            loads: crate::module::Loads::default(),
            flights: crate::flight::Flights::default(),
            guards: crate::guard::Guards::default(),
            dicts: Vec::new(),
            budget: crate::budget::Budget::default(),
            stopping: false,
            elsewhere: false,
            until: 0,
            serving: false,
        }
    }

    /// The job in a slot, made when it is new.
    pub(crate) fn job(&mut self, number: u32) -> *mut Job {
        let at = number as usize;
        while self.jobs.len() <= at {
            let number = u32::try_from(self.jobs.len()).unwrap_or(NONE);
            self.jobs.push(Box::into_raw(Box::new(Job::new(number))));
        }
        self.jobs[at]
    }

    /// The running task, if any.
    pub(crate) fn current(&mut self) -> Option<&'static mut Task> {
        let &task = self.tasks.get(self.task as usize)?;
        // SAFETY: tasks are boxed and never freed.
        Some(unsafe { &mut *task })
    }

    /// The entry task of the running one: itself, or the one that spawned the light thread.
    pub(crate) fn current_root(&mut self) -> Option<&'static mut Task> {
        let root = self.current()?.root;
        let &task = self.tasks.get(root as usize)?;
        // SAFETY: tasks are boxed and never freed.
        Some(unsafe { &mut *task })
    }

    /// The task against whose budget the running one works: light threads share their entry task's,
    /// until the connection leaves HTTP.
    pub(crate) fn payer(&mut self) -> Option<&'static mut Task> {
        match self.current() {
            Some(task) if task.has_left_http() => Some(task),
            _ => self.current_root(),
        }
    }

    /// The job of the running task, if it has one.
    pub(crate) fn current_job(&mut self) -> Option<&'static mut Job> {
        let job = self.current()?.job;
        if job.is_null() {
            return None;
        }
        // SAFETY: jobs are boxed and never freed.
        Some(unsafe { &mut *job })
    }

    /// The running task's phase; `init` outside of tasks.
    pub(crate) fn phase(&mut self) -> Phase {
        let outside = if self.serving {
            phase::TIMER
        } else {
            phase::INIT
        };
        self.current().map_or(outside, |t| t.phase)
    }

    /// Makes the running task's exchange the host's current one.
    pub(crate) fn select(&mut self) {
        let wanted = match self.current() {
            // SAFETY: jobs are boxed and never freed.
            Some(t) => (
                if t.job.is_null() {
                    NONE
                } else {
                    // SAFETY: as above.
                    unsafe { (*t.job).number }
                },
                t.phase,
            ),
            // Outside of tasks: `init` while the image is made, timers later.
            None => (
                NONE,
                if self.serving {
                    phase::TIMER
                } else {
                    phase::INIT
                },
            ),
        };
        if self.selected != wanted {
            self.selected = wanted;
            reactor::select(wanted.0, wanted.1);
        }
    }
}
