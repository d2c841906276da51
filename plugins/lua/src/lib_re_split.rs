//! `require "ngx.re".split`: Perl's split, as lua-resty-core offers it.
#![expect(unsafe_code, reason = "the C API of Lua")]
#![expect(
    unsafe_op_in_unsafe_fn,
    reason = "every function works on the live state that Lua hands in"
)]

use crate::ffi::{self, State};
use crate::lib_re::{compile, exec, next_start, push_exec_error, push_group};
use crate::lib_re_pcre::{NOMATCH, Pattern};
use crate::lib_scratch::{number, stringify};
use std::ffi::c_int;

const CTX: c_int = 4;
const RESULT: c_int = 6;

/// The walk over the subject, in offsets from 0.
struct Walk {
    /// Where the next piece begins.
    piece: usize,
    /// Where to search.
    search: Option<usize>,
    /// Where the last empty match was.
    empty: Option<usize>,
    /// Pieces and captures so far.
    filled: c_int,
    /// Cuts so far.
    cuts: isize,
}

/// `res, err = split(subject, regex, options?, ctx?, max?, res?)`
pub(crate) unsafe extern "C-unwind" fn split(l: *mut State) -> c_int {
    ffi::lua_settop(l, 6);
    let subject = stringify(l, 1);
    let max = ffi::opt_integer(l, 5, 0);
    let start = start(l);
    if ffi::lua_type(l, RESULT) <= ffi::TNIL {
        ffi::lua_createtable(l, 4, 0);
        ffi::lua_replace(l, RESULT);
    } else if ffi::lua_type(l, RESULT) != ffi::TTABLE {
        ffi::error(l, b"res is not a table");
    }
    if start >= subject.len() {
        ffi::lua_pushnil(l);
        ffi::lua_rawseti(l, RESULT, 1);
        ffi::lua_pushvalue(l, RESULT);
        return 1;
    }
    let pattern = compile(l, 2, 3);
    if pattern.is_null() {
        ffi::lua_pushnil(l);
        ffi::lua_insert(l, -2);
        return 2;
    }
    let mut walk = Walk {
        piece: start,
        search: Some(start),
        empty: None,
        filled: 0,
        cuts: 1,
    };
    while max <= 0 || walk.cuts < max {
        let Some(at) = walk.search else { break };
        let code = exec(l, &*pattern, subject, at, at > start);
        if code == NOMATCH {
            break;
        }
        if code < 0 {
            ffi::lua_pushnil(l);
            push_exec_error(l, code);
            return 2;
        }
        if cut(l, &*pattern, subject, &mut walk) {
            break;
        }
    }
    finish(l, subject, &mut walk, max);
    ffi::lua_pushvalue(l, RESULT);
    1
}

/// Where `ctx.pos` (set to 1 when absent) says to begin.
unsafe fn start(l: *mut State) -> usize {
    if ffi::lua_type(l, CTX) != ffi::TTABLE {
        return 0;
    }
    ffi::lua_getfield(l, CTX, c"pos".as_ptr());
    let at = if ffi::lua_type(l, -1) == ffi::TNIL {
        1
    } else {
        ffi::lua_tointegerx(l, -1, std::ptr::null_mut())
    };
    ffi::pop(l, 1);
    usize::try_from(at).unwrap_or(0).saturating_sub(1)
}

/// Takes one match into account; true when the subject is used up.
unsafe fn cut(l: *mut State, pattern: &Pattern, subject: &[u8], walk: &mut Walk) -> bool {
    let (from, to) = pattern.group(0);
    walk.search = next_start(pattern, subject);
    if ffi::lua_type(l, CTX) == ffi::TTABLE {
        ffi::lua_pushnumber(l, number(if from == to { to + 1 } else { to }));
        ffi::lua_setfield(l, CTX, c"pos".as_ptr());
    }
    if let Some(empty) = walk.empty {
        walk.piece = empty;
    }
    if from == to {
        walk.empty = Some(from);
    }
    // Behind an empty match, a further cut must leave something between them.
    if from <= walk.piece && walk.empty.is_some() {
        return false;
    }
    walk.cuts += 1;
    push_piece(l, walk, subject.get(walk.piece..from).unwrap_or_default());
    if pattern.groups > 0 {
        push_group(l, pattern, subject, 1);
        let set = ffi::lua_type(l, -1) == ffi::TSTRING;
        if set {
            walk.filled += 1;
            ffi::lua_rawseti(l, RESULT, walk.filled);
        } else {
            ffi::pop(l, 1);
        }
    }
    walk.piece = to;
    walk.piece >= subject.len()
}

unsafe fn push_piece(l: *mut State, walk: &mut Walk, piece: &[u8]) {
    walk.filled += 1;
    ffi::push_bytes(l, piece);
    ffi::lua_rawseti(l, RESULT, walk.filled);
}

/// Adds the last piece, or drops the empty ones at the end, and ends the table.
unsafe fn finish(l: *mut State, subject: &[u8], walk: &mut Walk, max: isize) {
    if max <= 0 && walk.piece >= subject.len() {
        let mut last = walk.filled;
        while last > 0 {
            ffi::lua_rawgeti(l, RESULT, last);
            let empty = ffi::lua_rawlen(l, -1) == 0;
            ffi::pop(l, 1);
            if !empty {
                break;
            }
            ffi::lua_pushnil(l);
            ffi::lua_rawseti(l, RESULT, last);
            last -= 1;
        }
        if last > 0 {
            walk.filled = last;
        }
    } else {
        push_piece(l, walk, &subject[walk.piece.min(subject.len())..]);
    }
    ffi::lua_pushnil(l);
    ffi::lua_rawseti(l, RESULT, walk.filled + 1);
}
