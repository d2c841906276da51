//! `coroutine.*`: as LuaJIT's, but a wait for the host travels up through any nesting. Resume sees
//! a mark when its coroutine waits, yields as well, and goes on with it when it is resumed.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::ffi::{self, State};
use crate::vm::vm;
use std::ffi::c_int;

/// What a coroutine is to the scheduler. Only a free one can be resumed from Lua: one that waits
/// for the host belongs to the wait, one that runs a task to the task.
pub(crate) struct Mark;

impl Mark {
    pub(crate) const FREE: c_int = 0;
    pub(crate) const WAITING: c_int = 1;
    /// It runs a handler or a light thread.
    pub(crate) const OWN: c_int = 2;
    /// A light thread that has ended and was not waited for.
    pub(crate) const ZOMBIE: c_int = 3;
    /// One that was waited for or killed.
    pub(crate) const DEAD: c_int = 4;
}

/// A coroutine yields to the scheduler.
pub(crate) unsafe fn mark_waiting(l: *mut State) {
    // SAFETY: `l` is live.
    unsafe {
        if ffi::phasor_mark(l) == Mark::FREE {
            ffi::phasor_setmark(l, Mark::WAITING);
        }
    }
}

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
        let state = state(l, co);
        if state != "suspended" {
            let text: &[u8] = match state {
                "running" => b"cannot resume running coroutine",
                "normal" => b"cannot resume normal coroutine",
                "zombie" => b"cannot resume zombie coroutine",
                _ => b"cannot resume dead coroutine",
            };
            return failure(l, who, text);
        }
        if ffi::lua_checkstack(co, arguments) == 0 {
            return failure(l, who, b"too many arguments to resume");
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
        ffi::phasor_setmark(co, Mark::FREE);
        let blocks = u32::from(ffi::phasor_yieldable(l) == 0);
        vm.blocked += blocks;
        let status = ffi::lua_resume(co, l, arguments);
        vm.blocked -= blocks;
        if status == ffi::YIELD && vm.waiting {
            mark_waiting(l);
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

/// A coroutine's state as `coroutine.status` names it.
unsafe fn state(l: *mut State, co: *mut State) -> &'static str {
    // SAFETY: both are live.
    unsafe {
        if co == l {
            return "running";
        }
        match ffi::phasor_mark(co) {
            Mark::WAITING => return "running",
            Mark::OWN if ffi::lua_status(co) == ffi::YIELD => return "running",
            Mark::ZOMBIE => return "zombie",
            Mark::DEAD => return "dead",
            _ => {}
        }
        match ffi::lua_status(co) {
            ffi::YIELD => "suspended",
            ffi::OK => {
                let mut debug = std::mem::zeroed::<ffi::Debug>();
                if ffi::lua_getstack(co, 0, &raw mut debug) > 0 {
                    "normal"
                } else if ffi::lua_gettop(co) == 0 {
                    "dead"
                } else if ffi::phasor_mark(co) == Mark::OWN {
                    "running"
                } else {
                    "suspended"
                }
            }
            _ => "dead",
        }
    }
}

unsafe extern "C-unwind" fn status(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let co = ffi::lua_tothread(l, 1);
        if co.is_null() {
            ffi::arg_error(l, 1, c"coroutine expected");
        }
        ffi::push_bytes(l, state(l, co).as_bytes());
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
        // Who has it can look into it: it is not used again for another request.
        if let Some(task) = vm().current()
            && task.thread == l
        {
            task.handed_out = true;
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
