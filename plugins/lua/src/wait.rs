//! Waiting: a coroutine that must wait yields to the scheduler through any nesting of coroutines;
//! a token brings it back. Where it cannot yield, the call waits with the whole stack instead.
#![expect(unsafe_code, reason = "yields Lua coroutines")]

use crate::bindings::phasor::plugin::{operation, reactor, timers};
use crate::ffi::{self, CFunction, State};
use crate::job::NONE;
use crate::phase;
use crate::task::Task;
use crate::vm::vm;
use crate::wire;
use std::ffi::c_int;

/// Whom a token wakes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiter {
    Nobody,
    Task(u32),
    Timer(u32),
}

struct Slot {
    waiter: Waiter,
    uses: u32,
}

/// The tokens that are out.
#[derive(Default)]
pub(crate) struct Waits {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

/// A token is a slot's number below this bit, and above it a count of the slot's uses: a late
/// wake-up must not find the slot's next waiter.
const SLOT_BITS: u32 = 20;

impl Waits {
    /// A token that wakes `waiter`.
    pub(crate) fn take(&mut self, waiter: Waiter) -> u32 {
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { waiter, uses: 0 });
            u32::try_from(self.slots.len() - 1).unwrap_or(0)
        });
        let slot = &mut self.slots[at as usize];
        slot.waiter = waiter;
        slot.uses = (slot.uses + 1) & ((1 << (32 - SLOT_BITS)) - 1);
        at | slot.uses << SLOT_BITS
    }

    /// Whom a token wakes; it is used up.
    pub(crate) fn redeem(&mut self, token: u32) -> Waiter {
        let at = token & ((1 << SLOT_BITS) - 1);
        let Some(slot) = self.slots.get_mut(at as usize) else {
            return Waiter::Nobody;
        };
        if slot.uses != token >> SLOT_BITS || slot.waiter == Waiter::Nobody {
            return Waiter::Nobody;
        }
        self.free.push(at);
        std::mem::replace(&mut slot.waiter, Waiter::Nobody)
    }
}

/// Whether the running coroutine can yield to the scheduler.
pub(crate) unsafe fn can_wait(l: *mut State) -> bool {
    let vm = vm();
    // SAFETY: `l` is the running coroutine.
    vm.task != NONE && vm.blocked == 0 && unsafe { ffi::phasor_yieldable(l) != 0 }
}

/// The job number that this task's records carry.
fn record_job(task: &Task) -> u32 {
    // SAFETY: jobs are boxed and never freed.
    if task.job.is_null() {
        NONE
    } else {
        // SAFETY: jobs are boxed and never freed.
        unsafe { (*task.job).number }
    }
}

/// Lets the others go first: wakes the task with the host's next batch.
pub(crate) fn requeue(task: &mut Task) {
    sleep_task(task, 0);
}

fn sleep_task(task: &mut Task, milliseconds: u32) {
    let vm = vm();
    task.token = vm.waits.take(Waiter::Task(task.number));
    wire::sleep(&mut vm.records, record_job(task), task.token, milliseconds);
}

/// Yields the running task to the scheduler; what wakes it must have been arranged. The results of
/// the wait are what `k` makes, or nothing. Return its value from the C function.
pub(crate) unsafe fn suspend(l: *mut State, context: c_int, k: Option<CFunction>) -> c_int {
    let vm = vm();
    if let Some(task) = vm.current() {
        task.leaf = l;
        task.leaf_results = 0;
    }
    vm.waiting = true;
    // SAFETY: the caller has asked `can_wait`.
    unsafe { ffi::lua_yieldk(l, 0, context, k) }
}

/// Waits for an operation, then calls `k` (with the context) to end it.
pub(crate) unsafe fn operation(
    l: *mut State,
    operation: &operation::Operation,
    context: c_int,
    k: CFunction,
) -> c_int {
    // SAFETY: `l` is the running coroutine.
    unsafe {
        if operation.ready() || !can_wait(l) {
            return k(l);
        }
        let vm = vm();
        if let Some(task) = vm.current() {
            task.token = vm.waits.take(Waiter::Task(task.number));
            reactor::watch(operation, record_job(task), task.token);
        }
        suspend(l, context, Some(k))
    }
}

unsafe fn bad_duration(l: *mut State, seconds: f64) -> ! {
    let text = format!("invalid sleep duration \"{seconds}\"");
    // SAFETY: the text lies on the stack of Lua before the error is raised.
    unsafe {
        ffi::push_bytes(l, text.as_bytes());
        drop(text);
        ffi::raise(l)
    }
}

/// `ngx.sleep(seconds)`.
pub(crate) unsafe extern "C-unwind" fn sleep(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let seconds = ffi::luaL_checknumber(l, 1);
        crate::api::check_phase(l, phase::WAIT);
        if !(0.0..=4_294_967.0).contains(&seconds) {
            bad_duration(l, seconds);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked above"
        )]
        let milliseconds = (seconds * 1000.0) as u32;
        let vm = vm();
        if !can_wait(l) {
            vm.select();
            timers::sleep(milliseconds);
            return 0;
        }
        if let Some(task) = vm.current() {
            sleep_task(task, milliseconds);
        }
        suspend(l, 0, None)
    }
}
