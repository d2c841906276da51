//! Output and the ends of a handler: `ngx.say print flush eof send_headers exit redirect exec`.
//!
//! What is written gathers in the job and crosses at the end, at a flush, or when a window is full.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::api;
use crate::bindings::phasor::plugin::{error_log, exchange};
use crate::budget;
use crate::ffi::{self, State};
use crate::filter::{self, Sent};
use crate::job::{Exit, Job};
use crate::phase;
use crate::vm::vm;
use crate::wait;
use crate::wire;
use std::ffi::c_int;

/// How deep a table of pieces may nest.
const MAX_DEPTH: u32 = 64;

/// Appends the text of the value at `idx` as `ngx.say` writes it; false: it cannot be written. It
/// raises when time or memory are used up: `out` must not belong to the caller's frame.
pub(crate) unsafe fn append(l: *mut State, idx: c_int, out: &mut Vec<u8>, depth: u32) -> bool {
    // SAFETY: `l` is the running coroutine.
    unsafe {
        match ffi::lua_type(l, idx) {
            ffi::TSTRING => {
                let text = ffi::to_bytes(l, idx).unwrap_or_default();
                crate::alloc::demand_in(l, out, text.len());
                out.extend_from_slice(text);
            }
            ffi::TNUMBER => {
                ffi::lua_pushvalue(l, idx);
                out.extend_from_slice(ffi::to_bytes(l, -1).unwrap_or_default());
                ffi::pop(l, 1);
            }
            ffi::TNIL => out.extend_from_slice(b"nil"),
            ffi::TBOOLEAN if ffi::lua_toboolean(l, idx) != 0 => out.extend_from_slice(b"true"),
            ffi::TBOOLEAN => out.extend_from_slice(b"false"),
            ffi::TLIGHTUSERDATA if ffi::lua_touserdata(l, idx).is_null() => {
                out.extend_from_slice(b"null")
            }
            ffi::TTABLE if depth < MAX_DEPTH && ffi::lua_checkstack(l, 4) != 0 => {
                let idx = ffi::lua_absindex(l, idx);
                let n = c_int::try_from(ffi::lua_rawlen(l, idx)).unwrap_or(c_int::MAX);
                for i in 1..=n {
                    ffi::tick(l, 8);
                    ffi::lua_rawgeti(l, idx, i);
                    let fine = append(l, -1, out, depth + 1);
                    ffi::pop(l, 1);
                    if !fine {
                        return false;
                    }
                }
                return is_array(l, idx, n);
            }
            _ => return false,
        }
    }
    true
}

/// Whether a table has no keys but 1 to `n`.
unsafe fn is_array(l: *mut State, idx: c_int, n: c_int) -> bool {
    let mut keys = 0;
    // SAFETY: as `append`.
    unsafe {
        ffi::lua_pushnil(l);
        while ffi::lua_next(l, idx) != 0 {
            ffi::pop(l, 1);
            keys += 1;
            if keys > n {
                ffi::pop(l, 1);
                return false;
            }
        }
    }
    keys == n
}

unsafe fn write(l: *mut State, line: bool) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let job = api::job(l, phase::ANSWER);
        if job.raw {
            return ffi::nil_error(l, b"raw request socket acquired");
        }
        if job.eof {
            return ffi::nil_error(l, b"seen eof");
        }
        let n = ffi::lua_gettop(l);
        let start = job.out.len();
        for i in 1..=n {
            if !append(l, i, &mut job.out, 0) {
                job.out.truncate(start);
                bad_value(l, i);
            }
        }
        if line {
            job.out.push(b'\n');
        }
        job.said = true;
        if job.out.len() > vm().program.limits.window {
            return overflow(l, job);
        }
        ffi::lua_pushnumber(l, 1.0);
    }
    1
}

unsafe fn bad_value(l: *mut State, i: c_int) -> ! {
    // SAFETY: `l` is the running coroutine.
    unsafe {
        let message: &std::ffi::CStr = match ffi::lua_type(l, i) {
            ffi::TTABLE => c"non-array table found",
            ffi::TLIGHTUSERDATA => {
                c"string, number, boolean, nil, ngx.null, or array table expected, but got userdata"
            }
            ffi::TFUNCTION => {
                c"string, number, boolean, nil, ngx.null, or array table expected, but got function"
            }
            _ => c"string, number, boolean, nil, ngx.null, or array table expected",
        };
        ffi::arg_error(l, i, message)
    }
}

/// More than a window has gathered: it is sent, and the writer waits when too much is on its way.
unsafe fn overflow(l: *mut State, job: &mut Job) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let window = vm().program.limits.window;
        let much = job.unacknowledged + job.out.len() > window && wait::can_wait(l);
        send(l, job, if much { wire::TELL_DRAINED } else { 0 })
    }
}

/// Sends what has gathered. With `TELL_DRAINED` waits until the connection has taken it.
unsafe fn send(l: *mut State, job: &mut Job, flags: u8) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let can_wait = wait::can_wait(l);
        match filter::commit(job, flags, can_wait) {
            Sent::Waits if can_wait => wait_for_filters(l, job, flags),
            Sent::Busy if can_wait => wait_for_filters(l, job, flags | AGAIN),
            // What has gathered crosses later.
            Sent::Waits | Sent::Busy => sent(l, job, Sent::Done, 0),
            outcome => sent(l, job, outcome, flags),
        }
    }
}

/// In the context of `go_on`: the piece that was waited for was somebody else's.
const AGAIN: u8 = 128;

unsafe fn wait_for_filters(l: *mut State, job: &mut Job, flags: u8) -> c_int {
    job.sending.waiters.push(wait::home_token());
    // SAFETY: `send` has asked whether it can wait.
    unsafe { wait::suspend(l, c_int::from(flags), Some(go_on)) }
}

unsafe extern "C-unwind" fn go_on(l: *mut State) -> c_int {
    let mut context = 0;
    // SAFETY: called by Lua as the continuation of `send`.
    unsafe {
        ffi::lua_getctx(l, &raw mut context);
        let Some(job) = vm().current_job() else {
            return 0;
        };
        let flags = u8::try_from(context).unwrap_or(0);
        if flags & AGAIN != 0 {
            return send(l, job, flags & !AGAIN);
        }
        let outcome = job.sending.outcome();
        sent(l, job, outcome, flags)
    }
}

unsafe fn sent(l: *mut State, job: &mut Job, outcome: Sent, flags: u8) -> c_int {
    // SAFETY: `l` is the running coroutine.
    unsafe {
        match outcome {
            Sent::Failed => ffi::nil_error(l, b"nginx output filter error"),
            Sent::Exited(code) => {
                job.said = false;
                budget::exit(l, Exit::Code(i32::from(code)))
            }
            _ if flags & wire::TELL_DRAINED != 0 => {
                job.drain.push(wait::home_token());
                wait::suspend(l, 0, Some(written))
            }
            _ => written(l),
        }
    }
}

unsafe extern "C-unwind" fn written(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { ffi::lua_pushnumber(l, 1.0) };
    1
}

unsafe extern "C-unwind" fn say(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { write(l, true) }
}

unsafe extern "C-unwind" fn print(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { write(l, false) }
}

pub(crate) unsafe extern "C-unwind" fn flush(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let job = api::job(l, phase::ANSWER);
        let wait = ffi::lua_toboolean(l, 1) != 0;
        if job.raw {
            return ffi::nil_error(l, b"raw request socket acquired");
        }
        if job.eof {
            return ffi::nil_error(l, b"seen eof");
        }
        if !job.said {
            return ffi::nil_error(l, b"nothing to flush");
        }
        let wait = wait && wait::can_wait(l);
        send(l, job, if wait { wire::TELL_DRAINED } else { 0 })
    }
}

unsafe extern "C-unwind" fn eof(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let job = api::job(l, phase::ANSWER);
        if job.raw {
            return ffi::nil_error(l, b"raw request socket acquired");
        }
        if job.eof {
            return ffi::nil_error(l, b"seen eof");
        }
        job.said = true;
        job.eof = true;
        send(l, job, wire::BODY_ENDS)
    }
}

unsafe extern "C-unwind" fn send_headers(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let job = api::job(l, phase::ANSWER);
        job.said = true;
        ffi::lua_pushnumber(l, 1.0);
    }
    1
}

unsafe extern "C-unwind" fn exit(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        #[expect(clippy::cast_possible_truncation, reason = "a status")]
        let mut code = ffi::luaL_checknumber(l, 1) as i32;
        api::check_phase(l, phase::EXIT);
        let vm = vm();
        if let Some(job) = vm.current_job()
            && job.said
            && code >= 300
            && ![408, 499, 444].contains(&code)
            && vm.phase() != phase::HEADER_FILTER
        {
            if i32::from(job.status) != code {
                vm.select();
                let text = format!(
                    "attempt to set status {code} via ngx.exit after sending out the response status {}",
                    if job.status == 0 { 200 } else { job.status }
                );
                error_log::write(error_log::Level::Error, &text);
            }
            code = 200;
        }
        if vm.phase() == phase::HEADER_FILTER {
            // As in OpenResty it returns here: the filter goes on to its end.
            if let Some(root) = vm.current_root() {
                root.exit = Exit::Code(code);
            }
            return 0;
        }
        budget::exit(l, Exit::Code(code))
    }
}

unsafe extern "C-unwind" fn redirect(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let uri = ffi::check_bytes(l, 1);
        let status = ffi::opt_integer(l, 2, 302);
        let job = api::job(l, phase::ANSWER);
        if ![301, 302, 303, 307, 308].contains(&status) {
            ffi::error(
                l,
                b"only ngx.HTTP_MOVED_TEMPORARILY, ngx.HTTP_MOVED_PERMANENTLY, ngx.HTTP_PERMANENT_REDIRECT, \
                ngx.HTTP_SEE_OTHER, and ngx.HTTP_TEMPORARY_REDIRECT are allowed",
            );
        }
        if job.said {
            ffi::error(
                l,
                b"attempt to call ngx.redirect after sending out the headers",
            );
        }
        if let Some(bad) = uri.iter().find(|b| **b < 0x20 || **b == 0x7f) {
            ffi::push_bytes(l, b"unsafe byte \"0x");
            let digits = b"0123456789abcdef";
            ffi::push_bytes(
                l,
                &[digits[usize::from(bad >> 4)], digits[usize::from(bad & 15)]],
            );
            ffi::push_bytes(l, b"\" in redirect uri \"");
            ffi::lua_pushvalue(l, 1);
            ffi::push_bytes(l, b"\"");
            ffi::lua_concat(l, 5);
            ffi::raise(l);
        }
        job.set_header(b"location", uri);
        budget::exit(l, Exit::Code(i32::try_from(status).unwrap_or(302)))
    }
}

unsafe extern "C-unwind" fn exec(l: *mut State) -> c_int {
    // SAFETY: called by Lua; the strings are gone before anything can raise.
    unsafe {
        let n = ffi::lua_gettop(l);
        ffi::check_bytes(l, 1);
        let job = api::job(l, phase::ANSWER & !phase::set(phase::SERVER_REWRITE));
        if job.said {
            ffi::error(
                l,
                b"attempt to call ngx.exec after sending out response headers",
            );
        }
        if n >= 2 && ffi::lua_type(l, 2) != ffi::TNIL {
            if ffi::lua_type(l, 2) == ffi::TTABLE {
                ffi::push_ngx(l);
                ffi::lua_getfield(l, -1, c"encode_args".as_ptr());
                ffi::lua_pushvalue(l, 2);
                ffi::lua_callk(l, 1, 1, 0, None);
                ffi::lua_replace(l, 2);
            }
            ffi::check_bytes(l, 2);
            let mark: &[u8] = if ffi::check_bytes(l, 1).contains(&b'?') {
                b"&"
            } else {
                b"?"
            };
            ffi::lua_pushvalue(l, 1);
            ffi::push_bytes(l, mark);
            ffi::lua_pushvalue(l, 2);
            ffi::lua_concat(l, 3);
            ffi::lua_replace(l, 1);
        }
        vm().select();
        let outcome = {
            let target = String::from_utf8_lossy(ffi::check_bytes(l, 1));
            exchange::exec(&target).map_err(|e| ffi::push_bytes(l, e.as_bytes()))
        };
        if outcome.is_err() {
            ffi::raise(l);
        }
        budget::exit(l, Exit::Elsewhere)
    }
}

/// Opens the output functions.
pub(crate) unsafe fn open(l: *mut State) {
    // SAFETY: called while the state is opened.
    unsafe {
        ffi::push_ngx(l);
        ffi::register(
            l,
            &[
                (c"say", say),
                (c"print", print),
                (c"flush", flush),
                (c"eof", eof),
                (c"send_headers", send_headers),
                (c"exit", exit),
                (c"redirect", redirect),
                (c"exec", exec),
                (c"sleep", wait::sleep),
            ],
        );
        ffi::pop(l, 1);
    }
}
