//! `phasor.cache`: the calls of the host that change what a cache holds.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::api;
use crate::api_cache::{id, stamped};
use crate::bindings::phasor::plugin::cache::{self, Answers};
use crate::cache_options::options;
use crate::ffi::{self, CFunction, State};
use crate::phase;
use crate::vm::vm;
use crate::wait::{end_with, taken};
use std::ffi::{CStr, c_int};

/// By the names that `lib_cache.lua` knows.
pub(crate) const FUNCTIONS: [(&CStr, CFunction); 4] = [
    (c"set", set),
    (c"delete", delete),
    (c"purge", purge),
    (c"purge_answers", purge_answers),
];

/// `set(id, key, bytes, options)`: the stamp, or nil and why.
unsafe extern "C-unwind" fn set(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        api::check_phase(l, phase::WAIT);
        let (id, options) = (id(l), options(l, 4));
        let (key, bytes) = (ffi::check_bytes(l, 2), ffi::opt_bytes(l, 3));
        vm().select();
        end_with(l, cache::begin_set(id, key, bytes, options), changed)
    }
}

/// `delete(id, key)`
unsafe extern "C-unwind" fn delete(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        api::check_phase(l, phase::WAIT);
        let (id, key) = (id(l), ffi::check_bytes(l, 2));
        vm().select();
        end_with(l, cache::begin_delete(id, key), changed)
    }
}

/// `purge(id)`
unsafe extern "C-unwind" fn purge(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        api::check_phase(l, phase::WAIT);
        let id = id(l);
        vm().select();
        end_with(l, cache::begin_purge(id), changed)
    }
}

/// `purge_answers(id, kind, text)`: answers of routes; the kind is `"key"`, `"prefix"` or `"tag"`.
unsafe extern "C-unwind" fn purge_answers(l: *mut State) -> c_int {
    // SAFETY: called by Lua; the text is gone before anything raises.
    unsafe {
        api::check_phase(l, phase::WAIT);
        let (id, kind, text) = (id(l), ffi::check_bytes(l, 2), ffi::check_bytes(l, 3));
        vm().select();
        let operation = {
            let answers = match kind {
                b"key" => Answers::Key(text.to_vec()),
                b"prefix" => Answers::Prefix(text.to_vec()),
                _ => Answers::Tagged(text.to_vec()),
            };
            cache::begin_purge_answers(id, &answers)
        };
        end_with(l, operation, changed)
    }
}

unsafe extern "C-unwind" fn changed(l: *mut State) -> c_int {
    // SAFETY: called by Lua as the continuation of a change.
    unsafe {
        let Some(operation) = taken(l) else { return 0 };
        stamped(l, cache::end_change(operation))
    }
}
