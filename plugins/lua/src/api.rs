//! What every file of `ngx.*` needs: the check that a function is allowed in the running phase.
#![expect(unsafe_code, reason = "raises Lua errors")]

use crate::ffi::{self, State};
use crate::job::Job;
use crate::phase::{self, Set};
use crate::vm::vm;

/// Raises OpenResty's message when the running phase is not in `allowed`.
pub(crate) unsafe fn check_phase(l: *mut State, allowed: Set) {
    let phase = vm().phase();
    if allowed & phase::set(phase) == 0 {
        // SAFETY: `l` is the running coroutine.
        unsafe {
            ffi::luaL_where(l, 1);
            ffi::push_bytes(l, b"API disabled in the context of ");
            ffi::push_bytes(l, phase::context_name(phase).as_bytes());
            ffi::lua_concat(l, 3);
            ffi::raise(l)
        }
    }
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
