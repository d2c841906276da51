//! `phasor.resp`: what `resty.redis` sends and receives, in one call each. A command is written without
//! becoming a string of Lua; an item is a line of Redis' protocol (RESP2) and what belongs to it.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::api_socket::{Wanted, socket};
use crate::api_socket_io::{begin, begin_send, sending};
use crate::ffi::{self, State};
use crate::lib_number::push_g;
use crate::lib_scratch::{number, push_built, stringify, with_built};
use std::ffi::c_int;

/// How many bytes follow this line (without its end).
pub(crate) fn extent(line: &[u8]) -> usize {
    match line {
        [b'$', digits @ ..] => match integer(digits) {
            Some(size @ 0..) => usize::try_from(size).map_or(usize::MAX, |n| n.saturating_add(2)),
            Some(_) | None => 0,
        },
        _ => 0,
    }
}

fn integer(digits: &[u8]) -> Option<i64> {
    std::str::from_utf8(digits.trim_ascii_end())
        .ok()?
        .parse()
        .ok()
}

/// Pushes what a whole item stands for; its line has `end` bytes before the line feed. A value and
/// nothing else, `false` and what Redis says of an error, `true` and the count of a list, or nil and why.
pub(crate) unsafe fn push_item(l: *mut State, item: &[u8], end: usize) -> c_int {
    // SAFETY: the slice lives in the socket.
    unsafe {
        let line = item[..end].strip_suffix(b"\r").unwrap_or(&item[..end]);
        let Some((kind, rest)) = line.split_first() else {
            return ffi::nil_error(l, b"unknown prefix: \"nil\"");
        };
        match (kind, integer(rest)) {
            (b'$' | b'*', Some(..0)) => ffi::lua_pushlightuserdata(l, std::ptr::null_mut()),
            (b'$', Some(_)) => ffi::push_bytes(l, &item[end + 1..item.len() - 2]),
            (b'+', _) => ffi::push_bytes(l, rest),
            #[expect(clippy::cast_precision_loss, reason = "numbers of Lua are doubles")]
            (b':', Some(value)) => ffi::lua_pushnumber(l, value as f64),
            (b'-', _) => {
                ffi::lua_pushboolean(l, 0);
                ffi::push_bytes(l, rest);
                return 2;
            }
            #[expect(clippy::cast_precision_loss, reason = "a count")]
            (b'*', Some(count)) => {
                ffi::lua_pushboolean(l, 1);
                ffi::lua_pushnumber(l, count as f64);
                return 2;
            }
            (b'$' | b'*' | b':', None) => return ffi::nil_error(l, b"malformed number"),
            (other, _) => {
                ffi::lua_pushnil(l);
                push_built(l, |out| {
                    out.extend_from_slice(b"unknown prefix: \"");
                    out.push(*other);
                    out.push(b'"');
                });
                return 2;
            }
        }
        1
    }
}

/// `item(socket)`: what `push_item` gives, or nil and why nothing came. After a time-out the next call
/// goes on with what has come.
unsafe extern "C-unwind" fn item(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let s = socket(l);
        begin(l, s, Wanted::Item)
    }
}

/// Makes strings of the words of a command, which begin at argument `first`, and sees to it that there is
/// room for all of it: what can raise does so here. Gives the last word's place and the room.
unsafe fn words(l: *mut State, first: c_int) -> (c_int, usize) {
    // SAFETY: called by Lua.
    unsafe {
        let last = ffi::lua_gettop(l);
        let mut room = HEAD;
        for index in first..=last {
            room += HEAD + stringify(l, index).len();
        }
        crate::alloc::demand(l, room);
        (last, room)
    }
}

/// More than what stands before and behind a word.
const HEAD: usize = 32;

unsafe fn write(l: *mut State, first: c_int, (last, room): (c_int, usize), out: &mut Vec<u8>) {
    // SAFETY: strings lie there.
    unsafe {
        let head = |out: &mut Vec<u8>, kind: u8, count: usize| {
            out.push(kind);
            push_g(out, number(count), 14);
            out.extend_from_slice(b"\r\n");
        };
        out.reserve(room);
        head(out, b'*', usize::try_from(last + 1 - first).unwrap_or(0));
        for index in first..=last {
            let word = ffi::to_bytes(l, index).unwrap_or_default();
            head(out, b'$', word.len());
            out.extend_from_slice(word);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// `encode(word, ...)`: a command's bytes.
unsafe extern "C-unwind" fn encode(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let all = words(l, 1);
        push_built(l, |out| write(l, 1, all, out));
    }
    1
}

/// `send(socket, word, ...)`: as the socket's own `send` with the command's bytes.
unsafe extern "C-unwind" fn send(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let s = socket(l);
        let all = words(l, 2);
        let begun = with_built(|out| {
            write(l, 2, all, out);
            begin_send(s, out)
        });
        sending(l, s, begun)
    }
}

unsafe extern "C-unwind" fn module(l: *mut State) -> c_int {
    // SAFETY: called by `require`.
    unsafe {
        ffi::push_library(l, &[(c"item", item), (c"encode", encode), (c"send", send)]);
    }
    1
}

/// Makes the module load on its first `require`.
pub(crate) unsafe fn open(l: *mut State) {
    // SAFETY: called protected, while the state is opened.
    unsafe { ffi::set_preload(l, c"phasor.resp", module) }
}
