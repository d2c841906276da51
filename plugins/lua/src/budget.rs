//! The CPU budget of a handler, in processor time of the worker's thread: what else the machine does
//! is not its fault. A hook counts instructions, C loops count their own work. A busy
//! coroutine lets others run after a slice; one whose budget is spent gets an error that it cannot
//! keep from ending it. Where the connection has left HTTP, which may last for days, the budget is
//! each light thread's, for what it does between two waits.
#![expect(unsafe_code, reason = "called by Lua's hook")]

use crate::bindings::phasor::plugin::time;
use crate::ffi::{self, Debug, State};
use crate::job::Exit;
use crate::task::Dying;
use crate::vm::vm;
use crate::wait;
use std::ffi::c_int;

/// Instructions between two looks at the clock: some 100 µs.
const INSTRUCTIONS: c_int = 10_000;
/// How long a coroutine may run before others of the VM get their turn.
const SLICE: u64 = 2_000_000;

/// When the running task was first seen running.
#[derive(Default, Clone, Copy)]
pub(crate) struct Budget {
    switch: u64,
    since: u64,
}

impl Budget {
    /// Whether it is that of the task which runs since this switch.
    pub(crate) fn is_of(self, switch: u64) -> bool {
        self.switch == switch
    }

    /// The same, for a task that goes on after another ran inside it.
    pub(crate) fn resumed(self, switch: u64) -> Self {
        Self { switch, ..self }
    }
}

/// What the running task has used since it was first seen running: it stops now.
pub(crate) fn stopped() -> u64 {
    let vm = vm();
    if vm.budget.switch == vm.switches {
        time::cpu().saturating_sub(vm.budget.since)
    } else {
        0
    }
}

/// Counts on this thread and on those made from it.
pub(crate) unsafe fn install(l: *mut State) {
    // SAFETY: `hook` has the right type.
    unsafe { ffi::lua_sethook(l, Some(hook), ffi::MASKCOUNT, INSTRUCTIONS) };
}

unsafe extern "C-unwind" fn hook(l: *mut State, _: *mut Debug) {
    // SAFETY: called by Lua.
    unsafe { check(l, true) }
}

/// Called by `phasor_tick`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn phasor_check_budget(l: *mut State) {
    // SAFETY: called by Lua's C code.
    unsafe { check(l, false) }
}

unsafe fn check(l: *mut State, in_hook: bool) {
    if !crate::vm::is_set() {
        return;
    }
    let vm = vm();
    if vm.elsewhere {
        // SAFETY: `l` is the running coroutine.
        unsafe { check_time(l, b"the worker thread exceeded the deadline") };
        return;
    }
    let Some(task) = vm.current() else {
        if vm.until != 0 {
            // SAFETY: as above.
            unsafe { check_time(l, b"`init` takes longer than `limits.watchdog`") };
        }
        return;
    };
    let Some(payer) = vm.payer() else {
        return;
    };
    // SAFETY: `l` is the running coroutine.
    unsafe {
        if task.dying != Dying::No {
            die(l);
        }
        let now = time::cpu();
        if vm.budget.switch != vm.switches {
            vm.budget = Budget {
                switch: vm.switches,
                since: now,
            };
            return;
        }
        let ran = now.saturating_sub(vm.budget.since);
        if payer.spent + ran > vm.program.limits.cpu_ms * 1_000_000 {
            task.dying = Dying::Budget;
            die(l);
        }
        if in_hook && ran > SLICE && wait::can_wait(l) {
            wait::requeue(task);
            task.sliced = true;
            wait::suspend(l, 0, None);
        }
    }
}

/// Pushes the place of the innermost Lua function: a C function that counts its work may be above it, and
/// where Lua itself does the work, as in `..`, none is.
unsafe fn push_place(l: *mut State) {
    for level in 0..3 {
        // SAFETY: `l` is the running coroutine, with room on its stack.
        unsafe {
            ffi::luaL_where(l, level);
            if ffi::to_bytes(l, -1).is_some_and(|place| !place.is_empty()) {
                return;
            }
            ffi::pop(l, 1);
        }
    }
    // SAFETY: as above.
    unsafe { ffi::push_bytes(l, b"") };
}

/// What has no budget, a call for another instance or `init`, may compute for long, but not for ever.
unsafe fn check_time(l: *mut State, message: &[u8]) {
    if time::monotonic() > vm().until {
        // SAFETY: `l` is the running coroutine.
        unsafe {
            ffi::lua_sethook(l, Some(hook), ffi::MASKCOUNT, 1);
            ffi::luaL_checkstack(l, 10, c"".as_ptr());
            push_place(l);
            ffi::push_bytes(l, message);
            ffi::lua_concat(l, 2);
            ffi::raise(l)
        }
    }
}

/// Raises, and raises again at every further instruction of this coroutine: `pcall` catches it,
/// but cannot do anything with it.
unsafe fn die(l: *mut State) {
    let vm = vm();
    let exit = vm.current().is_some_and(|t| t.dying == Dying::Exit);
    // SAFETY: `l` is the running coroutine.
    unsafe {
        ffi::lua_sethook(l, Some(hook), ffi::MASKCOUNT, 1);
        ffi::luaL_checkstack(l, 10, c"".as_ptr());
        push_place(l);
        if exit {
            ffi::push_bytes(l, b"the handler has ended");
        } else {
            ffi::push_bytes(l, b"cpu budget of ");
            #[expect(clippy::cast_precision_loss, reason = "milliseconds of a budget")]
            ffi::lua_pushnumber(l, vm.program.limits.cpu_ms as f64);
            ffi::push_bytes(l, b" ms exceeded");
            ffi::lua_concat(l, 3);
        }
        ffi::lua_concat(l, 2);
        ffi::raise(l)
    }
}

/// Ends the running handler, and all its light threads, as `exit` says. Return its value from the C
/// function.
pub(crate) unsafe fn exit(l: *mut State, exit: Exit) -> c_int {
    if let Some(root) = vm().current_root() {
        root.exit = exit;
    }
    // SAFETY: `l` is the running coroutine.
    unsafe { end_handler(l) }
}

/// Ends the running handler from the inside: by a yield where that is possible, else
/// by an error that cannot be kept. Return its value from the C function.
unsafe fn end_handler(l: *mut State) -> c_int {
    let vm = vm();
    if let Some(task) = vm.current() {
        task.dying = Dying::Exit;
    }
    // SAFETY: `l` is the running coroutine.
    unsafe {
        let blocks = vm.current().map_or(0, |t| t.blocks);
        if ffi::phasor_yieldable(l) != 0 && vm.blocked == blocks {
            return wait::suspend(l, 0, None);
        }
        die(l);
    }
    0
}
