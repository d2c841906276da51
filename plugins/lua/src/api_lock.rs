//! `phasor.lock`: the locks of the configuration. Here are the calls of the host and the guard; what Lua
//! code calls first is in `lib_lock.lua`.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::api;
use crate::bindings::phasor::plugin::lock::{self, Guard, LockError};
use crate::ffi::{self, State};
use crate::guard::{self, Place};
use crate::phase;
use crate::seconds;
use crate::vm::vm;
use crate::wait::{end_with, taken};
use std::ffi::{CStr, c_int};

const GUARD: &CStr = c"phasor.lock.guard";

/// What a userdata holds.
struct Held {
    place: Place,
    number: f64,
}

fn text(error: LockError) -> &'static [u8] {
    match error {
        LockError::UnknownTable => b"no such locks",
        LockError::Refused => b"refused",
        LockError::Timeout => b"timeout",
        LockError::Busy => b"too many wait",
        LockError::Lost => b"lost",
        LockError::InvalidName => b"invalid name",
        LockError::Unavailable => b"unavailable",
    }
}

/// `open(name)`: a number, or nil and why.
unsafe extern "C-unwind" fn open_table(l: *mut State) -> c_int {
    // SAFETY: called by Lua; the name is gone before anything raises.
    unsafe {
        let opened = {
            let name = String::from_utf8_lossy(ffi::check_bytes(l, 1)).into_owned();
            vm().select();
            lock::open(&name)
        };
        match opened {
            Ok(table) => {
                ffi::lua_pushnumber(l, f64::from(table));
                1
            }
            Err(error) => ffi::nil_error(l, text(error)),
        }
    }
}

/// Seconds in milliseconds; one that is shorter than what can be told is not taken for none.
unsafe fn time(l: *mut State, idx: c_int, what: &CStr) -> Option<u32> {
    // SAFETY: called by Lua.
    unsafe {
        match seconds::millis(l, idx) {
            Ok(millis) => millis.map(|millis| u32::try_from(millis).unwrap_or(u32::MAX)),
            Err(seconds::Bad) => ffi::error(l, what.to_bytes()),
        }
    }
}

const BAD_HOLD: &CStr = c"bad option \"hold\": seconds expected, 0 or more";
const BAD_WAIT: &CStr = c"bad option \"wait\": seconds expected, 0 or more";

/// `acquire(table, name, hold, wait)`: a guard, or nil and why.
unsafe extern "C-unwind" fn acquire(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        api::check_phase(l, phase::WAIT);
        let table = u32::try_from(ffi::luaL_checkinteger(l, 1)).unwrap_or(u32::MAX);
        let (hold, wait) = (time(l, 3, BAD_HOLD), time(l, 4, BAD_WAIT));
        let name = ffi::check_bytes(l, 2);
        vm().select();
        end_with(l, lock::begin_acquire(table, name, hold, wait), acquired)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "numbers of owners are far below 2^53"
)]
unsafe extern "C-unwind" fn acquired(l: *mut State) -> c_int {
    // SAFETY: called by Lua as the continuation of `acquire`. The guard is kept before Lua may raise.
    unsafe {
        let Some(operation) = taken(l) else { return 0 };
        let guard = match lock::end_acquire(operation) {
            Ok(guard) => guard,
            Err(error) => return ffi::nil_error(l, text(error)),
        };
        let number = guard.fencing() as f64;
        let place = guard::keep(guard);
        let held: *mut Held = ffi::lua_newuserdata(l, size_of::<Held>()).cast();
        held.write(Held { place, number });
        if ffi::luaL_newmetatable(l, GUARD.as_ptr()) != 0 {
            ffi::register(l, &[(c"__gc", collected)]);
            ffi::push_library(
                l,
                &[
                    (c"fencing", fencing),
                    (c"renew", renew),
                    (c"release", release),
                ],
            );
            ffi::lua_setfield(l, -2, c"__index".as_ptr());
        }
        ffi::lua_setmetatable(l, -2);
    }
    1
}

/// The guard of a method's `self`.
unsafe fn check(l: *mut State) -> &'static Held {
    // SAFETY: called by Lua.
    unsafe {
        let held: *mut Held = ffi::luaL_testudata(l, 1, GUARD.as_ptr()).cast();
        if held.is_null() {
            ffi::arg_error(l, 1, c"guard of a lock expected");
        }
        &*held
    }
}

unsafe extern "C-unwind" fn collected(l: *mut State) -> c_int {
    // SAFETY: called by Lua's collector with the userdata that `acquired` made.
    unsafe {
        let held: *mut Held = ffi::lua_touserdata(l, 1).cast();
        drop((*held).place.take());
    }
    0
}

unsafe extern "C-unwind" fn fencing(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { ffi::lua_pushnumber(l, check(l).number) };
    1
}

/// `guard:renew(hold)`: true, or nil and why.
unsafe extern "C-unwind" fn renew(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        api::check_phase(l, phase::WAIT);
        let place = check(l).place;
        let hold = time(l, 2, c"bad hold: seconds expected, 0 or more");
        vm().select();
        match place.guard().map(|guard| guard.begin_renew(hold)) {
            Some(operation) => end_with(l, operation, changed),
            None => ffi::nil_error(l, b"released"),
        }
    }
}

/// `guard:release()`: true, or nil and why.
unsafe extern "C-unwind" fn release(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        api::check_phase(l, phase::WAIT);
        let place = check(l).place;
        vm().select();
        match place.take() {
            Some(guard) => end_with(l, Guard::begin_release(guard), changed),
            None => ffi::nil_error(l, b"released"),
        }
    }
}

unsafe extern "C-unwind" fn changed(l: *mut State) -> c_int {
    // SAFETY: called by Lua as the continuation of a change.
    unsafe {
        let Some(operation) = taken(l) else { return 0 };
        match Guard::end_change(operation) {
            Ok(()) => {
                ffi::lua_pushboolean(l, 1);
                1
            }
            Err(error) => ffi::nil_error(l, text(error)),
        }
    }
}

unsafe extern "C-unwind" fn module(l: *mut State) -> c_int {
    // SAFETY: called by `require`.
    unsafe {
        ffi::lua_settop(l, 0);
        ffi::push_library(l, &[(c"open", open_table), (c"acquire", acquire)]);
        crate::lib_scratch::run(l, include_str!("lib_lock.lua"), c"=phasor.lock", 1, 1);
    }
    1
}

/// Makes the module load on its first `require`.
pub(crate) unsafe fn open(l: *mut State) {
    // SAFETY: called protected, while the state is opened.
    unsafe { ffi::set_preload(l, c"phasor.lock", module) }
}
