//! `ngx.req.*`: the request's line and headers.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::api;
use crate::api_redis::total_of;
use crate::bindings::phasor::plugin::{request, variable};
use crate::budget;
use crate::ffi::{self, State};
use crate::held::{self, hold};
use crate::job::{Exit, Job};
use crate::phase;
use crate::vm::vm;
use std::ffi::c_int;

const READ: phase::Set = phase::EXCHANGE;
const WRITE: phase::Set = phase::ANSWER | phase::set(phase::SET) | phase::set(phase::HEADER_FILTER);

/// The methods of `run`, and those that only Lua's numbers know.
const METHODS: [&str; 10] = [
    "", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT",
];
/// nginx's method bits, from 2 upwards.
const NUMBERED: [&str; 15] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "MKCOL",
    "COPY",
    "MOVE",
    "OPTIONS",
    "PROPFIND",
    "PROPPATCH",
    "LOCK",
    "UNLOCK",
    "PATCH",
    "TRACE",
];

/// The method of a number like `ngx.HTTP_GET`.
pub(crate) fn numbered(number: isize) -> Option<&'static str> {
    let mut bits = NUMBERED.iter().zip(1..);
    bits.find(|(_, bit)| number == 1 << bit).map(|(n, _)| *n)
}

/// Pushes the request's method.
pub(crate) unsafe fn push_method(l: *mut State, job: &Job) {
    // SAFETY: `l` is the running coroutine.
    unsafe {
        match METHODS.get(usize::from(job.method)) {
            Some(name) if !name.is_empty() => ffi::push_bytes(l, name.as_bytes()),
            _ => {
                vm().select();
                ffi::push_bytes(l, request::method().as_bytes());
            }
        }
    }
}

unsafe extern "C-unwind" fn get_method(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let job = api::job(l, READ);
        push_method(l, job);
    }
    1
}

unsafe extern "C-unwind" fn set_method(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let number = ffi::luaL_checkinteger(l, 1);
        let job = api::job(l, WRITE);
        let Some(name) = numbered(number) else {
            ffi::error(l, b"unsupported HTTP method")
        };
        vm().select();
        if request::set_method(name).is_err() {
            ffi::error(l, b"the method cannot be changed here");
        }
        job.method = METHODS
            .iter()
            .zip(0..)
            .find(|(n, _)| **n == name)
            .map_or(0, |(_, i)| i);
    }
    0
}

/// Puts a value under a name: the first plain, several in a table.
pub(crate) unsafe fn add_to_table(
    l: *mut State,
    table: c_int,
    name: &[u8],
    value: &[u8],
    raw: bool,
) {
    // SAFETY: `l` is the running coroutine, `table` an absolute index.
    unsafe {
        if raw {
            ffi::push_bytes(l, name);
        } else {
            let mut room = [0; 256];
            let n = name.len().min(room.len());
            for (to, from) in room.iter_mut().zip(name) {
                *to = from.to_ascii_lowercase();
            }
            ffi::push_bytes(l, &room[..n]);
        }
        ffi::lua_pushvalue(l, -1);
        ffi::lua_rawget(l, table);
        match ffi::lua_type(l, -1) {
            ffi::TNIL => {
                ffi::pop(l, 1);
                ffi::push_bytes(l, value);
                ffi::lua_rawset(l, table);
            }
            ffi::TTABLE => {
                let n = c_int::try_from(ffi::lua_rawlen(l, -1)).unwrap_or(0);
                ffi::push_bytes(l, value);
                ffi::lua_rawseti(l, -2, n + 1);
                ffi::pop(l, 2);
            }
            _ => {
                ffi::lua_createtable(l, 4, 0);
                ffi::lua_insert(l, -2);
                ffi::lua_rawseti(l, -2, 1);
                ffi::push_bytes(l, value);
                ffi::lua_rawseti(l, -2, 2);
                ffi::lua_rawset(l, table);
            }
        }
    }
}

/// `headers.My_Header` finds `my-header`.
unsafe extern "C-unwind" fn header_index(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        if ffi::lua_type(l, 2) != ffi::TSTRING {
            return 0;
        }
        let name = ffi::check_bytes(l, 2);
        let mut room = [0; 256];
        if name.len() > room.len() {
            return 0;
        }
        for (to, from) in room.iter_mut().zip(name) {
            *to = if *from == b'_' {
                b'-'
            } else {
                from.to_ascii_lowercase()
            };
        }
        ffi::push_bytes(l, &room[..name.len()]);
        ffi::lua_rawget(l, 1);
    }
    1
}

/// Gives a table of headers its tolerant look-up.
pub(crate) unsafe fn set_header_metatable(l: *mut State, table: c_int) {
    // SAFETY: `l` is the running coroutine.
    unsafe {
        if ffi::luaL_newmetatable(l, c"phasor.headers".as_ptr()) != 0 {
            ffi::register(l, &[(c"__index", header_index)]);
        }
        ffi::lua_setmetatable(l, table);
    }
}

unsafe extern "C-unwind" fn get_headers(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let max = ffi::opt_integer(l, 1, 100);
        let raw = ffi::lua_toboolean(l, 2) != 0;
        api::job(l, READ);
        vm().select();
        ffi::lua_createtable(l, 0, 8);
        let table = ffi::lua_gettop(l);
        let mut count = 0;
        for (name, value) in hold(request::get_headers()).value() {
            count += 1;
            if max <= 0 || count <= max {
                add_to_table(l, table, name.as_bytes(), value, raw);
            }
        }
        if !raw {
            set_header_metatable(l, table);
        }
        if max > 0 && count > max {
            ffi::push_bytes(l, b"truncated");
            return 2;
        }
    }
    1
}

/// The values at `idx` as the host takes them.
unsafe fn values(l: *mut State, idx: c_int) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    // SAFETY: nothing here raises: numbers are converted on a copy, other types skipped.
    unsafe {
        if ffi::lua_type(l, idx) == ffi::TTABLE {
            let n = c_int::try_from(ffi::lua_rawlen(l, idx)).unwrap_or(0);
            for i in 1..=n {
                ffi::lua_rawgeti(l, idx, i);
                values.extend(ffi::to_bytes(l, -1).map(<[u8]>::to_vec));
                ffi::pop(l, 1);
            }
        } else {
            ffi::lua_pushvalue(l, idx);
            values.extend(ffi::to_bytes(l, -1).map(<[u8]>::to_vec));
            ffi::pop(l, 1);
        }
    }
    values
}

unsafe extern "C-unwind" fn set_header(l: *mut State) -> c_int {
    // SAFETY: called by Lua; the values are gone before anything can raise.
    unsafe {
        ffi::check_bytes(l, 1);
        ffi::lua_settop(l, 2);
        if ffi::lua_type(l, 2) == ffi::TBOOLEAN {
            ffi::push_bytes(
                l,
                if ffi::lua_toboolean(l, 2) != 0 {
                    b"true"
                } else {
                    b"false"
                },
            );
            ffi::lua_replace(l, 2);
        }
        api::job(l, WRITE);
        crate::alloc::demand(l, total_of(l, 2, false));
        vm().select();
        let failed = {
            let name = String::from_utf8_lossy(ffi::check_bytes(l, 1));
            request::set_header(&name, &values(l, 2)).is_err()
        };
        if failed {
            ffi::error(l, b"invalid header name or value");
        }
    }
    0
}

unsafe extern "C-unwind" fn add_header(l: *mut State) -> c_int {
    // SAFETY: called by Lua; the values are gone before anything can raise.
    unsafe {
        ffi::check_bytes(l, 1);
        ffi::lua_settop(l, 2);
        api::job(l, WRITE);
        crate::alloc::demand(l, total_of(l, 2, false));
        vm().select();
        let failed = {
            let name = String::from_utf8_lossy(ffi::check_bytes(l, 1));
            values(l, 2)
                .iter()
                .any(|v| request::add_header(&name, v).is_err())
        };
        if failed {
            ffi::error(l, b"invalid header name or value");
        }
    }
    0
}

unsafe extern "C-unwind" fn clear_header(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        ffi::lua_settop(l, 1);
        set_header(l)
    }
}

unsafe extern "C-unwind" fn http_version(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let job = api::job(l, READ);
        ffi::lua_pushnumber(l, f64::from(job.version) / 10.0);
    }
    1
}

unsafe extern "C-unwind" fn raw_header(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let without_line = ffi::lua_toboolean(l, 1) != 0;
        api::job(l, READ);
        vm().select();
        let head = request::head();
        let mut text = Vec::new();
        if !without_line {
            let version = f64::from(head.version) / 10.0;
            text.extend_from_slice(
                format!("{} {} HTTP/{version:.1}\r\n", head.method, head.uri).as_bytes(),
            );
        }
        for (name, value) in &head.headers {
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(value);
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"\r\n");
        drop(head);
        held::push(l, text);
    }
    1
}

/// A variable of the host as a number.
fn number_variable(name: &str) -> Option<f64> {
    let value = variable::get(name)?;
    std::str::from_utf8(&value).ok()?.parse().ok()
}

unsafe extern "C-unwind" fn start_time(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        api::job(l, READ);
        vm().select();
        let ago = number_variable("request_time").unwrap_or(0.0);
        let now = number_variable("msec").unwrap_or(0.0);
        ffi::lua_pushnumber(l, ((now - ago) * 1000.0).round() / 1000.0);
    }
    1
}

unsafe extern "C-unwind" fn is_internal(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let job = api::job(l, READ);
        ffi::lua_pushboolean(l, c_int::from(job.internal));
    }
    1
}

/// Path and query of the request's URI.
pub(crate) fn split(uri: &[u8]) -> (&[u8], Option<&[u8]>) {
    match uri.iter().position(|b| *b == b'?') {
        Some(at) => (&uri[..at], Some(&uri[at + 1..])),
        None => (uri, None),
    }
}

/// Percent-encodes what may not stand in a path.
fn encode_path(path: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &b in path {
        if b <= 0x20 || b >= 0x7f || matches!(b, b'%' | b'?' | b'#' | b'"' | b'<' | b'>') {
            out.extend_from_slice(&[
                b'%',
                DIGITS[usize::from(b >> 4)],
                DIGITS[usize::from(b & 15)],
            ]);
        } else {
            out.push(b);
        }
    }
}

unsafe extern "C-unwind" fn set_uri(l: *mut State) -> c_int {
    // SAFETY: called by Lua; the new URI is kept in the job before anything can raise.
    unsafe {
        let path = ffi::check_bytes(l, 1);
        let jump = ffi::lua_toboolean(l, 2) != 0;
        let job = api::job(l, WRITE);
        if path.is_empty() {
            ffi::arg_error(l, 1, c"attempt to use zero-length uri");
        }
        if jump && vm().phase() != phase::REWRITE && vm().phase() != phase::SERVER_REWRITE {
            ffi::error(l, b"API disabled in the current context");
        }
        let mut uri = std::mem::take(&mut job.uri);
        let query = split(&uri).1.map(<[u8]>::to_vec);
        uri.clear();
        encode_path(path, &mut uri);
        if let Some(query) = query {
            uri.push(b'?');
            uri.extend_from_slice(&query);
        }
        job.uri = uri;
        set_host_uri(l, job, jump);
        if jump {
            return budget::exit(l, Exit::Elsewhere);
        }
    }
    0
}

/// Hands the job's URI to the host.
unsafe fn set_host_uri(l: *mut State, job: &Job, jump: bool) {
    // SAFETY: `l` is the running coroutine.
    unsafe {
        vm().select();
        let failed = request::set_uri(&String::from_utf8_lossy(&job.uri), jump).is_err();
        if failed {
            ffi::error(l, b"the URI cannot be changed so, or not here");
        }
    }
}

unsafe extern "C-unwind" fn set_uri_args(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        if ffi::lua_type(l, 1) == ffi::TTABLE {
            ffi::push_ngx(l);
            ffi::lua_getfield(l, -1, c"encode_args".as_ptr());
            ffi::lua_pushvalue(l, 1);
            ffi::lua_callk(l, 1, 1, 0, None);
            ffi::lua_replace(l, 1);
        }
        let query = ffi::check_bytes(l, 1);
        let job = api::job(l, WRITE);
        let end = split(&job.uri).0.len();
        job.uri.truncate(end);
        if !query.is_empty() {
            job.uri.push(b'?');
            job.uri.extend_from_slice(query);
        }
        set_host_uri(l, job, false);
    }
    0
}

/// Calls `ngx.decode_args(text, max)` and returns what it returns.
pub(crate) unsafe fn decode_args(l: *mut State, text: &[u8], max: isize) -> c_int {
    // SAFETY: `l` is the running coroutine.
    unsafe {
        let top = ffi::lua_gettop(l);
        ffi::push_ngx(l);
        ffi::lua_getfield(l, -1, c"decode_args".as_ptr());
        ffi::lua_remove(l, -2);
        ffi::push_bytes(l, text);
        #[expect(clippy::cast_precision_loss, reason = "a count")]
        ffi::lua_pushnumber(l, max as f64);
        ffi::lua_callk(l, 2, ffi::MULTRET, 0, None);
        ffi::lua_gettop(l) - top
    }
}

unsafe extern "C-unwind" fn get_uri_args(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let max = ffi::opt_integer(l, 1, 100);
        let job = api::job(l, READ);
        let query = split(&job.uri).1.unwrap_or_default();
        decode_args(l, query, max)
    }
}

/// Opens `ngx.req`.
pub(crate) unsafe fn open(l: *mut State) {
    // SAFETY: called while the state is opened.
    unsafe {
        ffi::push_ngx(l);
        ffi::push_library(
            l,
            &[
                (c"get_method", get_method),
                (c"set_method", set_method),
                (c"get_headers", get_headers),
                (c"set_header", set_header),
                (c"add_header", add_header),
                (c"clear_header", clear_header),
                (c"http_version", http_version),
                (c"raw_header", raw_header),
                (c"start_time", start_time),
                (c"is_internal", is_internal),
                (c"set_uri", set_uri),
                (c"set_uri_args", set_uri_args),
                (c"get_uri_args", get_uri_args),
            ],
        );
        crate::api_body::register(l);
        ffi::lua_setfield(l, -2, c"req".as_ptr());
        ffi::pop(l, 1);
    }
}
