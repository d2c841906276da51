//! An entry of a shared dict that lives as long as an object of Lua: `resty.lock` gives up the lock of an
//! object that is garbage, and tables have no finalizers.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::api_shared::{dict, dict_at, zone};
use crate::bindings::phasor::plugin::shared_dict::Value;
use crate::ffi::{self, State};
use std::ffi::{CStr, c_int};

const TYPE: &CStr = c"phasor.entry";

/// What a userdata holds: which dict, the key, the value that the entry is to have when it is taken away.
struct Entry {
    zone: usize,
    key: Vec<u8>,
    value: Vec<u8>,
}

/// `keep(dict, key, value)`: when the result is garbage, so is the entry, if it has that value still.
unsafe extern "C-unwind" fn keep(l: *mut State) -> c_int {
    // SAFETY: called by Lua. The userdata is there before anything is allocated here.
    unsafe {
        dict(l);
        ffi::check_bytes(l, 2);
        ffi::check_bytes(l, 3);
        let place: *mut Option<Entry> = ffi::lua_newuserdata(l, size_of::<Option<Entry>>()).cast();
        place.write(None);
        if ffi::luaL_newmetatable(l, TYPE.as_ptr()) != 0 {
            ffi::register(l, &[(c"__gc", collected)]);
        }
        ffi::lua_setmetatable(l, -2);
        if let Some(zone) = zone(l) {
            place.write(Some(Entry {
                zone,
                key: ffi::check_bytes(l, 2).to_vec(),
                value: ffi::check_bytes(l, 3).to_vec(),
            }));
        }
    }
    1
}

unsafe extern "C-unwind" fn collected(l: *mut State) -> c_int {
    // SAFETY: called by Lua's collector with the userdata that `keep` made.
    unsafe {
        let place: *mut Option<Entry> = ffi::lua_touserdata(l, 1).cast();
        if let Some(entry) = (*place).take()
            && let Some(dict) = dict_at(entry.zone)
        {
            let mine = Value::Bytes(entry.value);
            // Whose it is by now, if it is not this one, keeps it.
            let _was_there = dict
                .compare_and_swap(&entry.key, &mine, &Value::Nil, 0, 0)
                .is_ok();
        }
    }
    0
}

/// `forget(kept)`: the entry is somebody else's concern.
unsafe extern "C-unwind" fn forget(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let place: *mut Option<Entry> = ffi::luaL_testudata(l, 1, TYPE.as_ptr()).cast();
        if !place.is_null() {
            drop((*place).take());
        }
    }
    0
}

unsafe extern "C-unwind" fn module(l: *mut State) -> c_int {
    // SAFETY: called by `require`.
    unsafe { ffi::push_library(l, &[(c"keep", keep), (c"forget", forget)]) };
    1
}

/// Makes the module load on its first `require`.
pub(crate) unsafe fn open(l: *mut State) {
    // SAFETY: called protected, while the state is opened.
    unsafe { ffi::set_preload(l, TYPE, module) }
}
