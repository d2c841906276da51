//! `ngx.semaphore`: counts that tasks of all requests of this worker wait for, first come first
//! served.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::api;
use crate::ffi::{self, State};
use crate::phase;
use crate::vm::vm;
use crate::wait;
use std::collections::VecDeque;
use std::ffi::c_int;

/// Waits that one semaphore may have: a bound for what never gets a post.
const MOST_WAITERS: usize = 100_000;

#[derive(Default)]
struct Semaphore {
    count: i64,
    /// Tokens in the order of the waits; some of them may have been given up.
    waiters: VecDeque<u32>,
    /// A token in the queue will serve the waiters.
    posted: bool,
}

/// The semaphores that Lua holds.
#[derive(Default)]
pub(crate) struct Semaphores {
    slots: Vec<Option<Box<Semaphore>>>,
    free: Vec<usize>,
}

/// In the userdata of a semaphore: its slot.
const TYPE: &std::ffi::CStr = c"phasor.semaphore";

unsafe extern "C-unwind" fn drop_semaphore(l: *mut State) -> c_int {
    // SAFETY: called by Lua's collector with the userdata that `new` made.
    unsafe {
        let at = *ffi::lua_touserdata(l, 1).cast::<usize>();
        let semaphores = &mut vm().semaphores;
        if semaphores
            .slots
            .get_mut(at)
            .and_then(Option::take)
            .is_some()
        {
            semaphores.free.push(at);
        }
    }
    0
}

/// The semaphore of a method's `self`: a table with the userdata in `sem`.
unsafe fn check(l: *mut State) -> (usize, &'static mut Semaphore) {
    // SAFETY: called by Lua.
    unsafe {
        if ffi::lua_type(l, 1) == ffi::TTABLE {
            ffi::push_bytes(l, b"sem");
            ffi::lua_rawget(l, 1);
            let place: *mut usize = ffi::luaL_testudata(l, -1, TYPE.as_ptr()).cast();
            ffi::pop(l, 1);
            if !place.is_null()
                && let Some(Some(semaphore)) = vm().semaphores.slots.get_mut(*place)
            {
                return (*place, semaphore);
            }
        }
        ffi::error(l, b"not a semaphore instance")
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a count")]
unsafe extern "C-unwind" fn new(l: *mut State) -> c_int {
    // SAFETY: called by Lua; upvalue 1 is the metatable of instances.
    unsafe {
        let mut known = 0;
        let number = ffi::lua_tonumberx(l, 1, &raw mut known);
        let count = if known == 0 { 0 } else { number as i64 };
        if count < 0 {
            ffi::error(l, b"no negative number");
        }
        ffi::lua_createtable(l, 0, 1);
        let place: *mut usize = ffi::lua_newuserdata(l, size_of::<usize>()).cast();
        place.write(usize::MAX);
        if ffi::luaL_newmetatable(l, TYPE.as_ptr()) != 0 {
            ffi::register(l, &[(c"__gc", drop_semaphore)]);
        }
        ffi::lua_setmetatable(l, -2);
        let semaphores = &mut vm().semaphores;
        let semaphore = Some(Box::new(Semaphore {
            count,
            waiters: VecDeque::new(),
            posted: false,
        }));
        if let Some(at) = semaphores.free.pop() {
            semaphores.slots[at] = semaphore;
            place.write(at);
        } else {
            semaphores.slots.push(semaphore);
            place.write(semaphores.slots.len() - 1);
        }
        ffi::lua_setfield(l, -2, c"sem".as_ptr());
        ffi::lua_pushvalue(l, ffi::upvalue_index(1));
        ffi::lua_setmetatable(l, -2);
    }
    1
}

#[expect(clippy::cast_possible_truncation, reason = "a count")]
unsafe extern "C-unwind" fn post(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let (at, semaphore) = check(l);
        let mut known = 0;
        let number = ffi::lua_tonumberx(l, 2, &raw mut known);
        let n = if ffi::lua_toboolean(l, 2) == 0 {
            1
        } else {
            number as i64
        };
        if n < 1 {
            ffi::error(l, b"positive number expected");
        }
        semaphore.count = semaphore.count.saturating_add(n);
        if !semaphore.posted && !semaphore.waiters.is_empty() {
            semaphore.posted = true;
            let vm = vm();
            let token = vm
                .waits
                .take_home(wait::Waiter::Semaphore(u32::try_from(at).unwrap_or(0)));
            vm.queue.push_back(token);
        }
        ffi::lua_pushboolean(l, 1);
    }
    1
}

/// Wakes those who have waited longest, as many as the count allows. As in OpenResty this comes
/// after whoever posted has had its turn.
pub(crate) fn serve(at: u32) {
    let vm = vm();
    let Some(Some(semaphore)) = vm.semaphores.slots.get_mut(at as usize) else {
        return;
    };
    semaphore.posted = false;
    while semaphore.count > 0
        && let Some(token) = semaphore.waiters.pop_front()
    {
        if let wait::Waiter::Task(number) = vm.waits.give_up(token)
            && let Some(&task) = vm.tasks.get(number as usize)
        {
            semaphore.count -= 1;
            // SAFETY: tasks are never freed; this one waits.
            wait::queue(unsafe { &mut *task });
        }
    }
}

unsafe extern "C-unwind" fn wait_for(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let semaphore = check(l).1;
        let mut known = 0;
        let seconds = ffi::lua_tonumberx(l, 2, &raw mut known);
        if known == 0 {
            ffi::arg_error(l, 2, c"number expected");
        }
        let milliseconds = seconds * 1000.0;
        if milliseconds < 0.0 {
            ffi::error(l, b"no negative number");
        }
        api::check_phase(l, phase::WAIT);
        if semaphore.count > 0 {
            semaphore.count -= 1;
            ffi::lua_pushboolean(l, 1);
            return 1;
        }
        if milliseconds < 1.0 {
            return ffi::nil_error(l, b"timeout");
        }
        if !wait::can_wait(l) {
            ffi::error(l, b"attempt to yield across C-call boundary");
        }
        if semaphore.waiters.len() >= MOST_WAITERS {
            return ffi::nil_error(l, b"too many waits");
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates"
        )]
        let milliseconds = milliseconds as u32;
        let token = wait::sleep_token(milliseconds);
        semaphore.waiters.push_back(token);
        let context = token.cast_signed();
        wait::suspend(l, context, Some(waited))
    }
}

/// Woken by a post the task has another token than that of the time-out.
unsafe extern "C-unwind" fn waited(l: *mut State) -> c_int {
    let mut context = 0;
    // SAFETY: called by Lua as the continuation of `wait_for`.
    unsafe {
        ffi::lua_getctx(l, &raw mut context);
        if vm()
            .current()
            .is_some_and(|t| t.token.cast_signed() != context)
        {
            ffi::lua_pushboolean(l, 1);
            return 1;
        }
        let waiters = &mut check(l).1.waiters;
        if let Some(at) = waiters
            .iter()
            .position(|token| token.cast_signed() == context)
        {
            waiters.remove(at);
        }
        ffi::lua_pushboolean(l, 0);
        ffi::push_bytes(l, b"timeout");
    }
    2
}

#[expect(clippy::cast_precision_loss, reason = "a count")]
unsafe extern "C-unwind" fn count(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let semaphore = check(l).1;
        semaphore.waiters.retain(|token| vm().waits.awaited(*token));
        ffi::lua_pushnumber(l, semaphore.count as f64 - semaphore.waiters.len() as f64);
    }
    1
}

/// Makes the module's table.
unsafe extern "C-unwind" fn load(l: *mut State) -> c_int {
    // SAFETY: called by `require`.
    unsafe {
        ffi::push_library(
            l,
            &[(c"post", post), (c"wait", wait_for), (c"count", count)],
        );
        ffi::push_bytes(l, b"0.1.31");
        ffi::lua_setfield(l, -2, c"version".as_ptr());
        ffi::lua_createtable(l, 0, 1);
        ffi::lua_pushvalue(l, -2);
        ffi::lua_setfield(l, -2, c"__index".as_ptr());
        ffi::lua_pushcclosure(l, new, 1);
        ffi::lua_setfield(l, -2, c"new".as_ptr());
    }
    1
}

/// Makes `require "ngx.semaphore"` known.
pub(crate) unsafe fn open(l: *mut State) {
    // SAFETY: called while the state is opened.
    unsafe { ffi::set_preload(l, c"ngx.semaphore", load) };
}
