//! Times of the Lua interfaces are seconds, those of the host milliseconds.
#![expect(unsafe_code, reason = "the C API of Lua")]

use crate::ffi::{self, State};
use std::ffi::c_int;

/// No number, or one below 0.
pub(crate) struct Bad;

/// The seconds at `idx` in milliseconds, if there are any; a time that is shorter than what can be told
/// is not taken for none at all.
pub(crate) unsafe fn millis(l: *mut State, idx: c_int) -> Result<Option<u64>, Bad> {
    // SAFETY: called by Lua.
    unsafe {
        if ffi::lua_type(l, idx) <= ffi::TNIL {
            return Ok(None);
        }
        let mut known = 0;
        let seconds = ffi::lua_tonumberx(l, idx, &raw mut known);
        if known == 0 || seconds.is_nan() || seconds < 0.0 {
            return Err(Bad);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates"
        )]
        let millis = (seconds * 1000.0).round() as u64;
        Ok(Some(if seconds > 0.0 { millis.max(1) } else { 0 }))
    }
}
