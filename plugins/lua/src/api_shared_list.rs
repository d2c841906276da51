//! The lists of `ngx.shared.DICT`: `lpush rpush lpop rpop llen`.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::api_shared::{dict, key, push_value, text, to_value};
use crate::bindings::phasor::plugin::shared_dict::{DictError, Side, Value};
use crate::ffi::{self, State};
use std::ffi::c_int;

unsafe fn push_to(l: *mut State, side: Side) -> c_int {
    // SAFETY: called by Lua; the value is gone before anything raises.
    unsafe {
        let dict = dict(l);
        let key = match key(l) {
            Ok(key) => key,
            Err(e) => return ffi::nil_error(l, e),
        };
        if !matches!(ffi::lua_type(l, 3), ffi::TSTRING | ffi::TNUMBER) {
            return ffi::nil_error(l, b"bad value type");
        }
        let outcome = match to_value(l, 3) {
            Some(value) => dict.push(side, key, &value),
            None => Err(DictError::Invalid),
        };
        match outcome {
            Ok(length) => {
                ffi::lua_pushnumber(l, f64::from(length));
                1
            }
            Err(e) => ffi::nil_error(l, text(e)),
        }
    }
}

unsafe fn pop_from(l: *mut State, side: Side) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let dict = dict(l);
        let key = match key(l) {
            Ok(key) => key,
            Err(e) => return ffi::nil_error(l, e),
        };
        match dict.pop(side, key) {
            Ok(value) => {
                push_value(l, value.unwrap_or(Value::Nil));
                1
            }
            Err(e) => ffi::nil_error(l, text(e)),
        }
    }
}

macro_rules! sides {
    ($($name:ident $function:ident $side:ident),*) => {$(
        pub(crate) unsafe extern "C-unwind" fn $name(l: *mut State) -> c_int {
            // SAFETY: called by Lua.
            unsafe { $function(l, Side::$side) }
        }
    )*};
}
sides!(lpush push_to Left, rpush push_to Right, lpop pop_from Left, rpop pop_from Right);

pub(crate) unsafe extern "C-unwind" fn llen(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let dict = dict(l);
        let key = match key(l) {
            Ok(key) => key,
            Err(e) => return ffi::nil_error(l, e),
        };
        match dict.len(key) {
            Ok(n) => {
                ffi::lua_pushnumber(l, f64::from(n));
                1
            }
            Err(e) => ffi::nil_error(l, text(e)),
        }
    }
}
