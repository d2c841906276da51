//! `phasor.cache`: the calls of the host on a flight that this VM has.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::api_cache::{failed, push_found, stamped};
use crate::bindings::phasor::plugin::cache::{CacheError, Flight};
use crate::cache_options::time;
use crate::ffi::{self, CFunction, State};
use crate::flight;
use crate::vm::vm;
use crate::wait::{end_with, taken};
use std::ffi::{CStr, c_int};

/// By the names that `lib_cache.lua` knows.
pub(crate) const FUNCTIONS: [(&CStr, CFunction); 7] = [
    (c"fill", fill),
    (c"pass", pass),
    (c"fail", fail),
    (c"stale", stale),
    (c"renew_lease", renew_lease),
    (c"leave", leave),
    (c"hand_over", hand_over),
];

unsafe fn flight_number(l: *mut State) -> usize {
    // SAFETY: called by Lua.
    unsafe { usize::try_from(ffi::luaL_checkinteger(l, 1)).unwrap_or(usize::MAX) }
}

/// `fill(flight, bytes, ttl)`: the stamp, or nil and why.
unsafe extern "C-unwind" fn fill(l: *mut State) -> c_int {
    // SAFETY: called by Lua. The flight stays where it is until this has ended.
    unsafe {
        let at = flight_number(l);
        let ttl = match ffi::lua_type(l, 3) {
            ffi::TNUMBER => {
                ffi::lua_createtable(l, 0, 1);
                ffi::lua_pushvalue(l, 3);
                ffi::lua_setfield(l, -2, c"ttl".as_ptr());
                time(l, -1, c"ttl")
            }
            _ => None,
        };
        let bytes = ffi::opt_bytes(l, 2);
        vm().select();
        let operation = flight::flying(at).map(|flight| flight.begin_fill(bytes, ttl));
        match operation {
            Some(operation) => end_with(l, operation, filled),
            None => failed(l, CacheError::Lost),
        }
    }
}

unsafe extern "C-unwind" fn filled(l: *mut State) -> c_int {
    // SAFETY: called by Lua as the continuation of `fill`.
    unsafe {
        let Some(operation) = taken(l) else { return 0 };
        stamped(l, Flight::end_fill(operation))
    }
}

/// `pass(flight, bytes)`: true, or nil and why.
unsafe extern "C-unwind" fn pass(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let at = flight_number(l);
        let bytes = ffi::opt_bytes(l, 2);
        vm().select();
        let passed = flight::leave(at).map_or(Err(CacheError::Lost), |flight| flight.pass(bytes));
        match passed {
            Ok(()) => {
                ffi::lua_pushboolean(l, 1);
                1
            }
            Err(error) => failed(l, error),
        }
    }
}

/// `fail(flight, reason)`: what serves instead, as `find` gives it, or nothing.
unsafe extern "C-unwind" fn fail(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let at = flight_number(l);
        ffi::check_bytes(l, 2);
        vm().select();
        let stale = flight::leave(at).and_then(|flight| {
            let reason = String::from_utf8_lossy(ffi::check_bytes(l, 2));
            flight.fail(&reason)
        });
        match stale {
            Some(found) => push_found(l, &found),
            None => 0,
        }
    }
}

/// `stale(flight)`: what is there still, as `find` gives it, or nothing.
unsafe extern "C-unwind" fn stale(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let at = flight_number(l);
        vm().select();
        match flight::flying(at).and_then(Flight::stale) {
            Some(found) => push_found(l, &found),
            None => 0,
        }
    }
}

/// `renew_lease(flight)`: whether the flight is the caller's still.
unsafe extern "C-unwind" fn renew_lease(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let at = flight_number(l);
        vm().select();
        let mine = flight::flying(at).is_some_and(Flight::renew);
        ffi::lua_pushboolean(l, c_int::from(mine));
    }
    1
}

/// `hand_over(flight, back)`: it outlives this task; with `back` this task takes it over.
unsafe extern "C-unwind" fn hand_over(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let at = flight_number(l);
        match ffi::lua_toboolean(l, 2) {
            0 => flight::hand_over(at),
            _ => flight::take_over(at),
        }
    }
    0
}

/// `leave(flight)`: the next in line gets it.
unsafe extern "C-unwind" fn leave(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let at = flight_number(l);
        drop(flight::leave(at));
    }
    0
}
