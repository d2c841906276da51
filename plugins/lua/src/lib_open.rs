//! Opens every library that knows nothing of requests, in an order in which none lacks another.
#![expect(unsafe_code, reason = "the C API of Lua")]
#![expect(
    unsafe_op_in_unsafe_fn,
    reason = "every function works on the live state that Lua hands in"
)]

use crate::ffi::State;

/// Installs them into `ngx`, the globals and `package`. Called once, protected, before the prelude.
pub(crate) unsafe fn open(l: *mut State) {
    crate::lib_bit::open(l);
    crate::lib_table::open(l);
    crate::lib_time::open(l);
    crate::lib_encode::open(l);
    crate::lib_digest::open(l);
    crate::lib_re::open(l);
    crate::lib_cjson::open(l);
    crate::lib_buffer::open(l);
    crate::lib_lrucache::open(l);
}
