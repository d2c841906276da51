//! `phasor.http`: requests to HTTP services by the host's own client. Each call begins an operation
//! and waits as any other call does; what Lua code sees is in `lib_http.lua`.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::api;
use crate::api_redis::{strings, total_of};
use crate::bindings::phasor::plugin::http_client::{
    self, Body, ClientError, Outgoing, Streaming, Upload,
};
use crate::ffi::{self, State};
use crate::held::{self, hold};
use crate::phase;
use crate::vm::vm;
use crate::wait::{end_with, taken};
use std::ffi::{CStr, c_int};

const BODY: &CStr = c"phasor.http.body";
const UPLOAD: &CStr = c"phasor.http.upload";

unsafe fn failed(l: *mut State, error: &ClientError) -> c_int {
    let text = match error {
        ClientError::Timeout => "timeout".to_owned(),
        ClientError::Refused(text)
        | ClientError::Invalid(text)
        | ClientError::Connect(text)
        | ClientError::Protocol(text) => text.clone(),
        ClientError::TooLarge(limit) => format!("the body is longer than {limit} bytes"),
    };
    // SAFETY: called by Lua; the text is held.
    unsafe { ffi::nil_error(l, hold(text).value().as_bytes()) }
}

/// A resource of the host's as a userdata, dropped when nobody has it any more.
unsafe fn push_resource<T>(l: *mut State, value: T, name: &CStr, gc: ffi::CFunction) {
    // SAFETY: the memory is as large as the value, and written before use.
    unsafe {
        let place: *mut Option<T> = ffi::lua_newuserdata(l, size_of::<Option<T>>()).cast();
        place.write(Some(value));
        if ffi::luaL_newmetatable(l, name.as_ptr()) != 0 {
            ffi::register(l, &[(c"__gc", gc)]);
        }
        ffi::lua_setmetatable(l, -2);
    }
}

unsafe extern "C-unwind" fn drop_body(l: *mut State) -> c_int {
    // SAFETY: called by Lua's collector, or with a userdata that was checked.
    unsafe {
        let place: *mut Option<Body> = ffi::luaL_checkudata(l, 1, BODY.as_ptr()).cast();
        drop((*place).take());
    }
    0
}

unsafe extern "C-unwind" fn drop_upload(l: *mut State) -> c_int {
    // SAFETY: called by Lua's collector, or with a userdata that was checked.
    unsafe {
        let place: *mut Option<Upload> = ffi::luaL_checkudata(l, 1, UPLOAD.as_ptr()).cast();
        drop((*place).take());
    }
    0
}

/// Names and values one after the other, as `lib_http.lua` orders them.
unsafe fn push_headers(l: *mut State, headers: &[(String, Vec<u8>)]) {
    // SAFETY: called by Lua.
    unsafe {
        let length = c_int::try_from(headers.len() * 2).unwrap_or(c_int::MAX);
        ffi::lua_createtable(l, length, 0);
        for (place, (name, value)) in (1..).step_by(2).zip(headers) {
            ffi::push_bytes(l, name.as_bytes());
            ffi::lua_rawseti(l, -2, place);
            ffi::push_bytes(l, value);
            ffi::lua_rawseti(l, -2, place + 1);
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of Lua are doubles; what is too large becomes the largest"
)]
unsafe fn number(l: *mut State, idx: c_int) -> u64 {
    // SAFETY: called by Lua; what is no number is 0.
    unsafe { ffi::lua_tonumberx(l, idx, std::ptr::null_mut()).max(0.0) as u64 }
}

unsafe fn milliseconds(l: *mut State, idx: c_int) -> u32 {
    // SAFETY: called by Lua.
    u32::try_from(unsafe { number(l, idx) }).unwrap_or(u32::MAX)
}

/// Gives `send` the request in `(method, url, headers, body, timeout, limit)`; `None` when the headers
/// are no list of strings.
unsafe fn outgoing<T>(l: *mut State, send: impl FnOnce(&Outgoing) -> T) -> Option<T> {
    // SAFETY: called by Lua; the arguments stay on the stack.
    unsafe {
        let headers = strings(l, 3)?;
        let text = |idx| String::from_utf8_lossy(ffi::check_bytes(l, idx)).into_owned();
        let mut words = headers.into_iter();
        let pairs = std::iter::from_fn(|| Some((words.next()?, words.next()?)));
        let headers = pairs
            .map(|(name, value)| (String::from_utf8_lossy(&name).into_owned(), value))
            .collect();
        Some(send(&Outgoing {
            method: text(1),
            url: text(2),
            headers,
            body: ffi::check_bytes(l, 4).to_vec(),
            timeout: milliseconds(l, 5),
            limit: number(l, 6),
        }))
    }
}

/// Demands the phase and the types, before anything is alive that an error would leave behind.
unsafe fn check_request(l: *mut State) {
    // SAFETY: called by Lua.
    unsafe {
        api::check_phase(l, phase::WAIT);
        for idx in [1, 2, 4] {
            ffi::check_bytes(l, idx);
        }
        ffi::luaL_checktype(l, 3, ffi::TTABLE);
        crate::alloc::demand(l, total_of(l, 3, false) + ffi::lua_rawlen(l, 4));
        vm().select();
    }
}

unsafe fn bad_headers(l: *mut State) -> ! {
    // SAFETY: nothing with a destructor is alive here.
    unsafe { ffi::arg_error(l, 3, c"headers are strings and numbers") }
}

/// `fetch(method, url, headers, body, timeout, limit)`.
unsafe extern "C-unwind" fn fetch(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        check_request(l);
        match outgoing(l, http_client::begin_fetch) {
            Some(operation) => end_with(l, operation, fetched),
            None => bad_headers(l),
        }
    }
}

/// Status, headers, body.
unsafe extern "C-unwind" fn fetched(l: *mut State) -> c_int {
    // SAFETY: called by Lua as the continuation of `wait`.
    unsafe {
        let Some(operation) = taken(l) else { return 0 };
        match hold(http_client::end_fetch(operation)).value() {
            Ok(answer) => {
                ffi::lua_pushnumber(l, f64::from(answer.status));
                push_headers(l, &answer.headers);
                ffi::push_bytes(l, &answer.body);
                3
            }
            Err(error) => failed(l, error),
        }
    }
}

/// `open(method, url, headers, body, timeout)`.
unsafe extern "C-unwind" fn open_request(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        check_request(l);
        match outgoing(l, http_client::begin_open) {
            Some(operation) => end_with(l, operation, opened),
            None => bad_headers(l),
        }
    }
}

/// Status, headers, and the body to read from.
unsafe fn push_streaming(l: *mut State, answer: Result<Streaming, ClientError>) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        match answer {
            Ok(answer) => {
                ffi::lua_pushnumber(l, f64::from(answer.status));
                push_headers(l, hold(answer.headers).value());
                push_resource(l, answer.body, BODY, drop_body);
                3
            }
            Err(error) => failed(l, &error),
        }
    }
}

unsafe extern "C-unwind" fn opened(l: *mut State) -> c_int {
    // SAFETY: called by Lua as the continuation of `wait`.
    unsafe {
        let Some(operation) = taken(l) else { return 0 };
        push_streaming(l, http_client::end_open(operation))
    }
}

/// `read(body, timeout)`.
unsafe extern "C-unwind" fn read(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        api::check_phase(l, phase::WAIT);
        let place: *mut Option<Body> = ffi::luaL_checkudata(l, 1, BODY.as_ptr()).cast();
        vm().select();
        let Some(body) = &*place else {
            return ffi::nil_error(l, b"closed");
        };
        end_with(l, body.begin_read(milliseconds(l, 2)), was_read)
    }
}

/// A piece; nothing at the end.
unsafe extern "C-unwind" fn was_read(l: *mut State) -> c_int {
    // SAFETY: called by Lua as the continuation of `wait`.
    unsafe {
        let Some(operation) = taken(l) else { return 0 };
        match Body::end_read(operation) {
            Ok(Some(piece)) => held::push(l, piece),
            Ok(None) => ffi::lua_pushnil(l),
            Err(error) => return failed(l, &error),
        }
        1
    }
}

/// `upload(method, url, headers, first piece)`.
unsafe extern "C-unwind" fn upload(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        check_request(l);
        match outgoing(l, Upload::begin) {
            Some(Ok(upload)) => {
                push_resource(l, upload, UPLOAD, drop_upload);
                1
            }
            Some(Err(error)) => failed(l, &error),
            None => bad_headers(l),
        }
    }
}

/// `write(upload, piece, timeout)`.
unsafe extern "C-unwind" fn write(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        api::check_phase(l, phase::WAIT);
        let place: *mut Option<Upload> = ffi::luaL_checkudata(l, 1, UPLOAD.as_ptr()).cast();
        let piece = ffi::check_bytes(l, 2);
        vm().select();
        let Some(upload) = &*place else {
            return ffi::nil_error(l, b"closed");
        };
        end_with(l, upload.begin_write(piece, milliseconds(l, 3)), written)
    }
}

unsafe extern "C-unwind" fn written(l: *mut State) -> c_int {
    // SAFETY: called by Lua as the continuation of `wait`.
    unsafe {
        let Some(operation) = taken(l) else { return 0 };
        match Upload::end_write(operation) {
            Ok(more) => {
                ffi::lua_pushboolean(l, c_int::from(more));
                1
            }
            Err(error) => failed(l, &error),
        }
    }
}

/// `finish(upload, timeout)`.
unsafe extern "C-unwind" fn finish(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        api::check_phase(l, phase::WAIT);
        let place: *mut Option<Upload> = ffi::luaL_checkudata(l, 1, UPLOAD.as_ptr()).cast();
        vm().select();
        let Some(upload) = (*place).take() else {
            return ffi::nil_error(l, b"closed");
        };
        let operation = upload.begin_finish(milliseconds(l, 2));
        drop(upload);
        end_with(l, operation, finished)
    }
}

unsafe extern "C-unwind" fn finished(l: *mut State) -> c_int {
    // SAFETY: called by Lua as the continuation of `wait`.
    unsafe {
        let Some(operation) = taken(l) else { return 0 };
        push_streaming(l, Upload::end_finish(operation))
    }
}

unsafe extern "C-unwind" fn module(l: *mut State) -> c_int {
    // SAFETY: called by `require`.
    unsafe {
        ffi::lua_settop(l, 0);
        ffi::push_library(
            l,
            &[
                (c"fetch", fetch),
                (c"open", open_request),
                (c"read", read),
                (c"close", drop_body),
                (c"upload", upload),
                (c"write", write),
                (c"finish", finish),
            ],
        );
        crate::lib_scratch::run(l, include_str!("lib_http.lua"), c"=phasor.http", 1, 1);
    }
    1
}

/// Makes the module load on its first `require`.
pub(crate) unsafe fn open(l: *mut State) {
    // SAFETY: called protected, while the state is opened.
    unsafe { ffi::set_preload(l, c"phasor.http", module) }
}
