//! Fields of `ngx` that are computed: `ctx status headers_sent is_subrequest`, and `ngx.arg`.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::api;
use crate::api_header;
use crate::ffi::{self, State};
use crate::phase;
use crate::vm::vm;
use std::ffi::c_int;

/// `ngx.ctx` of a request; without one (timers, worker phases) a table of the moment.
unsafe fn push_context(l: *mut State) {
    // SAFETY: called by Lua.
    unsafe {
        let vm = vm();
        let Some(job) = vm.current_job() else {
            api::check_phase(l, phase::WAIT);
            ffi::lua_createtable(l, 0, 0);
            return;
        };
        if job.context == 0 {
            if !job.inner || !crate::api_location::push_context(l) {
                ffi::lua_createtable(l, 0, 4);
            }
            job.context = ffi::reference(l);
        }
        ffi::push_reference(l, job.context);
    }
}

unsafe extern "C-unwind" fn index(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        if ffi::lua_type(l, 2) != ffi::TSTRING {
            return 0;
        }
        match ffi::check_bytes(l, 2) {
            b"ctx" => push_context(l),
            b"status" => api_header::push_status(l),
            b"headers_sent" => api_header::push_sent(l),
            b"is_subrequest" => {
                let job = api::job(l, phase::EXCHANGE);
                ffi::lua_pushboolean(l, c_int::from(job.inner));
            }
            _ => return 0,
        }
    }
    1
}

unsafe extern "C-unwind" fn newindex(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        if ffi::lua_type(l, 2) == ffi::TSTRING {
            match ffi::check_bytes(l, 2) {
                b"status" => {
                    api_header::set_status(l, 3);
                    return 0;
                }
                b"ctx" => {
                    ffi::luaL_checktype(l, 3, ffi::TTABLE);
                    let job = api::job(l, phase::EXCHANGE);
                    let old = std::mem::take(&mut job.context);
                    if old != 0 {
                        ffi::unreference(l, old);
                    }
                    ffi::lua_pushvalue(l, 3);
                    job.context = ffi::reference(l);
                    return 0;
                }
                b"headers_sent" | b"is_subrequest" => {
                    ffi::error(l, b"attempt to write a read-only field of ngx");
                }
                _ => {}
            }
        }
        ffi::lua_settop(l, 3);
        ffi::lua_rawset(l, 1);
    }
    0
}

unsafe extern "C-unwind" fn arg_index(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let i = ffi::luaL_checkinteger(l, 2);
        api::check_phase(l, phase::set(phase::BODY_FILTER) | phase::set(phase::SET));
        let Some(job) = vm().current_job() else {
            ffi::lua_pushnil(l);
            return 1;
        };
        match i {
            1 => ffi::push_bytes(l, &job.sending.chunk),
            2 => ffi::lua_pushboolean(l, c_int::from(job.sending.last)),
            _ => ffi::lua_pushnil(l),
        }
    }
    1
}

unsafe extern "C-unwind" fn arg_newindex(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let i = ffi::luaL_checkinteger(l, 2);
        api::check_phase(l, phase::set(phase::BODY_FILTER));
        let Some(job) = vm().current_job() else {
            return 0;
        };
        match i {
            1 => {
                let chunk = &mut job.sending.chunk;
                chunk.clear();
                let fine =
                    ffi::lua_type(l, 3) == ffi::TNIL || crate::api_output::append(l, 3, chunk, 0);
                if !fine {
                    ffi::error(l, b"bad chunk data type");
                }
            }
            2 => job.sending.last = ffi::lua_toboolean(l, 3) != 0,
            _ => ffi::error(l, b"bad index of ngx.arg"),
        }
    }
    0
}

/// Opens the computed fields.
pub(crate) unsafe fn open(l: *mut State) {
    // SAFETY: called while the state is opened.
    unsafe {
        ffi::push_ngx(l);
        ffi::push_library(l, &[(c"__index", index), (c"__newindex", newindex)]);
        ffi::lua_setmetatable(l, -2);
        ffi::lua_createtable(l, 0, 0);
        ffi::push_library(l, &[(c"__index", arg_index), (c"__newindex", arg_newindex)]);
        ffi::lua_setmetatable(l, -2);
        ffi::lua_setfield(l, -2, c"arg".as_ptr());
        ffi::pop(l, 1);
    }
}
