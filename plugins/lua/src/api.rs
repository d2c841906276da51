//! What every file of `ngx.*` needs: the check that a function is allowed in the running phase.
#![expect(unsafe_code, reason = "raises Lua errors")]

use crate::ffi::{self, State};
use crate::job::Job;
use crate::phase::{self, Set};
use crate::vm::vm;
use std::ffi::c_int;

/// Raises OpenResty's message when the running phase is not in `allowed`.
pub(crate) unsafe fn check_phase(l: *mut State, allowed: Set) {
    let phase = vm().phase();
    if allowed & phase::set(phase) == 0 {
        // SAFETY: `l` is the running coroutine.
        unsafe {
            ffi::luaL_where(l, 1);
            ffi::push_bytes(l, b"API disabled in the context of ");
            let context = if vm().elsewhere {
                "ngx.run_worker_thread"
            } else {
                phase::context_name(phase)
            };
            ffi::push_bytes(l, context.as_bytes());
            let mut parts = 3;
            if phase == phase::INIT {
                parts += push_name(l);
            }
            ffi::lua_concat(l, parts);
            ffi::raise(l)
        }
    }
}

/// Pushes `: NAME` of the running function, where Lua knows it; gives how many values.
unsafe fn push_name(l: *mut State) -> c_int {
    // SAFETY: `ar` is filled in by Lua before it is read; the name lives as long as the call.
    unsafe {
        let mut ar: ffi::Debug = std::mem::zeroed();
        if ffi::lua_getstack(l, 0, &raw mut ar) == 0
            || ffi::lua_getinfo(l, c"n".as_ptr(), &raw mut ar) == 0
            || ar.name.is_null()
        {
            return 0;
        }
        ffi::push_bytes(l, b": ");
        ffi::lua_pushstring(l, ar.name);
    }
    2
}

/// The running job; raises when the phase is not in `allowed` or has no exchange.
pub(crate) unsafe fn job(l: *mut State, allowed: Set) -> &'static mut Job {
    // SAFETY: `l` is the running coroutine.
    unsafe {
        check_phase(l, allowed);
        match vm().current_job() {
            Some(job) => job,
            None => ffi::error(l, b"no request found"),
        }
    }
}
