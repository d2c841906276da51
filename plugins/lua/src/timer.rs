//! `ngx.timer.*`: callbacks that outlive the request, each run as a task of the phase `timer`.
#![expect(unsafe_code, reason = "calls Lua")]

use crate::bindings::phasor::plugin::error_log;
use crate::ffi::{self, State};
use crate::job::NONE;
use crate::phase;
use crate::task::{self, Kind, Progress, Task};
use crate::vm::vm;
use crate::wait::Waiter;
use crate::wire;
use std::ffi::c_int;

struct Timer {
    /// The table {callback, arguments…} in the registry, and the number of arguments.
    call: c_int,
    arguments: c_int,
    /// Repeats after so many milliseconds; 0: once.
    every: u32,
}

/// The timers that are set.
#[derive(Default)]
pub(crate) struct Timers {
    slots: Vec<Option<Timer>>,
    free: Vec<u32>,
    pub(crate) pending: usize,
    pub(crate) running: usize,
}

unsafe fn start(l: *mut State, repeat: bool) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let n = ffi::lua_gettop(l);
        if n < 2 {
            ffi::error(l, b"expecting at least 2 arguments");
        }
        let delay = ffi::luaL_checknumber(l, 1);
        if ffi::lua_type(l, 2) != ffi::TFUNCTION || ffi::lua_iscfunction(l, 2) != 0 {
            ffi::arg_error(l, 2, c"Lua function expected");
        }
        crate::api::check_phase(l, phase::WAIT);
        let vm = vm();
        if !(0.0..=4_294_967.0).contains(&delay) || repeat && delay < 0.001 {
            ffi::arg_error(
                l,
                1,
                if repeat {
                    c"delay cannot be zero"
                } else {
                    c"delay out of range"
                },
            );
        }
        if vm.stopping && (repeat || delay > 0.0) {
            return ffi::nil_error(l, b"process exiting");
        }
        if vm.timers.pending >= vm.program.config.pending_timers() {
            return ffi::nil_error(l, b"too many pending timers");
        }
        ffi::lua_createtable(l, n - 1, 0);
        for i in 2..=n {
            ffi::lua_pushvalue(l, i);
            ffi::lua_rawseti(l, -2, i - 1);
        }
        let call = ffi::reference(l);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked above"
        )]
        let milliseconds = (delay * 1000.0) as u32;
        let timer = Timer {
            call,
            arguments: n - 2,
            every: if repeat { milliseconds } else { 0 },
        };
        schedule(timer, milliseconds);
        ffi::lua_pushnumber(l, 1.0);
        1
    }
}

fn schedule(timer: Timer, milliseconds: u32) {
    let vm = vm();
    let timers = &mut vm.timers;
    let at = timers.free.pop().unwrap_or_else(|| {
        timers.slots.push(None);
        u32::try_from(timers.slots.len() - 1).unwrap_or(0)
    });
    timers.slots[at as usize] = Some(timer);
    timers.pending += 1;
    let token = vm.waits.take(Waiter::Timer(at));
    wire::sleep(&mut vm.records, NONE, token, milliseconds);
}

/// A timer's time has come.
pub(crate) unsafe fn fire(at: u32, premature: bool) {
    let vm = vm();
    let Some(timer) = vm.timers.slots.get_mut(at as usize).and_then(Option::take) else {
        return;
    };
    vm.timers.free.push(at);
    vm.timers.pending -= 1;
    // SAFETY: the task's coroutine is new; the call was kept by `start`.
    unsafe {
        let most = vm.program.config.running_timers();
        if vm.timers.running >= most {
            vm.select();
            let text = format!("{most} lua_max_running_timers are not enough");
            error_log::write(error_log::Level::Alert, &text);
            if timer.every == 0 || premature {
                ffi::unreference(vm.main, timer.call);
                return;
            }
        } else {
            let task = task::take(Kind::Timer, phase::TIMER, std::ptr::null_mut());
            let t = task.thread;
            ffi::luaL_checkstack(t, timer.arguments + 4, c"".as_ptr());
            ffi::push_reference(t, timer.call);
            let table = ffi::lua_gettop(t);
            ffi::lua_rawgeti(t, table, 1);
            ffi::lua_pushboolean(t, c_int::from(premature));
            for i in 1..=timer.arguments {
                ffi::lua_rawgeti(t, table, i + 1);
            }
            ffi::lua_remove(t, table);
            vm.timers.running += 1;
            if timer.every == 0 || premature {
                ffi::unreference(vm.main, timer.call);
            }
            let progress = task.resume(timer.arguments + 1);
            if progress != Progress::Waits {
                ended(task, progress);
            }
        }
    }
    if timer.every != 0 && !premature && !vm.stopping {
        let every = timer.every;
        schedule(timer, every);
    }
}

/// A timer's callback has ended.
pub(crate) unsafe fn ended(task: &mut Task, progress: Progress) {
    let vm = vm();
    vm.timers.running -= 1;
    if progress == Progress::Failed {
        vm.select();
        let text = format!(
            "lua entry thread aborted: runtime error: {}",
            String::from_utf8_lossy(&task.message)
        );
        error_log::write(error_log::Level::Error, &text);
    }
    // SAFETY: the task has ended.
    unsafe { task.give_back() };
}

/// The generation ends: all pending timers fire as premature.
pub(crate) unsafe fn stop() {
    let vm = vm();
    vm.stopping = true;
    for at in 0..vm.timers.slots.len() {
        // SAFETY: as `fire`.
        unsafe { fire(u32::try_from(at).unwrap_or(0), true) };
    }
}

unsafe extern "C-unwind" fn at(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { start(l, false) }
}

unsafe extern "C-unwind" fn every(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { start(l, true) }
}

#[expect(clippy::cast_precision_loss, reason = "counts of timers")]
unsafe extern "C-unwind" fn running_count(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { ffi::lua_pushnumber(l, vm().timers.running as f64) };
    1
}

#[expect(clippy::cast_precision_loss, reason = "counts of timers")]
unsafe extern "C-unwind" fn pending_count(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { ffi::lua_pushnumber(l, vm().timers.pending as f64) };
    1
}

/// Opens `ngx.timer`.
pub(crate) unsafe fn open(l: *mut State) {
    // SAFETY: called while the state is opened.
    unsafe {
        ffi::push_ngx(l);
        ffi::push_library(
            l,
            &[
                (c"at", at),
                (c"every", every),
                (c"running_count", running_count),
                (c"pending_count", pending_count),
            ],
        );
        ffi::lua_setfield(l, -2, c"timer".as_ptr());
        ffi::pop(l, 1);
    }
}
