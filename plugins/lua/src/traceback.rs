//! What is said about a Lua error: the message and where it came from, whatever was raised.
#![expect(unsafe_code, reason = "reads a dead coroutine's stack")]

use crate::ffi::{self, State};
use crate::vm::vm;
use std::ffi::c_int;

/// Pushes `message\nstack traceback:\n…`; takes the thread as a light userdata, whose error lies
/// on its top. Runs protected, as it allocates.
unsafe extern "C-unwind" fn build(l: *mut State) -> c_int {
    // SAFETY: `describe` pushed the thread.
    unsafe {
        let dead: *mut State = ffi::lua_touserdata(l, 1).cast();
        let memory = ffi::lua_toboolean(l, 2) != 0;
        ffi::luaL_checkstack(dead, 2, c"".as_ptr());
        ffi::lua_pushvalue(dead, -1);
        ffi::lua_xmove(dead, l, 1);
        match ffi::lua_type(l, -1) {
            ffi::TSTRING | ffi::TNUMBER => {}
            ffi::TNIL => ffi::push_bytes(l, b"nil"),
            _ if ffi::luaL_callmeta(l, -1, c"__tostring".as_ptr()) != 0 => {}
            t => {
                ffi::push_bytes(l, b"(error object is a ");
                ffi::lua_pushstring(l, ffi::lua_typename(l, t));
                ffi::push_bytes(l, b" value)");
                ffi::lua_concat(l, 3);
            }
        }
        if memory {
            // Lua raises this one without a place: it has no memory for it.
            place(l, dead);
            ffi::lua_insert(l, -2);
            ffi::lua_concat(l, 2);
        }
        let text = ffi::lua_tolstring(l, -1, std::ptr::null_mut());
        let text = if text.is_null() {
            c"(no message)".as_ptr()
        } else {
            text
        };
        ffi::luaL_traceback(l, dead, text, 0);
    }
    1
}

/// Pushes the innermost place in Lua code of `dead`, as `luaL_where` does.
unsafe fn place(l: *mut State, dead: *mut State) {
    // SAFETY: `build` has made room on both stacks.
    unsafe {
        let mut debug = std::mem::zeroed::<ffi::Debug>();
        let mut level = 0;
        while ffi::lua_getstack(dead, level, &raw mut debug) != 0 {
            ffi::luaL_where(dead, level);
            ffi::lua_xmove(dead, l, 1);
            if ffi::lua_rawlen(l, -1) != 0 {
                return;
            }
            ffi::pop(l, 1);
            level += 1;
        }
        ffi::push_bytes(l, b"");
    }
}

/// Appends what is known of the error on the top of `dead`, which ended with `status`.
pub(crate) unsafe fn describe(dead: *mut State, status: c_int, message: &mut Vec<u8>) {
    let main = vm().main;
    // SAFETY: the main thread is at its base and has room; `build` runs protected.
    unsafe {
        let top = ffi::lua_gettop(main);
        ffi::lua_pushcclosure(main, build, 0);
        ffi::lua_pushlightuserdata(main, dead.cast());
        ffi::lua_pushboolean(main, c_int::from(status == ffi::ERRMEM));
        if ffi::lua_pcallk(main, 2, 1, 0, 0, None) == ffi::OK
            && let Some(text) = ffi::to_bytes(main, -1)
        {
            message.extend_from_slice(text);
        } else {
            message.extend_from_slice(ffi::to_bytes(dead, -1).unwrap_or(b"unknown error"));
        }
        ffi::lua_settop(main, top);
    }
}
