//! The request's body: `ngx.req.read_body` and what works on what it read.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::api;
use crate::bindings::phasor::plugin::{operation::Operation, request};
use crate::ffi::{self, State};
use crate::job::Job;
use crate::phase;
use crate::vm::vm;
use crate::wait;
use std::ffi::c_int;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::Relaxed;

const READ: phase::Set = phase::ANSWER;
const GET: phase::Set = phase::ANSWER | phase::set(phase::LOG);

/// Where the registry keeps the metatable of operations.
static OPERATION: AtomicI32 = AtomicI32::new(0);

/// Keeps the operation of a wait alive as a userdata, so that it is dropped whatever happens.
pub(crate) unsafe fn push_operation(l: *mut State, operation: Operation) -> *mut Option<Operation> {
    // SAFETY: the memory is as large as the value, and written before use.
    unsafe {
        let place: *mut Option<Operation> =
            ffi::lua_newuserdata(l, size_of::<Option<Operation>>()).cast();
        place.write(Some(operation));
        if OPERATION.load(Relaxed) == 0 {
            ffi::lua_createtable(l, 0, 1);
            ffi::register(l, &[(c"__gc", drop_operation)]);
            OPERATION.store(ffi::reference(l), Relaxed);
        }
        ffi::push_reference(l, OPERATION.load(Relaxed));
        ffi::lua_setmetatable(l, -2);
        place
    }
}

unsafe extern "C-unwind" fn drop_operation(l: *mut State) -> c_int {
    // SAFETY: called by Lua's collector.
    unsafe {
        let place: *mut Option<Operation> = ffi::lua_touserdata(l, 1).cast();
        drop((*place).take());
    }
    0
}

unsafe extern "C-unwind" fn read_body(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let job = api::job(l, READ);
        if job.body.is_some() {
            return 0;
        }
        ffi::lua_settop(l, 0);
        vm().select();
        let place = push_operation(l, request::begin_read_body(0));
        match &*place {
            Some(operation) => wait::operation(l, operation, body_read),
            None => 0,
        }
    }
}

unsafe extern "C-unwind" fn body_read(l: *mut State) -> c_int {
    // SAFETY: called by Lua as the continuation of `read_body`.
    unsafe {
        let place: *mut Option<Operation> = ffi::lua_touserdata(l, 1).cast();
        let Some(job) = vm().current_job() else {
            return 0;
        };
        let Some(operation) = (*place).take() else {
            return 0;
        };
        vm().select();
        let failure = match request::end_read_body(operation) {
            Ok(body) => {
                job.body = Some(body);
                return 0;
            }
            Err(e) => e,
        };
        match failure {
            request::BodyError::TooLarge => crate::budget::exit(l, crate::job::Exit::Code(413)),
            request::BodyError::Timeout => ffi::error(l, b"reading the request body timed out"),
            request::BodyError::Closed => {
                ffi::error(l, b"client closed the connection prematurely")
            }
            request::BodyError::Taken => ffi::error(l, b"the request body has been read elsewhere"),
        }
    }
}

unsafe extern "C-unwind" fn get_body_data(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let max = ffi::opt_integer(l, 1, 0);
        let job = api::job(l, GET);
        match &job.body {
            Some(body) if !body.is_empty() => {
                let n = usize::try_from(max)
                    .ok()
                    .filter(|n| *n > 0)
                    .unwrap_or(body.len());
                ffi::push_bytes(l, &body[..n.min(body.len())]);
            }
            _ => ffi::lua_pushnil(l),
        }
    }
    1
}

/// Bodies are kept in memory (`body_limit`), never in a file.
unsafe extern "C-unwind" fn get_body_file(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        api::job(l, GET);
        ffi::lua_pushnil(l);
    }
    1
}

unsafe fn set_body(l: *mut State, job: &mut Job, body: Vec<u8>) {
    vm().select();
    let failed = request::set_body(&body).is_err();
    job.body = Some(body);
    if failed {
        // SAFETY: nothing with a destructor is left.
        unsafe { ffi::error(l, b"the request body cannot be replaced here") }
    }
}

unsafe extern "C-unwind" fn set_body_data(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let data = ffi::check_bytes(l, 1);
        let job = api::job(l, READ | phase::set(phase::BALANCER));
        crate::alloc::demand(l, data.len());
        set_body(l, job, data.to_vec());
    }
    0
}

/// Raises an error that ends with a number.
unsafe fn raise(l: *mut State, text: &str, number: impl std::fmt::Display) -> ! {
    // SAFETY: called by Lua; the text is gone before it raises.
    unsafe {
        ffi::luaL_where(l, 1);
        ffi::push_bytes(l, format!("{text}{number}").as_bytes());
        ffi::lua_concat(l, 2);
        ffi::raise(l)
    }
}

/// The size is how much nginx would keep in memory; here it is no more than checked.
unsafe extern "C-unwind" fn init_body(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let given = ffi::lua_gettop(l);
        if given > 1 {
            raise(l, "expecting 0 or 1 argument but seen ", given)
        }
        let job = api::job(l, READ | phase::set(phase::SET));
        if job.body.is_none() {
            ffi::error(l, b"request body not read yet")
        }
        let size = if given == 1 {
            ffi::luaL_checkinteger(l, 1)
        } else {
            0
        };
        if size < 0 {
            raise(l, "bad size argument: ", size)
        }
        job.body = Some(Vec::new());
    }
    0
}

unsafe extern "C-unwind" fn append_body(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let data = ffi::check_bytes(l, 1);
        let job = api::job(l, READ | phase::set(phase::SET));
        match &mut job.body {
            // Beside Lua's own memory, where a handler must not take the room of all others.
            Some(body) if body.len() + data.len() > vm().program.limits.memory / 16 => {
                ffi::error(l, b"not enough memory")
            }
            Some(body) => body.extend_from_slice(data),
            None => ffi::error(l, b"request body not initialized"),
        }
    }
    0
}

unsafe extern "C-unwind" fn finish_body(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let job = api::job(l, READ | phase::set(phase::SET));
        match job.body.take() {
            Some(body) => set_body(l, job, body),
            None => ffi::error(l, b"request body not initialized"),
        }
    }
    0
}

unsafe extern "C-unwind" fn get_post_args(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let max = ffi::opt_integer(l, 1, 100);
        let job = api::job(
            l,
            GET | phase::set(phase::HEADER_FILTER) | phase::set(phase::BODY_FILTER),
        );
        match &job.body {
            Some(body) => crate::api_request::decode_args(l, body, max),
            None => ffi::error(
                l,
                b"no request body found; maybe you should turn on lua_need_request_body?",
            ),
        }
    }
}

/// Adds these functions to the table on the top.
pub(crate) unsafe fn register(l: *mut State) {
    // SAFETY: `ngx.req` is on the top.
    unsafe {
        ffi::register(
            l,
            &[
                (c"read_body", read_body),
                (c"socket", crate::api_socket_request::socket),
                (c"discard_body", crate::api_body_read::discard_body),
                (c"get_body_data", get_body_data),
                (c"get_body_file", get_body_file),
                (c"set_body_data", set_body_data),
                (c"init_body", init_body),
                (c"append_body", append_body),
                (c"finish_body", finish_body),
                (c"get_post_args", get_post_args),
            ],
        );
    }
}
