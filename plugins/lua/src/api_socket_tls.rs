//! TLS of `ngx.socket.tcp`: `sslhandshake` and what it is given before.
//!
//! Certificates and keys are what `ngx.ssl` parses: tables with their PEM in `pem`; a PEM string does,
//! too. A session is a userdata that owns the host's.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::api_socket::{socket, text};
use crate::api_socket_options::arguments;
use crate::bindings::phasor::plugin::cosocket::{Stream, TlsIdentity, TlsOptions, TlsSession};
use crate::ffi::{self, State};
use crate::vm::vm;
use crate::wait;
use std::ffi::{CStr, c_int};

const SESSION: &CStr = c"phasor.tls_session";

/// What a socket believes and shows; `None` is the configuration's.
#[derive(Default)]
pub(crate) struct Given {
    identity: Option<(Vec<u8>, Vec<u8>)>,
    authorities: Option<Vec<u8>>,
}

/// The PEM of an argument: a string, or a table that `ngx.ssl` made. Pushes it, so that it lives.
unsafe fn pem(l: *mut State, arg: c_int) -> Option<&'static [u8]> {
    // SAFETY: called by Lua; the string stays on the stack.
    unsafe {
        match ffi::lua_type(l, arg) {
            ffi::TSTRING => ffi::lua_pushvalue(l, arg),
            ffi::TTABLE => ffi::lua_getfield(l, arg, c"pem".as_ptr()),
            _ => return None,
        }
        (ffi::lua_type(l, -1) == ffi::TSTRING)
            .then(|| ffi::to_bytes(l, -1))
            .flatten()
    }
}

unsafe fn type_name(l: *mut State, arg: c_int) -> &'static [u8] {
    // SAFETY: names of types are constants.
    unsafe {
        let name = ffi::lua_typename(l, ffi::lua_type(l, arg));
        CStr::from_ptr(name).to_bytes()
    }
}

unsafe fn bad(l: *mut State, what: &str, arg: c_int) -> c_int {
    // SAFETY: pushes the results.
    unsafe {
        let mut message = what.as_bytes().to_vec();
        message.extend_from_slice(type_name(l, arg));
        ffi::nil_error(l, &message)
    }
}

/// `sock:setclientcert(certificate, key)`.
unsafe extern "C-unwind" fn setclientcert(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let s = socket(l);
        ffi::lua_settop(l, 3);
        let given = [2, 3].map(|arg| ffi::lua_toboolean(l, arg) != 0);
        match given {
            [false, false] => s.tls.identity = None,
            [true, true] => {
                let Some(certificate) = pem(l, 2) else {
                    return bad(l, "bad cert arg: certificate expected, got ", 2);
                };
                let Some(key) = pem(l, 3) else {
                    return bad(l, "bad pkey arg: private key expected, got ", 3);
                };
                s.tls.identity = Some((certificate.to_vec(), key.to_vec()));
            }
            _ => {
                return ffi::nil_error(
                    l,
                    b"client certificate must be supplied with corresponding private key",
                );
            }
        }
        ffi::lua_pushboolean(l, 1);
    }
    1
}

/// `sock:settrustedstore(authorities)`.
unsafe extern "C-unwind" fn settrustedstore(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let s = socket(l);
        ffi::lua_settop(l, 2);
        if ffi::lua_toboolean(l, 2) == 0 {
            s.tls.authorities = None;
        } else {
            let Some(authorities) = pem(l, 2) else {
                return bad(l, "bad store arg: certificates expected, got ", 2);
            };
            s.tls.authorities = Some(authorities.to_vec());
        }
        ffi::lua_pushboolean(l, 1);
    }
    1
}

unsafe extern "C-unwind" fn collect(l: *mut State) -> c_int {
    // SAFETY: called by Lua's collector, once.
    unsafe { std::ptr::drop_in_place(ffi::lua_touserdata(l, 1).cast::<TlsSession>()) };
    0
}

unsafe fn push_session(l: *mut State, stream: &Stream) {
    // SAFETY: the memory is written before it gets its metatable, and is made before the host gives
    // anything that has to be dropped.
    unsafe {
        let place: *mut TlsSession = ffi::lua_newuserdata(l, size_of::<TlsSession>()).cast();
        if ffi::luaL_newmetatable(l, SESSION.as_ptr()) != 0 {
            ffi::register(l, &[(c"__gc", collect)]);
        }
        match stream.session() {
            Some(session) => {
                place.write(session);
                ffi::lua_setmetatable(l, -2);
            }
            None => {
                ffi::pop(l, 2);
                ffi::lua_pushnil(l);
            }
        }
    }
}

/// Whether the session is wanted back: not when the first argument is `false`.
unsafe fn wants_session(l: *mut State) -> bool {
    // SAFETY: called by Lua.
    unsafe { ffi::lua_type(l, 2) != ffi::TBOOLEAN || ffi::lua_toboolean(l, 2) != 0 }
}

/// `sock:sslhandshake(session, server_name, verify, send_status_req)`.
unsafe extern "C-unwind" fn sslhandshake(l: *mut State) -> c_int {
    // SAFETY: called by Lua; nothing with a destructor is alive where it may raise.
    unsafe {
        arguments(
            l,
            1..=5,
            "ngx.socket sslhandshake: expecting 1 ~ 5 arguments (including the object), but seen",
        );
        let s = socket(l);
        ffi::lua_settop(l, 4);
        let name = match ffi::lua_type(l, 3) {
            ffi::TNIL => None,
            _ => Some(ffi::check_bytes(l, 3)),
        };
        let session: *mut TlsSession = ffi::luaL_testudata(l, 2, SESSION.as_ptr()).cast();
        if let Some(busy) = s.busy() {
            return ffi::nil_error(l, busy);
        }
        let Some(stream) = &s.stream else {
            return ffi::nil_error(l, b"closed");
        };
        // What came before TLS is not to be taken for what comes through it.
        if s.at < s.buffer.len() {
            return ffi::nil_error(l, b"unread data in buffer");
        }
        let options = TlsOptions {
            timeout: s.connect_timeout,
            server_name: name.map(|name| String::from_utf8_lossy(name).into_owned()),
            verify: ffi::lua_toboolean(l, 4) != 0,
            authorities: s.tls.authorities.clone(),
            identity: s
                .tls
                .identity
                .clone()
                .map(|(certificate, key)| TlsIdentity { certificate, key }),
        };
        vm().select();
        let operation = stream.begin_handshake(&options, session.as_ref());
        drop(options);
        let operation = s.connecting.insert(operation);
        wait::operation(l, operation, shaken)
    }
}

unsafe extern "C-unwind" fn shaken(l: *mut State) -> c_int {
    // SAFETY: the continuation of `sslhandshake`.
    unsafe {
        let s = socket(l);
        let Some(operation) = s.connecting.take() else {
            return ffi::nil_error(l, b"closed");
        };
        vm().select();
        if let Err(e) = Stream::end_handshake(operation) {
            s.close();
            return ffi::nil_error(l, &text(e, "socket busy"));
        }
        match &s.stream {
            Some(stream) if wants_session(l) => push_session(l, stream),
            _ => ffi::lua_pushboolean(l, 1),
        }
    }
    1
}

/// `sock:getsslsession()`.
unsafe extern "C-unwind" fn getsslsession(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        match &socket(l).stream {
            Some(stream) => {
                push_session(l, stream);
                if ffi::lua_type(l, -1) == ffi::TNIL {
                    return ffi::nil_error(l, b"not in ssl mode");
                }
                1
            }
            None => ffi::nil_error(l, b"closed"),
        }
    }
}

/// `sock:getsslpointer()`, `sock:getsslctx()`: what OpenResty gives to C code through its FFI.
unsafe extern "C-unwind" fn no_pointer(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        socket(l);
        ffi::nil_error(
            l,
            b"not supported: a sandboxed plugin has no pointers to OpenSSL",
        )
    }
}

/// Adds the methods to the table on the top.
pub(crate) unsafe fn register(l: *mut State) {
    // SAFETY: the table of methods is on the top.
    unsafe {
        ffi::register(
            l,
            &[
                (c"sslhandshake", sslhandshake),
                (c"setclientcert", setclientcert),
                (c"settrustedstore", settrustedstore),
                (c"getsslsession", getsslsession),
                (c"getsslpointer", no_pointer),
                (c"getsslctx", no_pointer),
            ],
        );
    }
}
