//! `ngx.socket.tcp`: the object, connecting, closing, the pool. Bytes are in `api_socket_io`.
//!
//! As in OpenResty a socket is a table whose first element is the real thing: a userdata that owns
//! the host's stream and this side's buffer.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::api;
use crate::api_socket_options::{arguments, bad_port, options};
use crate::api_socket_tls::Given;
use crate::bindings::phasor::plugin::cosocket::{Connecting, SocketError, Stream};
use crate::bindings::phasor::plugin::operation::Operation;
use crate::ffi::{self, CFunction, State};
use crate::phase;
use crate::vm::vm;
use crate::wait;
use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI32, AtomicPtr};

/// The metatable of the userdata, and where the registry keeps it.
static METATABLE: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
static METATABLE_AT: AtomicI32 = AtomicI32::new(0);
/// Where the registry keeps the methods.
static METHODS_AT: AtomicI32 = AtomicI32::new(0);

/// What a `receive` under way wants.
#[derive(Clone, Copy)]
pub(crate) enum Wanted {
    Line,
    All,
    Any(usize),
    Exactly(usize),
    /// Up to the pattern, or so many bytes of it.
    Until(Option<usize>),
    /// An item of Redis' protocol.
    Item,
}

/// A socket of Lua.
pub(crate) struct Socket {
    pub(crate) stream: Option<Stream>,
    /// For `connect`, of `bind`.
    pub(crate) local: Option<String>,
    /// A `connect` or a handshake.
    pub(crate) connecting: Option<Operation>,
    pub(crate) reading: Option<Operation>,
    pub(crate) writing: Option<Operation>,
    /// What has come and was not taken yet begins at `at`.
    pub(crate) buffer: Vec<u8>,
    pub(crate) at: usize,
    pub(crate) wanted: Wanted,
    /// How many of the unread bytes hold no end of what is wanted.
    pub(crate) searched: usize,
    pub(crate) pattern: Vec<u8>,
    pub(crate) inclusive: bool,
    pub(crate) connect_timeout: u32,
    pub(crate) send_timeout: u32,
    pub(crate) read_timeout: u32,
    pub(crate) tls: Given,
    /// The exchange that made it.
    owner: u64,
    /// It is the client's side of the request, which ends with the request.
    pub(crate) downstream: bool,
    /// One way is over: the peer has closed, or a call has failed. The other may go on.
    pub(crate) read_closed: bool,
    pub(crate) write_closed: bool,
}

/// Tells exchanges apart; 0 for tasks without one.
pub(crate) fn owner() -> u64 {
    vm().current_job().map_or(0, |job| job.serial)
}

pub(crate) fn text(error: SocketError, busy: &str) -> Vec<u8> {
    match error {
        SocketError::Timeout => b"timeout".to_vec(),
        SocketError::Closed => b"closed".to_vec(),
        SocketError::Refused => b"not allowed by allow.connect".to_vec(),
        SocketError::Busy => busy.as_bytes().to_vec(),
        SocketError::Other(text) => text.into_bytes(),
    }
}

/// The socket in argument 1; raises when it is none, or another request's.
pub(crate) unsafe fn socket(l: *mut State) -> &'static mut Socket {
    // SAFETY: the userdata is kept by its table.
    unsafe {
        let place: *mut Socket = ffi::phasor_object(l, METATABLE.load(Relaxed)).cast();
        if place.is_null() {
            ffi::luaL_checktype(l, 1, ffi::TTABLE);
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

unsafe extern "C-unwind" fn tcp(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        api::check_phase(l, phase::WAIT);
        push(l, None, METHODS_AT.load(Relaxed));
    }
    1
}

/// Pushes a socket with the methods that the registry keeps there: an open one of the client's side, or
/// one that is to connect.
pub(crate) unsafe fn push(l: *mut State, downstream: Option<Stream>, methods: c_int) {
    // SAFETY: the memory is written before it gets its metatable.
    unsafe {
        let usual = vm().program.cosocket;
        ffi::lua_createtable(l, 1, 0);
        let place: *mut Socket = ffi::lua_newuserdata(l, size_of::<Socket>()).cast();
        place.write(Socket {
            downstream: downstream.is_some(),
            stream: downstream,
            local: None,
            connecting: None,
            reading: None,
            writing: None,
            buffer: Vec::new(),
            at: 0,
            wanted: Wanted::Line,
            searched: 0,
            pattern: Vec::new(),
            inclusive: false,
            connect_timeout: usual.connect_ms,
            send_timeout: usual.send_ms,
            read_timeout: usual.read_ms,
            tls: Given::default(),
            owner: owner(),
            read_closed: false,
            write_closed: false,
        });
        ffi::push_reference(l, METATABLE_AT.load(Relaxed));
        ffi::lua_setmetatable(l, -2);
        ffi::lua_rawseti(l, -2, 1);
        ffi::push_reference(l, methods);
        ffi::lua_setmetatable(l, -2);
    }
}

impl Socket {
    /// Why nothing else may begin now.
    pub(crate) fn busy(&self) -> Option<&'static [u8]> {
        if self.connecting.is_some() {
            Some(b"socket busy connecting")
        } else if self.reading.is_some() {
            Some(b"socket busy reading")
        } else if self.writing.is_some() {
            Some(b"socket busy writing")
        } else {
            None
        }
    }

    pub(crate) fn close(&mut self) {
        self.stream = None;
        (self.read_closed, self.write_closed) = (false, false);
        self.buffer = Vec::new();
        self.at = 0;
    }
}

unsafe extern "C-unwind" fn connect(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let n = ffi::lua_gettop(l);
        arguments(
            l,
            2..=4,
            "ngx.socket connect: expecting 2, 3, or 4 arguments (including the object), but seen",
        );
        let s = socket(l);
        let host = ffi::check_bytes(l, 2);
        if let Some(busy) = s.busy() {
            return ffi::nil_error(l, busy);
        }
        let unix = host.starts_with(b"unix:");
        if !unix && n < 3 {
            return ffi::nil_error(l, b"missing the port number");
        }
        let (port, table) = if unix {
            (0, 3)
        } else {
            (ffi::luaL_checkinteger(l, 3), 4)
        };
        let Ok(port) = u16::try_from(port) else {
            return bad_port(l, port);
        };
        s.close();
        let options = options(l, table, s);
        let host = String::from_utf8_lossy(host).into_owned();
        vm().select();
        let begun = Stream::begin_connect(&host, port, &options);
        drop(host);
        drop(options);
        match begun {
            Connecting::Now(result) => connect_ended(l, s, result),
            Connecting::Later(operation) => {
                let operation = s.connecting.insert(operation);
                wait::begun(l, operation, connected)
            }
        }
    }
}

unsafe fn connect_ended(
    l: *mut State,
    s: &mut Socket,
    result: Result<Stream, SocketError>,
) -> c_int {
    // SAFETY: pushes the results.
    unsafe {
        match result {
            Ok(stream) => s.stream = Some(stream),
            Err(e) => return ffi::nil_error(l, &text(e, "socket busy connecting")),
        }
        ffi::lua_pushnumber(l, 1.0);
    }
    1
}

unsafe extern "C-unwind" fn connected(l: *mut State) -> c_int {
    // SAFETY: the continuation of `connect`.
    unsafe {
        let s = socket(l);
        let Some(operation) = s.connecting.take() else {
            return ffi::nil_error(l, b"closed");
        };
        // The stream becomes this exchange's.
        vm().select();
        connect_ended(l, s, Stream::end_connect(operation))
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
        if let Some(busy) = s.busy() {
            return ffi::nil_error(l, busy);
        }
        if s.stream.is_none() {
            return ffi::nil_error(l, b"closed");
        }
        s.close();
        ffi::lua_pushnumber(l, 1.0);
    }
    1
}

/// A time in milliseconds; 0 and nil are the configuration's.
pub(crate) unsafe fn time(l: *mut State, arg: c_int, usual: u32) -> u32 {
    // SAFETY: called by Lua.
    let given = unsafe { ffi::opt_integer(l, arg, 0) };
    if given < 0 {
        // SAFETY: as above.
        unsafe { ffi::error(l, b"bad timeout value") }
    }
    if given == 0 {
        return usual;
    }
    u32::try_from(given).unwrap_or(u32::MAX)
}

pub(crate) unsafe extern "C-unwind" fn settimeout(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        arguments(
            l,
            2..=2,
            "ngx.socket settimeout: expecting 2 arguments (including the object) but seen",
        );
        let s = socket(l);
        let usual = vm().program.cosocket;
        s.connect_timeout = time(l, 2, usual.connect_ms);
        s.send_timeout = time(l, 2, usual.send_ms);
        s.read_timeout = time(l, 2, usual.read_ms);
    }
    0
}

pub(crate) unsafe extern "C-unwind" fn settimeouts(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        arguments(
            l,
            4..=4,
            "ngx.socket settimeout: expecting 4 arguments (including the object) but seen",
        );
        let s = socket(l);
        let usual = vm().program.cosocket;
        s.connect_timeout = time(l, 2, usual.connect_ms);
        s.send_timeout = time(l, 3, usual.send_ms);
        s.read_timeout = time(l, 4, usual.read_ms);
    }
    0
}

unsafe extern "C-unwind" fn setkeepalive(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let s = socket(l);
        if let Some(busy) = s.busy() {
            return ffi::nil_error(l, busy);
        }
        // 0 is "no limit", nil the default.
        let usual = vm().program.cosocket.keepalive_ms;
        let idle = match ffi::lua_type(l, 2) {
            ..=ffi::TNIL => usual,
            _ => u32::try_from(ffi::luaL_checkinteger(l, 2)).unwrap_or(usual),
        };
        let size = u32::try_from(ffi::opt_integer(l, 3, 0)).unwrap_or(0);
        if s.at < s.buffer.len() {
            return ffi::nil_error(l, b"unread data in buffer");
        }
        if s.read_closed || s.write_closed {
            return ffi::nil_error(l, b"closed");
        }
        let Some(stream) = s.stream.take() else {
            return ffi::nil_error(l, b"closed");
        };
        s.close();
        if let Err(e) = Stream::keep_alive(stream, idle, size) {
            return ffi::nil_error(l, &text(e, "socket busy"));
        }
        ffi::lua_pushnumber(l, 1.0);
    }
    1
}

unsafe extern "C-unwind" fn getreusedtimes(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        match &socket(l).stream {
            Some(stream) => ffi::lua_pushnumber(l, f64::from(stream.reused())),
            None => return ffi::nil_error(l, b"closed"),
        }
    }
    1
}

/// `ngx.socket.connect(host, port)`: makes a socket and connects it.
const CONNECT: &str = "local tcp = ...
return function(...)
  local sock = tcp()
  local ok, err = sock:connect(...)
  if not ok then return nil, err end
  return sock
end";

/// Makes `ngx.socket`.
pub(crate) unsafe fn open(l: *mut State) {
    let methods: [(&CStr, CFunction); 7] = [
        (c"connect", connect),
        (c"close", close),
        (c"settimeout", settimeout),
        (c"settimeouts", settimeouts),
        (c"setkeepalive", setkeepalive),
        (c"getreusedtimes", getreusedtimes),
        (c"send", crate::api_socket_io::send),
    ];
    // SAFETY: called while the libraries are opened.
    unsafe {
        ffi::lua_createtable(l, 0, 1);
        ffi::register(l, &[(c"__gc", collect)]);
        METATABLE.store(ffi::lua_topointer(l, -1).cast_mut(), Relaxed);
        METATABLE_AT.store(ffi::reference(l), Relaxed);
        ffi::lua_createtable(l, 0, 24);
        ffi::lua_pushvalue(l, -1);
        METHODS_AT.store(ffi::reference(l), Relaxed);
        ffi::register(l, &methods);
        crate::api_socket_io::register(l);
        crate::api_socket_request::open(l);
        crate::api_socket_options::register(l);
        crate::api_socket_tls::register(l);
        ffi::lua_pushvalue(l, -1);
        ffi::lua_setfield(l, -2, c"__index".as_ptr());
        ffi::pop(l, 1);
        ffi::push_ngx(l);
        ffi::push_library(l, &[(c"tcp", tcp), (c"stream", tcp)]);
        ffi::lua_pushcclosure(l, tcp, 0);
        crate::lib_scratch::run(l, CONNECT, c"=ngx.socket", 1, 1);
        ffi::lua_setfield(l, -2, c"connect".as_ptr());
        crate::api_socket_udp::open(l);
        ffi::lua_setfield(l, -2, c"socket".as_ptr());
        ffi::pop(l, 1);
    }
}
