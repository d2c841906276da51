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
    Semaphore(u32),
}

struct Slot {
    waiter: Waiter,
    uses: u32,
    /// The host has the token and will bring it back.
    abroad: bool,
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
    /// A token that the host will bring back to wake `waiter`.
    pub(crate) fn take(&mut self, waiter: Waiter) -> u32 {
        self.issue(waiter, true)
    }

    /// A token that stays here: whoever keeps it queues it or forgets it.
    pub(crate) fn take_home(&mut self, waiter: Waiter) -> u32 {
        self.issue(waiter, false)
    }

    fn issue(&mut self, waiter: Waiter, abroad: bool) -> u32 {
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                waiter,
                uses: 0,
                abroad,
            });
            u32::try_from(self.slots.len() - 1).unwrap_or(0)
        });
        let slot = &mut self.slots[at as usize];
        slot.waiter = waiter;
        slot.abroad = abroad;
        slot.uses = (slot.uses + 1) & ((1 << (32 - SLOT_BITS)) - 1);
        at | slot.uses << SLOT_BITS
    }

    fn slot(&mut self, token: u32) -> Option<(u32, &mut Slot)> {
        let at = token & ((1 << SLOT_BITS) - 1);
        let slot = self.slots.get_mut(at as usize)?;
        (slot.uses == token >> SLOT_BITS).then_some((at, slot))
    }

    /// Whom a token wakes; it is used up.
    pub(crate) fn redeem(&mut self, token: u32) -> Waiter {
        let Some((at, slot)) = self.slot(token) else {
            return Waiter::Nobody;
        };
        let waiter = std::mem::replace(&mut slot.waiter, Waiter::Nobody);
        if waiter != Waiter::Nobody || std::mem::take(&mut slot.abroad) {
            slot.abroad = false;
            self.free.push(at);
        }
        waiter
    }

    /// Nobody waits for this any more. A token that the host has keeps its slot until it is back:
    /// the slot's next token could be mistaken for it.
    pub(crate) fn forget(&mut self, token: u32) {
        if let Some((at, slot)) = self.slot(token)
            && slot.waiter != Waiter::Nobody
        {
            slot.waiter = Waiter::Nobody;
            if !slot.abroad {
                self.free.push(at);
            }
        }
    }

    /// As `forget`, and gives who waited.
    pub(crate) fn give_up(&mut self, token: u32) -> Waiter {
        let waiter = self.slot(token).map_or(Waiter::Nobody, |(_, s)| s.waiter);
        self.forget(token);
        waiter
    }

    /// Whether somebody still waits for this.
    pub(crate) fn awaited(&mut self, token: u32) -> bool {
        self.slot(token)
            .is_some_and(|(_, slot)| slot.waiter != Waiter::Nobody)
    }

    /// The host gets a token that was at home.
    pub(crate) fn send(&mut self, token: u32) {
        if let Some((_, slot)) = self.slot(token) {
            slot.abroad = true;
        }
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

/// Wakes the task when those before it in the queue have had their turn.
pub(crate) fn queue(task: &mut Task) {
    let vm = vm();
    task.token = vm.waits.take_home(Waiter::Task(task.number));
    vm.queue.push_back(task.token);
}

/// A token at home with which the running task waits; `NONE` outside of tasks.
pub(crate) fn home_token() -> u32 {
    let vm = vm();
    match vm.current() {
        Some(task) => {
            task.token = vm.waits.take_home(Waiter::Task(task.number));
            task.token
        }
        None => NONE,
    }
}

/// A token with which the host wakes the running task when the time has passed.
pub(crate) fn sleep_token(milliseconds: u32) -> u32 {
    match vm().current() {
        Some(task) => {
            sleep_task(task, milliseconds);
            task.token
        }
        None => NONE,
    }
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
    unsafe {
        crate::coroutine::mark_waiting(l);
        ffi::lua_yieldk(l, 0, context, k)
    }
}

/// Waits for an operation, then calls `k` to end it.
pub(crate) unsafe fn operation(
    l: *mut State,
    operation: &operation::Operation,
    k: CFunction,
) -> c_int {
    // SAFETY: `l` is the running coroutine.
    unsafe {
        if operation.ready() {
            return k(l);
        }
        begun(l, operation, k)
    }
}

/// As `operation`, of one that was not over when it began, a moment ago: the host need not be asked.
pub(crate) unsafe fn begun(l: *mut State, operation: &operation::Operation, k: CFunction) -> c_int {
    // SAFETY: `l` is the running coroutine.
    unsafe {
        let vm = vm();
        if !can_wait(l) {
            let results = k(l);
            // What the worker did meanwhile is not this task's work.
            vm.switches += 1;
            return results;
        }
        if let Some(task) = vm.current() {
            task.token = vm.waits.take(Waiter::Task(task.number));
            reactor::watch(operation, record_job(task), task.token);
        }
        suspend(l, 0, Some(k))
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

/// Waits for an operation that lives in a userdata at index 1, alone on the stack; `k` ends it.
pub(crate) unsafe fn end_with(
    l: *mut State,
    operation: operation::Operation,
    k: CFunction,
) -> c_int {
    // SAFETY: `l` is the running coroutine.
    unsafe {
        ffi::lua_settop(l, 0);
        end_behind(l, operation, k)
    }
}

/// As `end_with`, and what is on the stack stays behind the userdata.
pub(crate) unsafe fn end_behind(
    l: *mut State,
    operation: operation::Operation,
    k: CFunction,
) -> c_int {
    // SAFETY: `l` is the running coroutine.
    unsafe {
        let place = crate::api_body::push_operation(l, operation);
        ffi::lua_insert(l, 1);
        // Until it is `taken`: should the task be ended while it waits, so is the operation.
        if let Some(task) = vm().current() {
            task.pending = place;
        }
        match &*place {
            Some(pending) => self::operation(l, pending, k),
            None => 0,
        }
    }
}

/// In the continuation of `end_with`: the operation, and its exchange is the host's current one.
pub(crate) unsafe fn taken(l: *mut State) -> Option<operation::Operation> {
    // SAFETY: the userdata of `end_with` lies at index 1.
    unsafe {
        let place: *mut Option<operation::Operation> = ffi::lua_touserdata(l, 1).cast();
        if let Some(task) = vm().current() {
            task.pending = std::ptr::null_mut();
        }
        vm().select();
        (*place).take()
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
            vm.switches += 1;
            return 0;
        }
        if let Some(task) = vm.current() {
            sleep_task(task, milliseconds);
        }
        suspend(l, 0, None)
    }
}
