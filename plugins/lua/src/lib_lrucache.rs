//! `resty.lrucache` and `tablepool`: written in Lua, where their values live anyway.
#![expect(unsafe_code, reason = "the C API of Lua")]
#![expect(
    unsafe_op_in_unsafe_fn,
    reason = "every function works on the live state that Lua hands in"
)]

use crate::ffi::{self, State};
use crate::lib_scratch::run;
use std::ffi::c_int;

/// Makes the modules load on their first `require`.
pub(crate) unsafe fn open(l: *mut State) {
    ffi::set_preload(l, c"resty.lrucache", lrucache);
    ffi::set_preload(l, c"resty.lrucache.pureffi", lrucache);
    ffi::set_preload(l, c"tablepool", tablepool);
}

unsafe extern "C-unwind" fn lrucache(l: *mut State) -> c_int {
    ffi::lua_settop(l, 0);
    run(
        l,
        include_str!("lib_lrucache.lua"),
        c"=resty.lrucache",
        0,
        1,
    );
    1
}

unsafe extern "C-unwind" fn tablepool(l: *mut State) -> c_int {
    ffi::lua_settop(l, 0);
    run(l, include_str!("lib_tablepool.lua"), c"=tablepool", 0, 1);
    1
}
