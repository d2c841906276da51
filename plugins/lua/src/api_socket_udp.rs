//! `ngx.socket.udp`: datagrams with one peer. As with `tcp`, a socket is a table whose first element is
//! the real thing.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::api;
use crate::api_socket::{owner, text};
use crate::api_socket_options::{address, arguments, bad_port};
use crate::api_socket_value::flatten_argument;
use crate::bindings::phasor::plugin::cosocket::{Datagram, Receiving, SocketError};
use crate::bindings::phasor::plugin::operation::Operation;
use crate::ffi::{self, CFunction, State};
use crate::phase;
use crate::vm::vm;
use crate::wait;
use std::ffi::{CStr, c_int};

const METATABLE: &CStr = c"phasor.udp_socket";
const METHODS: &CStr = c"phasor.udp_socket.methods";
/// The longest datagram that `receive` gives, as in ngx_lua.
const LONGEST: u32 = 8192;

struct Socket {
    host: Option<Datagram>,
    /// A `setpeername` under way.
    naming: Option<Operation>,
    receiving: Option<Operation>,
    local: Option<String>,
    timeout: u32,
    owner: u64,
}

impl Socket {
    fn is_busy(&self) -> bool {
        self.naming.is_some() || self.receiving.is_some()
    }
}

unsafe fn socket(l: *mut State) -> &'static mut Socket {
    // SAFETY: the userdata is kept by its table.
    unsafe {
        ffi::luaL_checktype(l, 1, ffi::TTABLE);
        ffi::lua_rawgeti(l, 1, 1);
        let place: *mut Socket = ffi::luaL_testudata(l, -1, METATABLE.as_ptr()).cast();
        ffi::pop(l, 1);
        if place.is_null() {
            ffi::arg_error(l, 1, c"no socket")
        }
        if (*place).owner != owner() {
            ffi::error(l, b"bad request")
        }
        &mut *place
    }
}

unsafe extern "C-unwind" fn collect(l: *mut State) -> c_int {
    // SAFETY: called by Lua's collector, once.
    unsafe { std::ptr::drop_in_place(ffi::lua_touserdata(l, 1).cast::<Socket>()) };
    0
}

unsafe extern "C-unwind" fn udp(l: *mut State) -> c_int {
    // SAFETY: the memory is written before it gets its metatable.
    unsafe {
        api::check_phase(l, phase::WAIT);
        ffi::lua_createtable(l, 1, 0);
        let place: *mut Socket = ffi::lua_newuserdata(l, size_of::<Socket>()).cast();
        place.write(Socket {
            host: None,
            naming: None,
            receiving: None,
            local: None,
            timeout: vm().program.cosocket.read_ms,
            owner: owner(),
        });
        if ffi::luaL_newmetatable(l, METATABLE.as_ptr()) != 0 {
            ffi::register(l, &[(c"__gc", collect)]);
        }
        ffi::lua_setmetatable(l, -2);
        ffi::lua_rawseti(l, -2, 1);
        ffi::luaL_getsubtable(l, ffi::REGISTRY, METHODS.as_ptr());
        ffi::lua_setmetatable(l, -2);
    }
    1
}

unsafe extern "C-unwind" fn setpeername(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        arguments(
            l,
            2..=3,
            "ngx.socket.udp setpeername: expecting 2 or 3 arguments (including the object), but seen",
        );
        let n = ffi::lua_gettop(l);
        let s = socket(l);
        let host = ffi::check_bytes(l, 2);
        let port = if n == 3 {
            ffi::luaL_checkinteger(l, 3)
        } else {
            0
        };
        if s.is_busy() {
            return ffi::nil_error(l, b"socket busy");
        }
        let Ok(port) = u16::try_from(port) else {
            return bad_port(l, port);
        };
        s.host = None;
        let host = String::from_utf8_lossy(host).into_owned();
        vm().select();
        let operation = Datagram::begin_connect(&host, port, s.local.as_deref(), s.timeout);
        drop(host);
        let operation = s.naming.insert(operation);
        wait::operation(l, operation, named)
    }
}

unsafe extern "C-unwind" fn named(l: *mut State) -> c_int {
    // SAFETY: the continuation of `setpeername`.
    unsafe {
        let s = socket(l);
        let Some(operation) = s.naming.take() else {
            return ffi::nil_error(l, b"closed");
        };
        // The socket becomes this exchange's.
        vm().select();
        match Datagram::end_connect(operation) {
            Ok(host) => s.host = Some(host),
            Err(e) => return ffi::nil_error(l, &text(e, "socket busy")),
        }
        ffi::lua_pushnumber(l, 1.0);
    }
    1
}

unsafe extern "C-unwind" fn bind(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let s = socket(l);
        match address(l, 2) {
            Some(address) => s.local = Some(address),
            None => return ffi::nil_error(l, b"bad address"),
        }
        ffi::lua_pushboolean(l, 1);
    }
    1
}

unsafe extern "C-unwind" fn send(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        arguments(
            l,
            2..=2,
            "expecting 2 arguments (including the object), but got",
        );
        let s = socket(l);
        if s.host.is_none() {
            return ffi::nil_error(l, b"closed");
        }
        if s.is_busy() {
            return ffi::nil_error(l, b"socket busy");
        }
        let bytes = flatten_argument(l);
        let Some(host) = &s.host else {
            return ffi::nil_error(l, b"closed");
        };
        let result = host.send(&bytes);
        drop(bytes);
        if let Err(e) = result {
            return ffi::nil_error(l, &text(e, "socket busy"));
        }
        ffi::lua_pushnumber(l, 1.0);
    }
    1
}

unsafe extern "C-unwind" fn receive(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        arguments(
            l,
            1..=2,
            "expecting 1 or 2 arguments (including the object), but got",
        );
        let n = ffi::lua_gettop(l);
        let s = socket(l);
        let asked = if n == 2 {
            ffi::luaL_checkinteger(l, 2)
        } else {
            0
        };
        let size = match u32::try_from(asked) {
            Ok(size) if size > 0 => size.min(LONGEST),
            _ => LONGEST,
        };
        if s.is_busy() {
            return ffi::nil_error(l, b"socket busy");
        }
        let Some(host) = &s.host else {
            return ffi::nil_error(l, b"closed");
        };
        match host.begin_receive(size, s.timeout) {
            Receiving::Now(result) => push(l, result),
            Receiving::Later(operation) => {
                let operation = s.receiving.insert(operation);
                wait::begun(l, operation, received)
            }
        }
    }
}

unsafe extern "C-unwind" fn received(l: *mut State) -> c_int {
    // SAFETY: the continuation of `receive`.
    unsafe {
        let s = socket(l);
        match s.receiving.take() {
            Some(operation) => push(l, Datagram::end_receive(operation)),
            None => ffi::nil_error(l, b"closed"),
        }
    }
}

unsafe fn push(l: *mut State, result: Result<Vec<u8>, SocketError>) -> c_int {
    // SAFETY: pushes the results.
    unsafe {
        match result {
            Ok(bytes) => {
                crate::held::push(l, bytes);
                1
            }
            Err(e) => ffi::nil_error(l, &text(e, "socket busy")),
        }
    }
}

unsafe extern "C-unwind" fn close(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        arguments(
            l,
            1..=1,
            "expecting 1 argument (including the object) but seen",
        );
        let s = socket(l);
        if s.host.is_none() {
            return ffi::nil_error(l, b"closed");
        }
        if s.is_busy() {
            return ffi::nil_error(l, b"socket busy");
        }
        s.host = None;
        ffi::lua_pushnumber(l, 1.0);
    }
    1
}

unsafe extern "C-unwind" fn settimeout(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let s = socket(l);
        s.timeout = crate::api_socket::time(l, 2, vm().program.cosocket.read_ms);
    }
    0
}

/// Adds `udp` to the table on the top, `ngx.socket`.
pub(crate) unsafe fn open(l: *mut State) {
    let methods: [(&CStr, CFunction); 6] = [
        (c"setpeername", setpeername),
        (c"bind", bind),
        (c"send", send),
        (c"receive", receive),
        (c"close", close),
        (c"settimeout", settimeout),
    ];
    // SAFETY: called while the libraries are opened.
    unsafe {
        ffi::luaL_getsubtable(l, ffi::REGISTRY, METHODS.as_ptr());
        ffi::register(l, &methods);
        ffi::lua_pushvalue(l, -1);
        ffi::lua_setfield(l, -2, c"__index".as_ptr());
        ffi::pop(l, 1);
        ffi::register(l, &[(c"udp", udp)]);
    }
}
