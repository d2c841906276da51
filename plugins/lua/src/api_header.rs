//! The answer's head: `ngx.header`, `ngx.resp.*`, and the status behind `ngx.status`.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::api;
use crate::bindings::phasor::plugin::{error_log, response};
use crate::ffi::{self, State};
use crate::held::hold;
use crate::job::Job;
use crate::phase;
use crate::vm::vm;
use std::ffi::c_int;

const READ: phase::Set = phase::EXCHANGE;
const WRITE: phase::Set =
    phase::EXCHANGE & !phase::set(phase::LOG) & !phase::set(phase::BODY_FILTER);

/// Whether Lua may still change the head; logs OpenResty's line when not.
unsafe fn open_head(job: &Job, what: &str) -> bool {
    let vm = vm();
    let sent = if vm.phase() == phase::HEADER_FILTER {
        job.head_sent
    } else {
        job.said || job.head_sent
    };
    if sent {
        vm.select();
        let text = format!("attempt to set {what} after sending out response headers");
        error_log::write(error_log::Level::Error, &text);
    }
    !sent
}

/// Pushes a header's value, or all values in a table, or nil.
unsafe fn push_header(l: *mut State, job: &Job, name: &[u8]) {
    // SAFETY: `l` is the running coroutine.
    unsafe {
        let before = ffi::lua_gettop(l);
        let known = job.has_header(name).is_some();
        let replaced = job
            .changes()
            .any(|c| !c.adds() && c.name.eq_ignore_ascii_case(name));
        if job.host_head && (!known || !replaced) {
            vm().select();
            for (n, v) in hold(response::get_headers()).value() {
                if n.as_bytes().eq_ignore_ascii_case(name) {
                    ffi::luaL_checkstack(l, 2, c"too many headers".as_ptr());
                    ffi::push_bytes(l, v);
                }
            }
        }
        for change in job.changes() {
            if change.name.eq_ignore_ascii_case(name) && !change.removes() {
                ffi::luaL_checkstack(l, 2, c"too many headers".as_ptr());
                ffi::push_bytes(l, change.value);
            }
        }
        let n = ffi::lua_gettop(l) - before;
        if n == 0 {
            ffi::lua_pushnil(l);
        } else if n > 1 {
            ffi::lua_createtable(l, n, 0);
            ffi::lua_insert(l, before + 1);
            for i in (1..=n).rev() {
                ffi::lua_rawseti(l, before + 1, i);
            }
        }
    }
}

/// `My_header` is `My-Header`'s other spelling in Lua.
fn spelled<'a>(name: &[u8], room: &'a mut [u8; 256]) -> &'a [u8] {
    let n = name.len().min(room.len());
    for (to, from) in room.iter_mut().zip(name) {
        *to = if *from == b'_' { b'-' } else { *from };
    }
    &room[..n]
}

unsafe extern "C-unwind" fn index(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let name = ffi::check_bytes(l, 2);
        let job = api::job(l, READ);
        let mut room = [0; 256];
        push_header(l, job, spelled(name, &mut room));
    }
    1
}

/// Whether a name or value would break the head.
fn breaks(bytes: &[u8]) -> bool {
    bytes.iter().any(|b| matches!(b, 0 | b'\r' | b'\n'))
}

/// Demands room for one more header; raises when there is none.
unsafe fn demand_header(l: *mut State, job: &mut Job, name: &[u8], value: &[u8]) {
    // A flag and two lengths.
    let more = name.len() + value.len() + 7;
    // SAFETY: `l` is the running coroutine; the buffer lies in the job.
    unsafe { crate::alloc::demand_in(l, job.head(), more) };
}

/// Sets header `name` to the value at `idx` (nil takes it away).
unsafe fn set(l: *mut State, job: &mut Job, name: &[u8], idx: c_int) {
    // SAFETY: `l` is the running coroutine.
    unsafe {
        match ffi::lua_type(l, idx) {
            ffi::TNIL | ffi::TNONE => job.remove_header(name),
            ffi::TTABLE => {
                let n = c_int::try_from(ffi::lua_rawlen(l, idx)).unwrap_or(0);
                if n == 0 {
                    job.remove_header(name);
                }
                for i in 1..=n {
                    ffi::lua_rawgeti(l, idx, i);
                    let Some(value) = ffi::to_bytes(l, -1) else {
                        bad_value(l, -1)
                    };
                    let value = clean(value);
                    demand_header(l, job, name, value);
                    if i == 1 {
                        job.set_header(name, value);
                    } else {
                        job.add_header(name, value);
                    }
                    ffi::pop(l, 1);
                }
            }
            ffi::TSTRING | ffi::TNUMBER => {
                ffi::lua_pushvalue(l, idx);
                let value = ffi::to_bytes(l, -1).unwrap_or_default();
                let value = clean(value);
                demand_header(l, job, name, value);
                job.set_header(name, value);
                ffi::pop(l, 1);
            }
            ffi::TBOOLEAN => {
                let value: &[u8] = if ffi::lua_toboolean(l, idx) != 0 {
                    b"true"
                } else {
                    b"false"
                };
                job.set_header(name, value);
            }
            _ => bad_value(l, idx),
        }
    }
}

/// A value up to the byte that would end its line.
fn clean(value: &[u8]) -> &[u8] {
    let end = if breaks(value) {
        value.iter().position(|b| breaks(&[*b]))
    } else {
        None
    };
    &value[..end.unwrap_or(value.len())]
}

unsafe fn bad_value(l: *mut State, idx: c_int) -> ! {
    // SAFETY: `l` is the running coroutine.
    unsafe {
        ffi::luaL_where(l, 1);
        ffi::push_bytes(l, b"invalid header value: a ");
        ffi::lua_pushstring(
            l,
            ffi::lua_typename(l, ffi::lua_type(l, if idx < 0 { idx - 2 } else { idx })),
        );
        ffi::lua_concat(l, 3);
        ffi::raise(l)
    }
}

unsafe extern "C-unwind" fn newindex(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let name = ffi::check_bytes(l, 2);
        let job = api::job(l, WRITE);
        if !open_head(job, "ngx.header.HEADER") {
            return 0;
        }
        let mut room = [0; 256];
        let name = spelled(name, &mut room);
        if name.is_empty() || breaks(name) {
            return 0;
        }
        set(l, job, name, 3);
    }
    0
}

unsafe extern "C-unwind" fn add_header(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let name = ffi::check_bytes(l, 1);
        let job = api::job(l, WRITE);
        if !open_head(job, "ngx.header.HEADER") {
            return 0;
        }
        if ffi::lua_type(l, 2) == ffi::TTABLE {
            let n = c_int::try_from(ffi::lua_rawlen(l, 2)).unwrap_or(0);
            for i in 1..=n {
                ffi::lua_rawgeti(l, 2, i);
                let value = clean(ffi::to_bytes(l, -1).unwrap_or_default());
                demand_header(l, job, name, value);
                job.add_header(name, value);
                ffi::pop(l, 1);
            }
        } else {
            let value = clean(ffi::check_bytes(l, 2));
            demand_header(l, job, name, value);
            job.add_header(name, value);
        }
    }
    0
}

/// Pushes the headers of the answer into a table, at most `max` (0: all).
unsafe extern "C-unwind" fn get_headers(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let max = ffi::opt_integer(l, 1, 100);
        let raw = ffi::lua_toboolean(l, 2) != 0;
        let job = api::job(l, READ);
        ffi::lua_createtable(l, 0, 8);
        let table = ffi::lua_gettop(l);
        let mut count = 0;
        let mut cut = false;
        if job.host_head {
            vm().select();
            for (name, value) in hold(response::get_headers()).value() {
                if job
                    .changes()
                    .any(|c| !c.adds() && c.name.eq_ignore_ascii_case(name.as_bytes()))
                {
                    continue;
                }
                count += 1;
                cut |= max > 0 && count > max;
                if !cut {
                    crate::api_request::add_to_table(l, table, name.as_bytes(), value, raw);
                }
            }
        }
        for change in job.changes().filter(|c| !c.removes()) {
            count += 1;
            cut |= max > 0 && count > max;
            if !cut {
                crate::api_request::add_to_table(l, table, change.name, change.value, raw);
            }
        }
        if !raw {
            crate::api_request::set_header_metatable(l, table);
        }
        if cut {
            ffi::push_bytes(l, b"truncated");
            return 2;
        }
    }
    1
}

/// The status as `ngx.status` gives it.
pub(crate) unsafe fn push_status(l: *mut State) {
    // SAFETY: called by Lua.
    unsafe {
        let job = api::job(l, READ);
        let mut status = job.status;
        if status == 0 && job.host_head {
            vm().select();
            status = response::status();
        }
        if status == 0 && (job.said || job.head_sent) {
            status = 200;
        }
        ffi::lua_pushnumber(l, f64::from(status));
    }
}

/// `ngx.status = value`.
pub(crate) unsafe fn set_status(l: *mut State, idx: c_int) {
    // SAFETY: called by Lua.
    unsafe {
        let status = ffi::luaL_checknumber(l, idx);
        let job = api::job(l, WRITE);
        if open_head(job, "ngx.status") {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a status; saturates"
            )]
            let status = status as u16;
            job.status = status;
        }
    }
}

/// `ngx.headers_sent`.
pub(crate) unsafe fn push_sent(l: *mut State) {
    // SAFETY: called by Lua.
    unsafe {
        let job = api::job(l, READ);
        ffi::lua_pushboolean(l, c_int::from(job.said || job.head_sent));
    }
}

/// Opens `ngx.header` and `ngx.resp`.
pub(crate) unsafe fn open(l: *mut State) {
    // SAFETY: called while the state is opened.
    unsafe {
        ffi::push_ngx(l);
        ffi::lua_createtable(l, 0, 0);
        ffi::push_library(l, &[(c"__index", index), (c"__newindex", newindex)]);
        ffi::lua_setmetatable(l, -2);
        ffi::lua_setfield(l, -2, c"header".as_ptr());
        ffi::push_library(
            l,
            &[(c"get_headers", get_headers), (c"add_header", add_header)],
        );
        ffi::lua_setfield(l, -2, c"resp".as_ptr());
        ffi::pop(l, 1);
    }
}
