//! `ngx.shared.DICT:cas`, which OpenResty does not have: a read, a decision and a write in one step.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::api_shared::{dict, key, text, to_value, ttl};
use crate::bindings::phasor::plugin::shared_dict::DictError;
use crate::ffi::{self, State};
use std::ffi::c_int;

/// `cas(key, old, new, exptime, flags)`: true, or false when something else is there.
pub(crate) unsafe extern "C-unwind" fn cas(l: *mut State) -> c_int {
    // SAFETY: called by Lua; the values are gone before anything raises.
    unsafe {
        let dict = dict(l);
        let ttl = ttl(l, 5, c"bad \"exptime\" argument");
        let flags = u32::try_from(ffi::opt_integer(l, 6, 0)).unwrap_or(0);
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
