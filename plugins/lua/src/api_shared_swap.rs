//! `ngx.shared.DICT:cas`, `add_in_turn`, `wait` and `wake`, which OpenResty does not have: a read, a
//! decision and a write in one step, and waiting for a change or for one's turn.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::api;
use crate::api_shared::{dict, flags, key, text, to_value, ttl};
use crate::bindings::phasor::plugin::shared_dict::{self, DictError, Mode, Value};
use crate::ffi::{self, State};
use crate::phase;
use crate::vm::vm;
use crate::wait;
use std::ffi::c_int;

/// `cas(key, old, new, exptime, flags)`: true, or false when something else is there.
pub(crate) unsafe extern "C-unwind" fn cas(l: *mut State) -> c_int {
    // SAFETY: called by Lua; the values are gone before anything raises.
    unsafe {
        let dict = dict(l);
        let ttl = ttl(l, 5, c"bad \"exptime\" argument");
        let flags = flags(l, 6);
        let key = match key(l) {
            Ok(key) => key,
            Err(e) => return ffi::nil_error(l, e),
        };
        let outcome = match (to_value(l, 3), to_value(l, 4)) {
            (Some(old), Some(new)) => dict.compare_and_swap(key, &old, &new, ttl, flags),
            _ => Err(DictError::Invalid),
        };
        match outcome {
            Ok(swapped) => {
                ffi::lua_pushboolean(l, c_int::from(swapped));
                1
            }
            Err(e) => ffi::nil_error(l, text(e)),
        }
    }
}

/// `wait(key, seen, timeout)`: true when the value is another one, `nil, "timeout"`.
pub(crate) unsafe extern "C-unwind" fn wait_for(l: *mut State) -> c_int {
    // SAFETY: called by Lua; the value is gone and the operation lies in a userdata when Lua waits.
    unsafe {
        api::check_phase(l, phase::WAIT);
        let dict = dict(l);
        let timeout = ttl(l, 4, c"bad \"timeout\" argument");
        let key = match key(l) {
            Ok(key) => key,
            Err(e) => return ffi::nil_error(l, e),
        };
        let operation = match to_value(l, 3) {
            Some(seen) => shared_dict::begin_wait(dict, key, &seen, timeout),
            None => return ffi::nil_error(l, text(DictError::Invalid)),
        };
        wait::end_with(l, operation, waited)
    }
}

/// `add_in_turn(key, value, exptime, timeout)`: true, or `nil, "timeout"`. In `init`, where nothing waits,
/// it is one look.
pub(crate) unsafe extern "C-unwind" fn add_in_turn(l: *mut State) -> c_int {
    // SAFETY: called by Lua; the value is gone and the operation lies in a userdata when Lua waits.
    unsafe {
        let dict = dict(l);
        let ttl = ttl(l, 4, c"bad \"exptime\" argument");
        let timeout = self::ttl(l, 5, c"bad \"timeout\" argument");
        let key = match key(l) {
            Ok(key) => key,
            Err(e) => return ffi::nil_error(l, e),
        };
        let value = match to_value(l, 3) {
            Some(Value::Nil) | None => return ffi::nil_error(l, text(DictError::Invalid)),
            Some(value) => value,
        };
        if vm().phase() == phase::INIT {
            return match dict.store(Mode::Add, key, &value, ttl, 0) {
                Ok(_) => {
                    ffi::lua_pushboolean(l, 1);
                    1
                }
                Err(DictError::Exists) => ffi::nil_error(l, b"timeout"),
                Err(e) => ffi::nil_error(l, text(e)),
            };
        }
        let operation = shared_dict::begin_add_in_turn(dict, key, &value, ttl, timeout);
        drop(value);
        wait::end_with(l, operation, waited)
    }
}

unsafe extern "C-unwind" fn waited(l: *mut State) -> c_int {
    // SAFETY: called by Lua as the continuation of `wait_for` or `add_in_turn`.
    unsafe {
        let Some(operation) = wait::taken(l) else {
            return 0;
        };
        match shared_dict::end_wait(operation) {
            Ok(true) => {
                ffi::lua_pushboolean(l, 1);
                1
            }
            Ok(false) => ffi::nil_error(l, b"timeout"),
            Err(e) => ffi::nil_error(l, text(e)),
        }
    }
}

/// `wake(key)`: whether somebody waited.
pub(crate) unsafe extern "C-unwind" fn wake(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let dict = dict(l);
        match key(l) {
            Ok(key) => {
                ffi::lua_pushboolean(l, c_int::from(dict.wake(key)));
                1
            }
            Err(e) => ffi::nil_error(l, e),
        }
    }
}
