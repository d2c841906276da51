//! `ngx.run_worker_thread`: a function of a module runs in another VM on another thread, so that what
//! computes for long holds nobody up. Arguments and results are copied.
#![expect(unsafe_code, reason = "the C API of Lua")]

use crate::api;
use crate::api_body::push_operation;
use crate::bindings::phasor::plugin::operation::Operation;
use crate::bindings::phasor::plugin::{reactor, time, worker};
use crate::ffi::{self, State};
use crate::phase;
use crate::vm::vm;
use crate::wait;
use std::ffi::c_int;

const NIL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const NUMBER: u8 = 3;
const STRING: u8 = 4;
const TABLE: u8 = 5;
const NULL: u8 = 6;

/// Tables in tables; a table that holds itself comes to this, too.
const DEPTH: u32 = 100;

fn long(out: &mut Vec<u8>, n: usize) {
    out.extend_from_slice(&u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes());
}

/// Appends the value at `idx`; raises nothing.
unsafe fn encode(l: *mut State, idx: c_int, out: &mut Vec<u8>, depth: u32) -> Result<(), String> {
    // SAFETY: `l` is live; what is pushed is popped.
    unsafe {
        match ffi::lua_type(l, idx) {
            ffi::TNIL => out.push(NIL),
            ffi::TBOOLEAN => out.push(if ffi::lua_toboolean(l, idx) != 0 {
                TRUE
            } else {
                FALSE
            }),
            ffi::TNUMBER => {
                out.push(NUMBER);
                let number = ffi::lua_tonumberx(l, idx, std::ptr::null_mut());
                out.extend_from_slice(&number.to_le_bytes());
            }
            ffi::TSTRING => {
                let bytes = ffi::to_bytes(l, idx).unwrap_or_default();
                // A kind and a length stand before it.
                if !crate::alloc::make_room(out, bytes.len() + 5) {
                    return Err(NO_MEMORY.to_owned());
                }
                out.push(STRING);
                long(out, bytes.len());
                out.extend_from_slice(bytes);
            }
            ffi::TLIGHTUSERDATA if ffi::lua_touserdata(l, idx).is_null() => out.push(NULL),
            ffi::TTABLE => encode_table(l, idx, out, depth)?,
            kind => {
                let name = std::ffi::CStr::from_ptr(ffi::lua_typename(l, kind)).to_string_lossy();
                return Err(format!("unsupported Lua type: {name}"));
            }
        }
    }
    Ok(())
}

unsafe fn encode_table(
    l: *mut State,
    idx: c_int,
    out: &mut Vec<u8>,
    depth: u32,
) -> Result<(), String> {
    // SAFETY: as `encode`.
    unsafe {
        if depth >= DEPTH || ffi::lua_checkstack(l, 4) == 0 {
            return Err("suspicious nested table: more than 100 levels".to_owned());
        }
        let table = ffi::lua_absindex(l, idx);
        out.push(TABLE);
        let at = out.len();
        long(out, 0);
        let mut count: u32 = 0;
        ffi::lua_pushnil(l);
        while ffi::lua_next(l, table) != 0 {
            let fine = encode(l, -2, out, depth + 1).and_then(|()| encode(l, -1, out, depth + 1));
            ffi::pop(l, 1);
            if fine.is_err() {
                ffi::pop(l, 1);
                return fine;
            }
            count += 1;
        }
        out[at..at + 4].copy_from_slice(&count.to_le_bytes());
    }
    Ok(())
}

/// What `encode` says when there is no room.
const NO_MEMORY: &str = "not enough memory";

/// All values from `first` upwards. When there is no room the collector makes some.
unsafe fn encode_all(l: *mut State, first: c_int) -> Result<Vec<u8>, String> {
    // SAFETY: as `encode`.
    unsafe {
        match encode_from(l, first) {
            Err(text) if text == NO_MEMORY => {
                ffi::lua_gc(l, ffi::GCCOLLECT, 0);
                encode_from(l, first)
            }
            outcome => outcome,
        }
    }
}

unsafe fn encode_from(l: *mut State, first: c_int) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    // SAFETY: as `encode`.
    unsafe {
        for idx in first..=ffi::lua_gettop(l) {
            encode(l, idx, &mut out, 0)?;
        }
    }
    Ok(out)
}

fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(n)?;
    *bytes = rest;
    Some(taken)
}

fn take_long(bytes: &mut &[u8]) -> Option<usize> {
    let four = take(bytes, 4)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(four)).ok()
}

/// Pushes the next value; `None` at the end.
unsafe fn decode(l: *mut State, bytes: &mut &[u8]) -> Option<()> {
    // SAFETY: `l` is live; the bytes come from `encode`.
    unsafe {
        if ffi::lua_checkstack(l, 6) == 0 {
            return None;
        }
        match *take(bytes, 1)?.first()? {
            FALSE => ffi::lua_pushboolean(l, 0),
            TRUE => ffi::lua_pushboolean(l, 1),
            NUMBER => {
                let eight = take(bytes, 8)?.try_into().ok()?;
                ffi::lua_pushnumber(l, f64::from_le_bytes(eight));
            }
            STRING => {
                let n = take_long(bytes)?;
                ffi::push_bytes(l, take(bytes, n)?);
            }
            TABLE => {
                let count = take_long(bytes)?;
                ffi::lua_createtable(l, 0, c_int::try_from(count).unwrap_or(0));
                for _ in 0..count {
                    decode(l, bytes)?;
                    decode(l, bytes)?;
                    ffi::lua_rawset(l, -3);
                }
            }
            NULL => ffi::lua_pushlightuserdata(l, std::ptr::null_mut()),
            _ => ffi::lua_pushnil(l),
        }
    }
    Some(())
}

/// `false` and a text.
unsafe fn refused(l: *mut State, text: &[u8]) -> c_int {
    // SAFETY: `l` is the running coroutine.
    unsafe {
        ffi::lua_pushboolean(l, 0);
        ffi::push_bytes(l, text);
    }
    2
}

/// `ngx.run_worker_thread(pool, module, function, …)`.
unsafe extern "C-unwind" fn run(l: *mut State) -> c_int {
    // SAFETY: called by Lua; nothing with a destructor is alive where it raises.
    unsafe {
        if ffi::lua_gettop(l) < 3 {
            ffi::error(l, b"expecting at least 3 arguments");
        }
        for idx in 1..=3 {
            ffi::check_bytes(l, idx);
        }
        api::check_phase(l, phase::WAIT);
        let operation = {
            let name = String::from_utf8_lossy(ffi::check_bytes(l, 1)).into_owned();
            let Some((threads, queue)) = vm().program.config.thread_pool(&name) else {
                let text = format!("thread pool {name} not found");
                return refused(l, text.as_bytes());
            };
            match encode_all(l, 2) {
                Ok(payload) => {
                    vm().select();
                    reactor::begin_call(&name, threads, queue, &payload)
                }
                Err(text) => {
                    let text = format!("{text} in the argument");
                    return refused(l, text.as_bytes());
                }
            }
        };
        ffi::lua_settop(l, 0);
        let place = push_operation(l, operation);
        match &*place {
            Some(operation) => wait::operation(l, operation, ran),
            None => 0,
        }
    }
}

unsafe extern "C-unwind" fn ran(l: *mut State) -> c_int {
    // SAFETY: called by Lua as the continuation of `run`.
    unsafe {
        let place: *mut Option<Operation> = ffi::lua_touserdata(l, 1).cast();
        let Some(operation) = (*place).take() else {
            return 0;
        };
        vm().select();
        ffi::lua_settop(l, 0);
        match crate::held::hold(reactor::end_call(operation)).value() {
            Ok(results) => {
                ffi::lua_pushboolean(l, 1);
                let mut rest = &results[..];
                while decode(l, &mut rest).is_some() {}
            }
            Err(text) => return refused(l, text.as_bytes()),
        }
        ffi::lua_gettop(l)
    }
}

/// In the other VM: requires the module and calls its function.
unsafe extern "C-unwind" fn enter(l: *mut State) -> c_int {
    // SAFETY: called protected, with the payload as the only argument, which stays on the stack.
    unsafe {
        let mut rest = ffi::check_bytes(l, 1);
        while decode(l, &mut rest).is_some() {}
        // 2: module, 3: function, then the arguments.
        let arguments = ffi::lua_gettop(l) - 3;
        ffi::luaL_checkstack(l, 6, c"".as_ptr());
        ffi::lua_getglobal(l, c"require".as_ptr());
        ffi::lua_pushvalue(l, 2);
        ffi::lua_callk(l, 1, 1, 0, None);
        if ffi::lua_type(l, -1) != ffi::TTABLE {
            ffi::error(l, b"the module is not a table");
        }
        ffi::lua_pushvalue(l, 3);
        ffi::lua_gettable(l, -2);
        if ffi::lua_type(l, -1) != ffi::TFUNCTION {
            ffi::push_bytes(l, b"no function '");
            ffi::lua_pushvalue(l, 3);
            ffi::push_bytes(l, b"' in module '");
            ffi::lua_pushvalue(l, 2);
            ffi::push_bytes(l, b"'");
            ffi::lua_concat(l, 5);
            ffi::raise(l);
        }
        ffi::lua_replace(l, 3);
        ffi::pop(l, 1);
        ffi::lua_callk(l, arguments, ffi::MULTRET, 0, None);
        ffi::lua_gettop(l) - 2
    }
}

/// `pump.call`: this instance serves nothing else.
pub(crate) fn call(payload: &[u8]) -> Result<Vec<u8>, String> {
    let vm = vm();
    // SAFETY: the main thread is at its base, and nothing else runs.
    unsafe {
        let l = vm.main;
        if !std::mem::replace(&mut vm.elsewhere, true) {
            crate::libs::seed_random(l, worker::random());
        }
        vm.until = time::monotonic() + vm.program.limits.deadline_ms.saturating_mul(1_000_000);
        ffi::lua_settop(l, 0);
        ffi::lua_pushcclosure(l, enter, 0);
        ffi::push_bytes(l, payload);
        let status = ffi::lua_pcallk(l, 1, ffi::MULTRET, 0, 0, None);
        let outcome = if status == ffi::OK {
            encode_all(l, 1).map_err(|text| format!("{text} in the return value"))
        } else {
            let text = ffi::to_bytes(l, -1).unwrap_or(b"(error object is not a string)");
            Err(String::from_utf8_lossy(text).into_owned())
        };
        ffi::lua_settop(l, 0);
        outcome
    }
}

/// Opens `ngx.run_worker_thread`.
pub(crate) unsafe fn open(l: *mut State) {
    // SAFETY: called while the state is opened.
    unsafe {
        ffi::push_ngx(l);
        ffi::register(l, &[(c"run_worker_thread", run)]);
        ffi::pop(l, 1);
    }
}
