//! `coroutine.*`: as LuaJIT's, but a wait for the host travels up through any nesting. Resume sees
//! a mark when its coroutine waits, yields as well, and goes on with it when it is resumed.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::ffi::{self, State};
use crate::vm::vm;
use std::ffi::c_int;

/// Contexts of the continuation: who called `resume_on`.
const RESUME: c_int = 0;
const WRAP: c_int = 1;

unsafe extern "C-unwind" fn create(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        ffi::luaL_checktype(l, 1, ffi::TFUNCTION);
        let co = ffi::lua_newthread(l);
        ffi::lua_pushvalue(l, 1);
        ffi::lua_xmove(l, co, 1);
    }
    1
}

unsafe extern "C-unwind" fn resume(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let co = ffi::lua_tothread(l, 1);
        if co.is_null() {
            ffi::arg_error(l, 1, c"coroutine expected");
        }
        start(l, co, ffi::lua_gettop(l) - 1, RESUME)
    }
}

unsafe extern "C-unwind" fn wrap(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        create(l);
        ffi::lua_pushcclosure(l, wrapped, 1);
    }
    1
}

unsafe extern "C-unwind" fn wrapped(l: *mut State) -> c_int {
    // SAFETY: called by Lua; upvalue 1 is the coroutine.
    unsafe {
        let co = ffi::lua_tothread(l, ffi::upvalue_index(1));
        start(l, co, ffi::lua_gettop(l), WRAP)
    }
}

/// Moves the arguments over and resumes.
unsafe fn start(l: *mut State, co: *mut State, arguments: c_int, who: c_int) -> c_int {
    // SAFETY: both threads are live.
    unsafe {
        if ffi::lua_checkstack(co, arguments) == 0 {
            return failure(l, who, b"too many arguments to resume");
        }
        let fresh = ffi::lua_status(co) == ffi::OK;
        if fresh && ffi::lua_gettop(co) == 0 {
            return failure(l, who, b"cannot resume dead coroutine");
        }
        ffi::lua_xmove(l, co, arguments);
        resume_on(l, co, arguments, who)
    }
}

unsafe fn failure(l: *mut State, who: c_int, message: &[u8]) -> c_int {
    // SAFETY: `l` is the running coroutine.
    unsafe {
        if who == WRAP {
            ffi::error(l, message);
        }
        ffi::lua_pushboolean(l, 0);
        ffi::push_bytes(l, message);
    }
    2
}

unsafe fn resume_on(l: *mut State, co: *mut State, arguments: c_int, who: c_int) -> c_int {
    let vm = vm();
    // SAFETY: both threads are live.
    unsafe {
        let blocks = u32::from(ffi::phasor_yieldable(l) == 0);
        vm.blocked += blocks;
        let status = ffi::lua_resume(co, l, arguments);
        vm.blocked -= blocks;
        if status == ffi::YIELD && vm.waiting {
            return ffi::lua_yieldk(l, 0, who, Some(go_on));
        }
        if status <= ffi::YIELD {
            let results = ffi::lua_gettop(co);
            if ffi::lua_checkstack(l, results + 1) == 0 {
                ffi::pop(co, results);
                return failure(l, who, b"too many results to resume");
            }
            if who == RESUME {
                ffi::lua_pushboolean(l, 1);
            }
            ffi::lua_xmove(co, l, results);
            return results + c_int::from(who == RESUME);
        }
        if who == RESUME {
            ffi::lua_pushboolean(l, 0);
            ffi::lua_xmove(co, l, 1);
            return 2;
        }
        ffi::lua_xmove(co, l, 1);
        ffi::raise(l)
    }
}

/// The scheduler goes on with the waiting coroutine inside.
unsafe extern "C-unwind" fn go_on(l: *mut State) -> c_int {
    let mut who = RESUME;
    // SAFETY: called by Lua as a continuation of `resume` or `wrapped`.
    unsafe {
        ffi::lua_getctx(l, &raw mut who);
        let co = if who == WRAP {
            ffi::lua_tothread(l, ffi::upvalue_index(1))
        } else {
            ffi::lua_tothread(l, 1)
        };
        let results = vm()
            .current()
            .map_or(0, |t| if t.leaf == co { t.leaf_results } else { 0 });
        resume_on(l, co, results, who)
    }
}

unsafe extern "C-unwind" fn yield_(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { ffi::lua_yieldk(l, ffi::lua_gettop(l), 0, None) }
}

unsafe extern "C-unwind" fn status(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let co = ffi::lua_tothread(l, 1);
        if co.is_null() {
            ffi::arg_error(l, 1, c"coroutine expected");
        }
        let text: &[u8] = if co == l {
            b"running"
        } else {
            match ffi::lua_status(co) {
                ffi::YIELD => b"suspended",
                ffi::OK => {
                    let mut debug = std::mem::zeroed::<ffi::Debug>();
                    if ffi::lua_getstack(co, 0, &raw mut debug) > 0 {
                        b"normal"
                    } else if ffi::lua_gettop(co) == 0 {
                        b"dead"
                    } else {
                        b"suspended"
                    }
                }
                _ => b"dead",
            }
        };
        ffi::push_bytes(l, text);
    }
    1
}

/// LuaJIT with 5.1's rules: nil on the main thread.
unsafe extern "C-unwind" fn running(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        if ffi::lua_pushthread(l) != 0 {
            ffi::lua_pushnil(l);
        }
    }
    1
}

unsafe extern "C-unwind" fn is_yieldable(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { ffi::lua_pushboolean(l, ffi::phasor_yieldable(l)) };
    1
}

/// Opens `coroutine`.
pub(crate) unsafe fn open(l: *mut State) {
    // SAFETY: called while the state is opened.
    unsafe {
        ffi::push_library(
            l,
            &[
                (c"create", create),
                (c"resume", resume),
                (c"wrap", wrap),
                (c"yield", yield_),
                (c"status", status),
                (c"running", running),
                (c"isyieldable", is_yieldable),
            ],
        );
        ffi::set_loaded(l, c"coroutine");
        ffi::lua_setglobal(l, c"coroutine".as_ptr());
    }
}
