//! What goes over a socket of `ngx.socket.tcp`: `send`, and the forms of `receive`. The host gives
//! what has come, whatever it is; lines, exact amounts and patterns are cut out of this side's
//! buffer, so that an answer that came in one piece costs one crossing.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::api_socket::{Socket, Wanted, socket, text};
use crate::api_socket_options::arguments;
use crate::api_socket_value::flatten_argument;
use crate::bindings::phasor::plugin::cosocket::{Receiving, Sending, SocketError, Stream};
use crate::ffi::{self, State};
use crate::vm::vm;
use crate::wait;
use std::ffi::c_int;

/// What is asked of the host at least.
const READ: usize = 16 << 10;

pub(crate) unsafe extern "C-unwind" fn send(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let s = socket(l);
        arguments(
            l,
            2..=2,
            "expecting 2 arguments (including the object), but got",
        );
        if s.writing.is_none() && (s.stream.is_none() || s.write_closed) {
            return ffi::nil_error(l, b"closed");
        }
        let begun = if ffi::lua_type(l, 2) == ffi::TSTRING {
            begin_send(s, ffi::to_bytes(l, 2).unwrap_or_default())
        } else {
            begin_send(s, &flatten_argument(l))
        };
        sending(l, s, begun)
    }
}

/// What is on its way and how much it is, or why it is not.
type Begun = Result<(Sending, usize), &'static [u8]>;

/// Begins to send.
pub(crate) fn begin_send(s: &Socket, bytes: &[u8]) -> Begun {
    if s.writing.is_some() {
        return Err(b"socket busy writing");
    }
    let Some(stream) = s.stream.as_ref().filter(|_| !s.write_closed) else {
        return Err(b"closed");
    };
    Ok((stream.begin_send(bytes, s.send_timeout), bytes.len()))
}

/// Waits if need be; the socket is argument 1. What was sent is gone: a wait runs no destructors.
pub(crate) unsafe fn sending(l: *mut State, s: &mut Socket, begun: Begun) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let (begun, count) = match begun {
            Ok(begun) => begun,
            Err(why) => return ffi::nil_error(l, why),
        };
        let count = c_int::try_from(count).unwrap_or(c_int::MAX);
        match begun {
            Sending::Now(result) => send_ended(l, s, result, count),
            Sending::Later(operation) => {
                // For the continuation, which may also be called at once.
                ffi::lua_settop(l, 1);
                ffi::lua_pushnumber(l, f64::from(count));
                let operation = s.writing.insert(operation);
                wait::begun(l, operation, sent)
            }
        }
    }
}

unsafe extern "C-unwind" fn sent(l: *mut State) -> c_int {
    // SAFETY: the continuation of `send`.
    unsafe {
        let s = socket(l);
        let count = ffi::lua_tointegerx(l, 2, std::ptr::null_mut());
        let count = c_int::try_from(count).unwrap_or(0);
        match s.writing.take() {
            Some(operation) => send_ended(l, s, Stream::end_send(operation), count),
            None => ffi::nil_error(l, b"closed"),
        }
    }
}

unsafe fn send_ended(
    l: *mut State,
    s: &mut Socket,
    result: Result<(), SocketError>,
    count: c_int,
) -> c_int {
    // SAFETY: pushes the results.
    unsafe {
        match result {
            Ok(()) => {
                ffi::lua_pushnumber(l, f64::from(count));
                1
            }
            Err(e) => {
                s.end_writing();
                ffi::nil_error(l, &text(e, "socket busy writing"))
            }
        }
    }
}

impl Socket {
    /// Nothing more comes; what goes the other way goes on, as in ngx_lua.
    fn end_reading(&mut self) {
        self.read_closed = true;
        if self.write_closed && !self.downstream {
            self.close();
        }
    }

    /// Nothing more goes: what was sent last may be there in part.
    fn end_writing(&mut self) {
        self.write_closed = true;
        if self.read_closed && !self.downstream {
            self.close();
        }
    }

    fn unread(&self) -> &[u8] {
        self.buffer.get(self.at..).unwrap_or_default()
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
        self.searched = 0;
        if self.at >= self.buffer.len() {
            self.buffer.clear();
            self.at = 0;
        }
    }

    /// False when there is no room for it: an answer without end must not take the VM's memory.
    fn append(&mut self, bytes: &[u8]) -> bool {
        if self.at > 0 {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        let fits = self.buffer.len() + bytes.len() <= vm().program.cosocket.receive
            && self.buffer.try_reserve(bytes.len()).is_ok();
        if fits {
            self.buffer.extend_from_slice(bytes);
        }
        fits
    }

    /// How much of the buffer answers the call, and how much is taken for it. What was searched at an
    /// earlier piece is not searched again: a long line in small pieces costs no more than its bytes.
    fn found(&mut self) -> Option<(usize, usize)> {
        let found = self.look();
        if found.is_none() && self.item().is_none() {
            self.searched = self.unread().len();
        }
        found
    }

    fn look(&self) -> Option<(usize, usize)> {
        let unread = self.unread();
        match self.wanted {
            Wanted::Line => {
                let at = memchr::memchr(b'\n', unread.get(self.searched..)?)?;
                Some((self.searched + at, self.searched + at + 1))
            }
            Wanted::All => None,
            Wanted::Any(max) => (!unread.is_empty()).then(|| {
                let n = unread.len().min(max);
                (n, n)
            }),
            Wanted::Exactly(n) => (unread.len() >= n).then_some((n, n)),
            Wanted::Until(size) => self.found_until(unread, size),
            Wanted::Item => {
                let (at, taken) = self.item()?;
                (unread.len() >= taken).then_some((at, taken))
            }
        }
    }

    /// Of an item whose line is there: the line's length, and that of all of it.
    fn item(&self) -> Option<(usize, usize)> {
        if !matches!(self.wanted, Wanted::Item) {
            return None;
        }
        let unread = self.unread();
        let at = self.searched + memchr::memchr(b'\n', unread.get(self.searched..)?)?;
        let rest = crate::lib_resp::extent(unread.get(..at)?);
        Some((at, rest.saturating_add(at + 1)))
    }

    fn found_until(&self, unread: &[u8], size: Option<usize>) -> Option<(usize, usize)> {
        let pattern = &self.pattern;
        // The pattern may have begun at the end of what was searched.
        let from = self.searched.saturating_sub(pattern.len() - 1);
        let at = memchr::memmem::find(unread.get(from..)?, pattern).map(|at| from + at);
        match (at, size) {
            (Some(at), None) => Some((
                if self.inclusive {
                    at + pattern.len()
                } else {
                    at
                },
                at + pattern.len(),
            )),
            (Some(at), Some(size)) if at > size => Some((size, size)),
            (Some(at), Some(_)) => Some((
                if self.inclusive {
                    at + pattern.len()
                } else {
                    at
                },
                at + pattern.len(),
            )),
            // Its beginning may already be there.
            (None, Some(size)) if unread.len() >= size + pattern.len() => Some((size, size)),
            (None, _) => None,
        }
    }
}

/// Pushes `n` unread bytes and takes `taken` of them away.
unsafe fn push_unread(l: *mut State, s: &mut Socket, n: usize, taken: usize) {
    // SAFETY: the slice lives in the socket.
    unsafe {
        let bytes = &s.unread()[..n];
        if matches!(s.wanted, Wanted::Line) && memchr::memchr(b'\r', bytes).is_some() {
            crate::lib_scratch::push_built(l, |out| {
                out.extend(bytes.iter().copied().filter(|b| *b != b'\r'));
            });
        } else {
            ffi::push_bytes(l, bytes);
        }
        s.consume(taken);
    }
}

/// Cuts out of the buffer what is wanted, or waits for more.
unsafe fn drive(l: *mut State, s: &mut Socket) -> c_int {
    // SAFETY: `l` is the running coroutine.
    unsafe {
        loop {
            if let Some((n, taken)) = s.found() {
                if let Wanted::Until(Some(_)) = s.wanted
                    && taken >= s.pattern.len()
                    && s.unread()[..taken].ends_with(&s.pattern)
                    && (n != taken || s.inclusive)
                {
                    ffi::lua_pushboolean(l, 1);
                    ffi::lua_replace(l, ffi::upvalue_index(3));
                }
                if matches!(s.wanted, Wanted::Item) {
                    let results = crate::lib_resp::push_item(l, &s.unread()[..taken], n);
                    s.consume(taken);
                    return results;
                }
                push_unread(l, s, n, taken);
                return 1;
            }
            let Some(stream) = &s.stream else {
                return failed(l, s, SocketError::Closed);
            };
            let most = match s.wanted {
                Wanted::Exactly(n) => n.saturating_sub(s.unread().len()).max(READ),
                Wanted::Item => {
                    let whole = s.item().map_or(0, |(_, whole)| whole);
                    whole.saturating_sub(s.unread().len()).max(READ)
                }
                Wanted::Line | Wanted::All | Wanted::Any(_) | Wanted::Until(_) => READ,
            };
            let most = u32::try_from(most).unwrap_or(u32::MAX);
            let result = match stream.begin_receive(most, s.read_timeout) {
                Receiving::Now(result) => result,
                Receiving::Later(operation) if wait::can_wait(l) => {
                    let operation = s.reading.insert(operation);
                    return wait::begun(l, operation, received);
                }
                Receiving::Later(operation) => Stream::end_receive(operation),
            };
            if let Some(results) = take(l, s, result) {
                return results;
            }
        }
    }
}

/// Puts what came into the buffer; gives the call's results when it is over.
unsafe fn take(
    l: *mut State,
    s: &mut Socket,
    result: Result<Vec<u8>, SocketError>,
) -> Option<c_int> {
    // SAFETY: as `drive`.
    unsafe {
        match result {
            Ok(bytes) => {
                let fits = s.append(&bytes);
                drop(bytes);
                if fits {
                    return None;
                }
                s.buffer = Vec::new();
                s.at = 0;
                s.end_reading();
                Some(ffi::nil_error(l, b"too large"))
            }
            Err(e) => Some(failed(l, s, e)),
        }
    }
}

unsafe extern "C-unwind" fn received(l: *mut State) -> c_int {
    // SAFETY: the continuation of `drive`.
    unsafe {
        let s = socket(l);
        let Some(operation) = s.reading.take() else {
            return ffi::nil_error(l, b"closed");
        };
        match take(l, s, Stream::end_receive(operation)) {
            Some(results) => results,
            None => drive(l, s),
        }
    }
}

/// The results of a `receive` that got no more: all but a time-out ends the connection.
unsafe fn failed(l: *mut State, s: &mut Socket, error: SocketError) -> c_int {
    // SAFETY: pushes the results.
    unsafe {
        let ended = matches!(error, SocketError::Closed);
        let timeout = matches!(error, SocketError::Timeout);
        let unread = s.unread().len();
        let open = s.stream.is_some() && !s.read_closed;
        if ended && open && matches!(s.wanted, Wanted::All) {
            // That this was the end is told to the next call, as in ngx_lua.
            push_unread(l, s, unread, unread);
            if s.downstream {
                s.end_reading();
            }
            return 1;
        }
        ffi::lua_pushnil(l);
        ffi::push_bytes(l, &text(error, "socket busy reading"));
        if timeout && matches!(s.wanted, Wanted::Item) {
            // The rest of it may come yet.
            return 2;
        }
        push_unread(l, s, unread, unread);
        if !timeout {
            s.end_reading();
        }
    }
    3
}

/// What may begin: one reader, on a socket that is or was connected.
pub(crate) unsafe fn begin(l: *mut State, s: &mut Socket, wanted: Wanted) -> c_int {
    // SAFETY: as `drive`.
    unsafe {
        if s.reading.is_some() {
            return ffi::nil_error(l, b"socket busy reading");
        }
        if s.stream.is_none() || s.read_closed {
            return ffi::nil_error(l, b"closed");
        }
        s.wanted = wanted;
        s.searched = 0;
        drive(l, s)
    }
}

pub(crate) unsafe extern "C-unwind" fn receive(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let s = socket(l);
        arguments(
            l,
            1..=2,
            "expecting 1 or 2 arguments (including the object), but got",
        );
        let wanted = if ffi::lua_type(l, 2) <= ffi::TNIL {
            Wanted::Line
        } else if ffi::lua_isnumber(l, 2) != 0 {
            match usize::try_from(ffi::luaL_checkinteger(l, 2)) {
                Ok(n) => Wanted::Exactly(n),
                Err(_) => ffi::arg_error(l, 2, c"bad pattern argument"),
            }
        } else {
            match ffi::to_bytes(l, 2) {
                Some(b"*l") => Wanted::Line,
                Some(b"*a") => Wanted::All,
                _ => ffi::arg_error(l, 2, c"bad pattern argument"),
            }
        };
        begin(l, s, wanted)
    }
}

unsafe extern "C-unwind" fn receiveany(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let s = socket(l);
        arguments(
            l,
            2..=2,
            "expecting 2 arguments (including the object), but got",
        );
        if ffi::lua_isnumber(l, 2) == 0 {
            ffi::arg_error(l, 2, c"bad max argument")
        }
        match usize::try_from(ffi::luaL_checkinteger(l, 2)) {
            Ok(n) if n > 0 => begin(l, s, Wanted::Any(n)),
            _ => ffi::arg_error(l, 2, c"bad max argument"),
        }
    }
}

unsafe extern "C-unwind" fn receiveuntil(l: *mut State) -> c_int {
    // SAFETY: called by Lua; the upvalues are socket, pattern, whether it was reached, inclusive.
    unsafe {
        socket(l);
        arguments(
            l,
            2..=3,
            "expecting 2 or 3 arguments (including the object), but got",
        );
        if ffi::lua_gettop(l) == 3 {
            ffi::luaL_checktype(l, 3, ffi::TTABLE);
        }
        let inclusive = ffi::lua_gettop(l) == 3 && {
            ffi::lua_getfield(l, 3, c"inclusive".as_ptr());
            let kind = ffi::lua_type(l, -1);
            if !matches!(kind, ffi::TNIL | ffi::TBOOLEAN) {
                ffi::luaL_where(l, 1);
                ffi::push_bytes(l, b"bad \"inclusive\" option value type: ");
                ffi::lua_pushstring(l, ffi::lua_typename(l, kind));
                ffi::lua_concat(l, 3);
                ffi::raise(l)
            }
            ffi::lua_toboolean(l, -1) != 0
        };
        if ffi::check_bytes(l, 2).is_empty() {
            return ffi::nil_error(l, b"pattern is empty");
        }
        ffi::lua_pushvalue(l, 1);
        ffi::lua_pushvalue(l, 2);
        ffi::lua_pushboolean(l, 0);
        ffi::lua_pushboolean(l, c_int::from(inclusive));
        ffi::lua_pushcclosure(l, next_until, 4);
    }
    1
}

unsafe extern "C-unwind" fn next_until(l: *mut State) -> c_int {
    // SAFETY: the closure of `receiveuntil`.
    unsafe {
        let size = usize::try_from(ffi::opt_integer(l, 1, 0)).unwrap_or(0);
        ffi::lua_settop(l, 0);
        if ffi::lua_toboolean(l, ffi::upvalue_index(3)) != 0 {
            ffi::lua_pushboolean(l, 0);
            ffi::lua_replace(l, ffi::upvalue_index(3));
            ffi::lua_settop(l, 3);
            return 3;
        }
        ffi::lua_pushvalue(l, ffi::upvalue_index(1));
        let s = socket(l);
        if s.reading.is_none() {
            s.pattern.clear();
            let pattern = ffi::to_bytes(l, ffi::upvalue_index(2)).unwrap_or_default();
            s.pattern.extend_from_slice(pattern);
            s.inclusive = ffi::lua_toboolean(l, ffi::upvalue_index(4)) != 0;
        }
        begin(l, s, Wanted::Until((size > 0).then_some(size)))
    }
}

/// Adds the methods that read to the table on the top.
pub(crate) unsafe fn register(l: *mut State) {
    // SAFETY: the table of methods is on the top.
    unsafe {
        ffi::register(
            l,
            &[
                (c"receive", receive),
                (c"receiveany", receiveany),
                (c"receiveuntil", receiveuntil),
            ],
        );
    }
}
