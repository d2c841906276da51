//! The request's body in pieces, as it comes from the client: what `resty.upload` reads, and
//! `ngx.req.discard_body`. Nobody else waits for a slow client.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::api;
use crate::api_body::push_operation;
use crate::bindings::phasor::plugin::operation::Operation;
use crate::bindings::phasor::plugin::request::{self, BodyError};
use crate::ffi::{self, CFunction, State};
use crate::phase;
use crate::vm::vm;
use crate::wait;
use std::ffi::c_int;

/// Begins to read the next piece; `k` takes it.
unsafe fn begin(l: *mut State, k: CFunction) -> c_int {
    // SAFETY: the operation lives in a userdata, at index 1.
    unsafe {
        ffi::lua_settop(l, 0);
        vm().select();
        let place = push_operation(l, request::begin_read());
        match &*place {
            Some(operation) => wait::operation(l, operation, k),
            None => 0,
        }
    }
}

unsafe fn end(l: *mut State) -> Result<Option<Vec<u8>>, BodyError> {
    // SAFETY: the userdata of `begin` lies at index 1.
    unsafe {
        let place: *mut Option<Operation> = ffi::lua_touserdata(l, 1).cast();
        vm().select();
        match (*place).take() {
            Some(operation) => request::end_read(operation),
            None => Ok(None),
        }
    }
}

/// The next piece; nil is the end, nil and a text an error.
unsafe extern "C-unwind" fn read(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        api::job(l, phase::ANSWER);
        begin(l, was_read)
    }
}

unsafe extern "C-unwind" fn was_read(l: *mut State) -> c_int {
    // SAFETY: called by Lua as the continuation of `read`.
    unsafe {
        match end(l) {
            Ok(Some(bytes)) => crate::held::push(l, bytes),
            Ok(None) => ffi::lua_pushnil(l),
            Err(BodyError::TooLarge) => return ffi::nil_error(l, b"request entity too large"),
            Err(BodyError::Timeout) => return ffi::nil_error(l, b"timeout"),
            Err(BodyError::Closed) => return ffi::nil_error(l, b"closed"),
            Err(BodyError::Taken) => return ffi::nil_error(l, b"request body already exists"),
        }
    }
    1
}

/// `ngx.req.discard_body()`.
pub(crate) unsafe extern "C-unwind" fn discard_body(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        api::job(l, phase::ANSWER).body = None;
        begin(l, was_discarded)
    }
}

unsafe extern "C-unwind" fn was_discarded(l: *mut State) -> c_int {
    // SAFETY: called by Lua as the continuation of `discard_body`.
    unsafe {
        match end(l) {
            Ok(Some(_)) => begin(l, was_discarded),
            Ok(None) | Err(_) => 0,
        }
    }
}

unsafe extern "C-unwind" fn module(l: *mut State) -> c_int {
    // SAFETY: called by `require`.
    unsafe {
        ffi::lua_settop(l, 0);
        ffi::lua_pushcclosure(l, read, 0);
        let text = include_str!("lib_body.lua");
        crate::lib_scratch::run(l, text, c"=phasor.body", 1, 1);
    }
    1
}

/// Makes the module load on its first `require`.
pub(crate) unsafe fn open(l: *mut State) {
    // SAFETY: called protected, while the state is opened.
    unsafe { ffi::set_preload(l, c"phasor.body", module) }
}
