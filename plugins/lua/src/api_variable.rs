//! `ngx.var`: the usual ones from what the job knows, the others from the host.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::api;
use crate::api_request::{push_method, split};
use crate::bindings::phasor::plugin::variable::{self, VariableError};
use crate::ffi::{self, State};
use crate::phase;
use crate::vm::vm;
use std::ffi::c_int;

/// The value of an argument of the query, as it stands there.
fn argument<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    query.split(|b| *b == b'&').find_map(|pair| {
        let (key, rest) = pair.split_at_checked(name.len())?;
        let value = rest.strip_prefix(b"=")?;
        key.eq_ignore_ascii_case(name).then_some(value)
    })
}

unsafe extern "C-unwind" fn index(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        if ffi::lua_type(l, 2) == ffi::TNUMBER {
            ffi::lua_pushnil(l);
            return 1;
        }
        let name = ffi::check_bytes(l, 2);
        let job = api::job(l, phase::EXCHANGE);
        match name {
            b"uri" | b"document_uri" => {
                let path = split(&job.uri).0;
                // Only a plain path is the same decoded and normalised.
                if !path.contains(&b'%') && !path.windows(2).any(|w| w == b"//" || w == b"/.") {
                    ffi::push_bytes(l, path);
                    return 1;
                }
            }
            b"args" | b"query_string" => {
                match split(&job.uri).1 {
                    Some(query) if !query.is_empty() => ffi::push_bytes(l, query),
                    _ => ffi::lua_pushnil(l),
                }
                return 1;
            }
            b"is_args" => {
                let some = split(&job.uri).1.is_some_and(|q| !q.is_empty());
                ffi::push_bytes(l, if some { b"?" } else { b"" });
                return 1;
            }
            b"request_method" => {
                push_method(l, job);
                return 1;
            }
            _ => {
                if let Some(name) = name.strip_prefix(b"arg_") {
                    match argument(split(&job.uri).1.unwrap_or_default(), name) {
                        Some(value) => ffi::push_bytes(l, value),
                        None => ffi::lua_pushnil(l),
                    }
                    return 1;
                }
            }
        }
        vm().select();
        match variable::get(std::str::from_utf8(name).unwrap_or_default()) {
            Some(value) => crate::held::push(l, value),
            None => ffi::lua_pushnil(l),
        }
    }
    1
}

unsafe extern "C-unwind" fn newindex(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let name = ffi::check_bytes(l, 2);
        let value = match ffi::lua_type(l, 3) {
            ffi::TNIL => &b""[..],
            ffi::TSTRING | ffi::TNUMBER => ffi::check_bytes(l, 3),
            t => {
                ffi::luaL_where(l, 1);
                ffi::push_bytes(l, b"attempt to use a non-string value for variable \"");
                ffi::lua_pushvalue(l, 2);
                ffi::push_bytes(l, b"\": a ");
                ffi::lua_pushstring(l, ffi::lua_typename(l, t));
                ffi::lua_concat(l, 5);
                ffi::raise(l)
            }
        };
        let job = api::job(l, phase::EXCHANGE);
        vm().select();
        match variable::set(std::str::from_utf8(name).unwrap_or_default(), value) {
            Ok(()) => {
                if matches!(name, b"args" | b"query_string") {
                    let end = split(&job.uri).0.len();
                    job.uri.truncate(end);
                    if !value.is_empty() {
                        job.uri.push(b'?');
                        job.uri.extend_from_slice(value);
                    }
                }
                0
            }
            Err(e) => {
                let text: &[u8] = match e {
                    VariableError::Unknown => b"\" not found for writing; maybe it is a built-in variable that is not changeable or you forgot to use \"set\" on the route to define it first",
                    VariableError::ReadOnly => b"\" not changeable",
                };
                ffi::luaL_where(l, 1);
                ffi::push_bytes(l, b"variable \"");
                ffi::lua_pushvalue(l, 2);
                ffi::push_bytes(l, text);
                ffi::lua_concat(l, 4);
                ffi::raise(l)
            }
        }
    }
}

/// Opens `ngx.var`.
pub(crate) unsafe fn open(l: *mut State) {
    // SAFETY: called while the state is opened.
    unsafe {
        ffi::push_ngx(l);
        ffi::lua_createtable(l, 0, 0);
        ffi::push_library(l, &[(c"__index", index), (c"__newindex", newindex)]);
        ffi::lua_setmetatable(l, -2);
        ffi::lua_setfield(l, -2, c"var".as_ptr());
        ffi::pop(l, 1);
    }
}
