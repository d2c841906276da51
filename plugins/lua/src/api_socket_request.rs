//! `ngx.req.socket`: the request's body as a socket, or the client's connection itself.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::api;
use crate::api_body::push_operation;
use crate::api_socket::{push, settimeout, settimeouts};
use crate::bindings::phasor::plugin::downstream::{self, DownstreamError};
use crate::bindings::phasor::plugin::operation::Operation;
use crate::ffi::{self, CFunction, State};
use crate::job::Job;
use crate::phase;
use crate::vm::vm;
use crate::wait;
use std::ffi::{CStr, c_int};
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::Relaxed;

/// Where the registry keeps the methods of the body's socket, and of the whole connection's.
static BODY: AtomicI32 = AtomicI32::new(0);
static RAW: AtomicI32 = AtomicI32::new(0);

/// HTTP/1.0 and HTTP/2 as the host numbers them.
const HTTP_10: u8 = 10;
const HTTP_2: u8 = 20;

fn text(error: DownstreamError) -> &'static [u8] {
    match error {
        DownstreamError::Taken => b"duplicate call",
        DownstreamError::NoBody => b"no body",
        DownstreamError::PendingBody => b"pending request body reading in some other thread",
        DownstreamError::PendingOutput => b"pending data to write",
        DownstreamError::NotOffered => b"not supported here",
        DownstreamError::Closed => b"closed",
    }
}

/// `ngx.req.socket(raw?)`.
pub(crate) unsafe extern "C-unwind" fn socket(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let count = ffi::lua_gettop(l);
        if count > 1 {
            let message = format!("expecting zero arguments, but got {count}");
            ffi::push_bytes(l, message.as_bytes());
            drop(message);
            ffi::raise(l);
        }
        let raw = ffi::lua_toboolean(l, 1) != 0;
        let job = api::job(l, phase::ANSWER);
        if job.inner {
            ffi::error(l, b"attempt to read the request body in a subrequest");
        }
        if job.version == HTTP_2 {
            ffi::error(l, b"http v2 not supported yet");
        }
        ffi::lua_settop(l, 0);
        if raw {
            connection(l, job)
        } else {
            body(l, job)
        }
    }
}

unsafe fn body(l: *mut State, job: &mut Job) -> c_int {
    // SAFETY: `l` is the running coroutine.
    unsafe {
        if job.body.is_some() || job.raw {
            return ffi::nil_error(l, b"request body already exists");
        }
        vm().select();
        match downstream::body() {
            Ok(stream) => push(l, Some(stream), BODY.load(Relaxed)),
            Err(DownstreamError::Taken) => {
                return ffi::nil_error(l, b"request body already exists");
            }
            Err(error) => return ffi::nil_error(l, text(error)),
        }
        // Nobody else reads it.
        job.body = Some(Vec::new());
    }
    1
}

unsafe fn connection(l: *mut State, job: &mut Job) -> c_int {
    // SAFETY: `l` is the running coroutine.
    unsafe {
        if job.raw {
            return ffi::nil_error(l, b"duplicate call");
        }
        if job.version == HTTP_10 && job.said {
            return ffi::nil_error(l, b"http 1.0 buffering");
        }
        if !job.said || job.head_sent && job.out.is_empty() {
            return take(l);
        }
        // For Lua it has been sent: it must have left before the connection does.
        if !wait::can_wait(l) {
            return ffi::nil_error(l, b"pending data to write");
        }
        ffi::lua_pushcclosure(l, crate::api_output::flush, 0);
        ffi::lua_pushboolean(l, 1);
        ffi::lua_callk(l, 1, 2, 0, Some(flushed));
        flushed(l)
    }
}

unsafe extern "C-unwind" fn flushed(l: *mut State) -> c_int {
    // SAFETY: called by Lua as the continuation of `connection`.
    unsafe {
        ffi::lua_settop(l, 0);
        take(l)
    }
}

unsafe fn take(l: *mut State) -> c_int {
    // SAFETY: the operation lives in a userdata, at index 1.
    unsafe {
        vm().select();
        let place = push_operation(l, downstream::begin_take());
        match &*place {
            Some(operation) => wait::operation(l, operation, taken),
            None => 0,
        }
    }
}

unsafe extern "C-unwind" fn taken(l: *mut State) -> c_int {
    // SAFETY: called by Lua as the continuation of `take`.
    unsafe {
        let place: *mut Option<Operation> = ffi::lua_touserdata(l, 1).cast();
        let (Some(operation), Some(job)) = ((*place).take(), vm().current_job()) else {
            return ffi::nil_error(l, b"closed");
        };
        vm().select();
        match downstream::end_take(operation) {
            Ok(stream) => push(l, Some(stream), RAW.load(Relaxed)),
            Err(error) => return ffi::nil_error(l, text(error)),
        }
        job.raw = true;
        job.said = true;
        job.head_sent = true;
        job.body_ended = true;
        job.body.get_or_insert_default();
    }
    1
}

/// Makes the tables of methods.
pub(crate) unsafe fn open(l: *mut State) {
    let methods: [(&CStr, CFunction); 3] = [
        (c"settimeout", settimeout),
        (c"settimeouts", settimeouts),
        (c"send", crate::api_socket_io::send),
    ];
    // SAFETY: called while the libraries are opened.
    unsafe {
        for (at, methods) in [(&BODY, &methods[..2]), (&RAW, &methods[..])] {
            ffi::lua_createtable(l, 0, 8);
            ffi::register(l, methods);
            crate::api_socket_io::register(l);
            ffi::lua_pushvalue(l, -1);
            ffi::lua_setfield(l, -2, c"__index".as_ptr());
            at.store(ffi::reference(l), Relaxed);
        }
    }
}
