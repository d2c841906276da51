//! What a call of `phasor.cache` wants otherwise than `[cache.NAME]` says: times in seconds.
#![expect(unsafe_code, reason = "the C API of Lua")]

use crate::bindings::phasor::plugin::cache::Options;
use crate::ffi::{self, State};
use crate::seconds;
use std::ffi::{CStr, c_int};

/// A time in seconds.
pub(crate) unsafe fn time(l: *mut State, idx: c_int, name: &CStr) -> Option<u64> {
    // SAFETY: called by Lua with a table at `idx`.
    unsafe {
        ffi::lua_getfield(l, idx, name.as_ptr());
        let millis = seconds::millis(l, -1);
        if millis.is_err() {
            ffi::luaL_where(l, 1);
            ffi::push_bytes(l, b"bad option \"");
            ffi::lua_pushstring(l, name.as_ptr());
            ffi::push_bytes(l, b"\": seconds expected, 0 or more");
            ffi::lua_concat(l, 4);
            ffi::raise(l);
        }
        ffi::pop(l, 1);
        millis.ok().flatten()
    }
}

/// All as the configuration says.
const NOTHING_SAID: Options = Options {
    ttl: None,
    negative_ttl: None,
    stale: None,
    retry: None,
    wait: None,
};

/// The options of the table at `idx`, if there is one.
pub(crate) unsafe fn options(l: *mut State, idx: c_int) -> Options {
    // SAFETY: called by Lua.
    unsafe {
        if ffi::lua_type(l, idx) <= ffi::TNIL {
            return NOTHING_SAID;
        }
        ffi::luaL_checktype(l, idx, ffi::TTABLE);
        Options {
            ttl: time(l, idx, c"ttl"),
            negative_ttl: time(l, idx, c"negative_ttl"),
            stale: time(l, idx, c"stale"),
            retry: time(l, idx, c"retry"),
            wait: time(l, idx, c"wait"),
        }
    }
}
