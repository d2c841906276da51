//! What `send` of a socket takes: strings, numbers, and tables of them however deep, as one run of bytes.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::ffi::{self, State};
use crate::lib_number::push_g;
use std::ffi::c_int;

/// How deep tables in `send` may be nested.
const DEPTH: u32 = 64;

/// The longest text of a number.
const NUMBER: usize = 32;

fn append(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Bad> {
    if !crate::alloc::make_room(out, bytes.len()) {
        return Err(Bad::Memory);
    }
    out.extend_from_slice(bytes);
    Ok(())
}

/// Appends a value as `send` writes it; else what is wrong with it.
unsafe fn flatten(l: *mut State, index: c_int, out: &mut Vec<u8>, depth: u32) -> Result<(), Bad> {
    // SAFETY: a string lies on the stack while it is read; a number is converted on a copy.
    unsafe {
        match ffi::lua_type(l, index) {
            ffi::TSTRING => append(out, ffi::to_bytes(l, index).unwrap_or_default()),
            ffi::TNUMBER => {
                let number = ffi::lua_tonumberx(l, index, std::ptr::null_mut());
                if number.is_finite() && crate::alloc::make_room(out, NUMBER) {
                    push_g(out, number, 14);
                    return Ok(());
                }
                ffi::lua_pushvalue(l, index);
                let written = append(out, ffi::to_bytes(l, -1).unwrap_or_default());
                ffi::pop(l, 1);
                written
            }
            ffi::TNIL => {
                out.extend_from_slice(b"nil");
                Ok(())
            }
            ffi::TBOOLEAN => {
                let truth = ffi::lua_toboolean(l, index) != 0;
                out.extend_from_slice(if truth { b"true" } else { b"false" });
                Ok(())
            }
            ffi::TTABLE if depth < DEPTH && ffi::lua_checkstack(l, 4) != 0 => {
                let index = ffi::lua_absindex(l, index);
                let count = c_int::try_from(ffi::lua_rawlen(l, index)).unwrap_or(c_int::MAX);
                if count == 0 {
                    // Empty, or with other keys than 1, 2, ….
                    ffi::lua_pushnil(l);
                    if ffi::lua_next(l, index) != 0 {
                        ffi::pop(l, 2);
                        return Err(Bad::NoArray);
                    }
                }
                for i in 1..=count {
                    ffi::lua_rawgeti(l, index, i);
                    let result = flatten(l, -1, out, depth + 1);
                    ffi::pop(l, 1);
                    result?;
                }
                Ok(())
            }
            kind => Err(Bad::Type(kind, depth)),
        }
    }
}

/// What cannot be sent.
enum Bad {
    NoArray,
    /// A type, and how deep it was found.
    Type(c_int, u32),
    /// There is no room for its bytes.
    Memory,
}

/// The bytes that argument 2 of `send` means; raises when it means none.
pub(crate) unsafe fn flatten_argument(l: *mut State) -> Vec<u8> {
    // SAFETY: called by Lua; nothing with a destructor is alive when it raises.
    unsafe {
        let mut bytes = Vec::new();
        let mut flat = flatten(l, 2, &mut bytes, 0);
        if matches!(flat, Err(Bad::Memory)) {
            bytes = Vec::new();
            ffi::lua_gc(l, ffi::GCCOLLECT, 0);
            flat = flatten(l, 2, &mut bytes, 0);
        }
        let Err(bad) = flat else {
            return bytes;
        };
        drop(bytes);
        let name = |kind| std::ffi::CStr::from_ptr(ffi::lua_typename(l, kind)).to_bytes();
        match bad {
            Bad::Memory => ffi::error(l, b"not enough memory"),
            Bad::NoArray => ffi::push_bytes(l, b"non-array table found"),
            Bad::Type(kind, depth) => {
                ffi::push_bytes(
                    l,
                    if depth == 0 {
                        b"string, number, boolean, nil, or array table expected, got "
                    } else {
                        b"bad data type "
                    },
                );
                ffi::push_bytes(l, name(kind));
                ffi::push_bytes(l, if depth == 0 { b"" } else { b" found" });
                ffi::lua_concat(l, 3);
            }
        }
        ffi::luaL_argerror(l, 2, ffi::lua_tolstring(l, -1, std::ptr::null_mut()));
        ffi::raise(l)
    }
}
