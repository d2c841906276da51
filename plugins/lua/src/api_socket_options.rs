//! What sockets are told: arguments and how many there are, the options of `connect`, and those of the
//! system's sockets. The messages are ngx_lua's.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::api_socket::{Socket, socket, text};
use crate::bindings::phasor::plugin::cosocket::{ConnectOptions, StreamOption};
use crate::ffi::{self, State};
use std::ffi::{CStr, c_int};
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// Raises when there are more or fewer arguments.
pub(crate) unsafe fn arguments(l: *mut State, allowed: RangeInclusive<c_int>, message: &str) {
    // SAFETY: called by Lua; the message is dropped before it raises.
    unsafe {
        let n = ffi::lua_gettop(l);
        if !allowed.contains(&n) {
            let message = format!("{message} {n}");
            ffi::luaL_where(l, 1);
            ffi::push_bytes(l, message.as_bytes());
            drop(message);
            ffi::lua_concat(l, 2);
            ffi::raise(l)
        }
    }
}

/// Raises what ngx_lua says of a bad option.
unsafe fn bad_option(l: *mut State, index: c_int, name: &CStr, what: &str) -> ! {
    // SAFETY: the message lies on Lua's stack before it is raised.
    unsafe {
        let message = format!("bad \"{}\" option {what}", name.to_string_lossy());
        ffi::push_bytes(l, message.as_bytes());
        drop(message);
        let text = ffi::lua_tolstring(l, -1, std::ptr::null_mut());
        ffi::luaL_argerror(l, index, text);
        ffi::raise(l)
    }
}

/// A number of a field of the options table at `index`, at least `least`.
unsafe fn number_field(l: *mut State, index: c_int, name: &CStr, least: isize) -> Option<u32> {
    // SAFETY: a table lies at `index`; what has a destructor is dropped before it raises.
    unsafe {
        ffi::lua_getfield(l, index, name.as_ptr());
        let kind = ffi::lua_type(l, -1);
        let value = ffi::lua_tointegerx(l, -1, std::ptr::null_mut());
        ffi::pop(l, 1);
        match kind {
            ffi::TNUMBER if value >= least => Some(u32::try_from(value).unwrap_or(u32::MAX)),
            ffi::TNUMBER => {
                let what = format!("value: {value}");
                let what = leak_to_stack(l, what);
                bad_option(l, index, name, what)
            }
            ffi::TNIL => None,
            _ => {
                let what = format!("type: {}", type_name(l, kind));
                let what = leak_to_stack(l, what);
                bad_option(l, index, name, what)
            }
        }
    }
}

fn type_name(l: *mut State, kind: c_int) -> &'static str {
    // SAFETY: names of types are constants.
    let name = unsafe { CStr::from_ptr(ffi::lua_typename(l, kind)) };
    name.to_str().unwrap_or("value")
}

/// A text that lives as long as Lua's stack: an error that is raised runs no destructors.
unsafe fn leak_to_stack(l: *mut State, text: String) -> &'static str {
    // SAFETY: the string stays on the stack until the error has left it.
    unsafe {
        ffi::push_bytes(l, text.as_bytes());
        drop(text);
        std::str::from_utf8_unchecked(ffi::to_bytes(l, -1).unwrap_or_default())
    }
}

/// Checks the options first: what raises must not leave anything behind.
pub(crate) unsafe fn options(l: *mut State, index: c_int, s: &Socket) -> ConnectOptions {
    let mut options = ConnectOptions {
        timeout: s.connect_timeout,
        pool: None,
        pool_size: 0,
        backlog: None,
        local: None,
    };
    // SAFETY: reads a table's fields.
    unsafe {
        if ffi::lua_type(l, index) == ffi::TTABLE {
            options.pool_size = number_field(l, index, c"pool_size", 1).unwrap_or(0);
            options.backlog = number_field(l, index, c"backlog", 0);
            ffi::lua_getfield(l, index, c"pool".as_ptr());
            let kind = ffi::lua_type(l, -1);
            if !matches!(kind, ffi::TNIL | ffi::TSTRING | ffi::TNUMBER) {
                let what = leak_to_stack(l, format!("type: {}", type_name(l, kind)));
                bad_option(l, index, c"pool", what)
            }
            options.pool = ffi::to_bytes(l, -1).map(|b| String::from_utf8_lossy(b).into_owned());
            ffi::pop(l, 1);
        }
    }
    options.local.clone_from(&s.local);
    options
}

/// `nil` and that the port is none.
pub(crate) unsafe fn bad_port(l: *mut State, port: isize) -> c_int {
    // SAFETY: pushes the results.
    unsafe { ffi::nil_error(l, format!("bad port number: {port}").as_bytes()) }
}

/// The IP address in an argument.
pub(crate) unsafe fn address(l: *mut State, arg: c_int) -> Option<String> {
    // SAFETY: called by Lua.
    let text = unsafe { std::str::from_utf8(ffi::check_bytes(l, arg)).ok()? };
    let address = text.parse::<IpAddr>().ok()?;
    Some(address.to_string())
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

/// A socket is the host's: no number of this side would name it.
unsafe extern "C-unwind" fn getfd(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        socket(l);
        ffi::nil_error(
            l,
            b"not supported: a sandboxed plugin has no file descriptors",
        )
    }
}

/// The option in argument 2, or nil and an error on the stack.
unsafe fn option(l: *mut State) -> Option<StreamOption> {
    // SAFETY: called by Lua.
    unsafe {
        if ffi::lua_type(l, 2) <= ffi::TNIL {
            ffi::nil_error(l, b"missing the \"option\" argument");
            return None;
        }
        let mut length = 0;
        ffi::luaL_tolstring(l, 2, &raw mut length);
        let name = ffi::to_bytes(l, -1).unwrap_or_default();
        Some(match name {
            b"keepalive" => StreamOption::Keepalive,
            b"reuseaddr" => StreamOption::Reuseaddr,
            b"tcp-nodelay" => StreamOption::TcpNodelay,
            b"sndbuf" => StreamOption::Sndbuf,
            b"rcvbuf" => StreamOption::Rcvbuf,
            _ => {
                ffi::nil_error(l, &[b"unsupported option ", name].concat());
                return None;
            }
        })
    }
}

unsafe extern "C-unwind" fn setoption(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let s = socket(l);
        ffi::lua_settop(l, 3);
        if ffi::lua_type(l, 2) != ffi::TNIL && ffi::lua_type(l, 3) == ffi::TNIL {
            return ffi::nil_error(l, b"missing the \"value\" argument");
        }
        let Some(option) = option(l) else {
            return 2;
        };
        let value = if ffi::lua_type(l, 3) == ffi::TBOOLEAN {
            u32::from(ffi::lua_toboolean(l, 3) != 0)
        } else {
            u32::try_from(ffi::luaL_checkinteger(l, 3)).unwrap_or(0)
        };
        let Some(stream) = &s.stream else {
            return ffi::nil_error(l, b"closed");
        };
        if let Err(e) = stream.set_option(option, value) {
            return ffi::nil_error(l, &text(e, ""));
        }
        ffi::lua_pushboolean(l, 1);
    }
    1
}

unsafe extern "C-unwind" fn getoption(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let s = socket(l);
        ffi::lua_settop(l, 2);
        let Some(option) = option(l) else {
            return 2;
        };
        let Some(stream) = &s.stream else {
            return ffi::nil_error(l, b"closed");
        };
        match stream.get_option(option) {
            Ok(value) => ffi::lua_pushnumber(l, f64::from(value)),
            Err(e) => return ffi::nil_error(l, &text(e, "")),
        }
    }
    1
}

/// Adds the methods to the table on the top.
pub(crate) unsafe fn register(l: *mut State) {
    // SAFETY: the table of methods is on the top.
    unsafe {
        ffi::register(
            l,
            &[
                (c"setoption", setoption),
                (c"getoption", getoption),
                (c"bind", bind),
                (c"getfd", getfd),
            ],
        );
    }
}
