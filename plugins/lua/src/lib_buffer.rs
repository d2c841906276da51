//! `string.buffer`: LuaJIT's string buffers, without the FFI parts.
#![expect(unsafe_code, reason = "the C API of Lua")]
#![expect(
    unsafe_op_in_unsafe_fn,
    reason = "every function works on the live state that Lua hands in"
)]

use crate::ffi::{self, State};
use crate::lib_buffer_codec::{self, Malformed};
use crate::lib_scratch::number;
use std::ffi::{CStr, c_int};

const NAME: &CStr = c"string.buffer";
/// More than this in one buffer is refused: the VM's memory limit would end all its requests.
const MOST: usize = 64 << 20;

/// The bytes, and how many of them have been taken from the front.
struct Buffer {
    bytes: Vec<u8>,
    taken: usize,
}

impl Buffer {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    fn take(&mut self, count: usize) {
        self.taken += count.min(self.bytes.len() - self.taken);
        if self.taken == self.bytes.len() {
            self.bytes.clear();
            self.taken = 0;
        } else if self.taken > self.bytes.len() / 2 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
    }
}

/// Makes `require "string.buffer"` work.
pub(crate) unsafe fn open(l: *mut State) {
    ffi::luaL_newmetatable(l, NAME.as_ptr());
    ffi::register(
        l,
        &[
            (c"__gc", collect),
            (c"__len", len),
            (c"__tostring", tostring),
            (c"__concat", concat),
        ],
    );
    ffi::push_library(
        l,
        &[
            (c"put", put),
            (c"putf", putf),
            (c"set", set),
            (c"get", get),
            (c"skip", skip),
            (c"reset", reset),
            (c"free", free),
            (c"tostring", tostring),
            (c"encode", encode),
            (c"decode", decode),
        ],
    );
    ffi::lua_setfield(l, -2, c"__index".as_ptr());
    ffi::pop(l, 1);
    ffi::push_library(
        l,
        &[
            (c"new", new),
            (c"encode", lib_buffer_codec::encode),
            (c"decode", lib_buffer_codec::decode),
        ],
    );
    ffi::set_loaded(l, NAME);
    ffi::pop(l, 1);
}

unsafe extern "C-unwind" fn new(l: *mut State) -> c_int {
    let size = usize::try_from(if ffi::lua_type(l, 1) == ffi::TNUMBER {
        ffi::luaL_checkinteger(l, 1)
    } else {
        0
    })
    .unwrap_or(0);
    let slot = ffi::lua_newuserdata(l, size_of::<Buffer>()).cast::<Buffer>();
    slot.write(Buffer {
        bytes: Vec::new(),
        taken: 0,
    });
    ffi::lua_getfield(l, ffi::REGISTRY, NAME.as_ptr());
    ffi::lua_setmetatable(l, -2);
    (*slot).bytes.reserve(size.min(1 << 16));
    1
}

unsafe fn this<'a>(l: *mut State) -> &'a mut Buffer {
    &mut *ffi::luaL_checkudata(l, 1, NAME.as_ptr()).cast()
}

unsafe extern "C-unwind" fn collect(l: *mut State) -> c_int {
    *this(l) = Buffer {
        bytes: Vec::new(),
        taken: 0,
    };
    0
}

/// Appends the value at `index`: text, a number, another buffer, or what `__tostring` gives.
unsafe fn append(l: *mut State, index: c_int) {
    let other = ffi::luaL_testudata(l, index, NAME.as_ptr()).cast::<Buffer>();
    if !other.is_null() && other == std::ptr::from_mut(this(l)) {
        crate::alloc::demand_in(l, &mut (*other).bytes, (*other).rest().len());
        return this(l).bytes.extend_from_within((*other).taken..);
    }
    let bytes = if other.is_null() {
        if !matches!(ffi::lua_type(l, index), ffi::TSTRING | ffi::TNUMBER)
            && ffi::luaL_getmetafield(l, index, c"__tostring".as_ptr()) == 0
        {
            ffi::arg_error(l, index, c"string, number or buffer expected");
        }
        ffi::luaL_tolstring(l, index, std::ptr::null_mut());
        ffi::to_bytes(l, -1).unwrap_or_default()
    } else {
        (*other).rest()
    };
    ffi::tick(l, bytes.len());
    let buffer = this(l);
    if buffer.rest().len() + bytes.len() > MOST {
        ffi::error(l, b"buffer too large");
    }
    crate::alloc::demand_in(l, &mut buffer.bytes, bytes.len());
    buffer.bytes.extend_from_slice(bytes);
}

unsafe extern "C-unwind" fn put(l: *mut State) -> c_int {
    let top = ffi::lua_gettop(l);
    for index in 2..=top {
        append(l, index);
        ffi::lua_settop(l, top);
    }
    ffi::lua_settop(l, 1);
    1
}

/// `putf(format, …)`, by `string.format`.
unsafe extern "C-unwind" fn putf(l: *mut State) -> c_int {
    this(l);
    let count = ffi::lua_gettop(l) - 1;
    ffi::lua_rawgeti(l, ffi::REGISTRY, ffi::RIDX_GLOBALS);
    ffi::lua_getfield(l, -1, c"string".as_ptr());
    ffi::lua_getfield(l, -1, c"format".as_ptr());
    ffi::lua_insert(l, 2);
    ffi::lua_settop(l, count + 2);
    ffi::lua_callk(l, count, 1, 0, None);
    append(l, 2);
    ffi::lua_settop(l, 1);
    1
}

unsafe extern "C-unwind" fn set(l: *mut State) -> c_int {
    let bytes = ffi::check_bytes(l, 2);
    ffi::tick(l, bytes.len());
    let buffer = this(l);
    buffer.taken = 0;
    buffer.bytes.clear();
    buffer.bytes.extend_from_slice(bytes);
    ffi::lua_settop(l, 1);
    1
}

/// `get(length…)`: takes that many bytes from the front for each; all without an argument.
unsafe extern "C-unwind" fn get(l: *mut State) -> c_int {
    let top = ffi::lua_gettop(l).max(2);
    ffi::lua_settop(l, top);
    ffi::luaL_checkstack(l, top, c"buffer".as_ptr());
    for index in 2..=top {
        let left = this(l).rest().len();
        let wanted = if ffi::lua_type(l, index) == ffi::TNIL {
            left
        } else {
            length(l, index).min(left)
        };
        ffi::push_bytes(l, &this(l).rest()[..wanted]);
        this(l).take(wanted);
    }
    top - 1
}

unsafe fn length(l: *mut State, index: c_int) -> usize {
    usize::try_from(ffi::luaL_checkinteger(l, index)).unwrap_or(0)
}

unsafe extern "C-unwind" fn skip(l: *mut State) -> c_int {
    let count = length(l, 2);
    this(l).take(count);
    ffi::lua_settop(l, 1);
    1
}

unsafe extern "C-unwind" fn reset(l: *mut State) -> c_int {
    let buffer = this(l);
    buffer.bytes.clear();
    buffer.taken = 0;
    ffi::lua_settop(l, 1);
    1
}

unsafe extern "C-unwind" fn free(l: *mut State) -> c_int {
    collect(l)
}

unsafe extern "C-unwind" fn len(l: *mut State) -> c_int {
    ffi::lua_pushnumber(l, number(this(l).rest().len()));
    1
}

unsafe extern "C-unwind" fn tostring(l: *mut State) -> c_int {
    ffi::push_bytes(l, this(l).rest());
    1
}

unsafe extern "C-unwind" fn concat(l: *mut State) -> c_int {
    ffi::luaL_tolstring(l, 1, std::ptr::null_mut());
    ffi::luaL_tolstring(l, 2, std::ptr::null_mut());
    ffi::lua_concat(l, 2);
    1
}

/// `buffer:encode(value)`: appends its bytes.
unsafe extern "C-unwind" fn encode(l: *mut State) -> c_int {
    this(l);
    ffi::luaL_checkany(l, 2);
    lib_buffer_codec::push_encoded(l, 2, b"");
    append(l, -1);
    ffi::lua_settop(l, 1);
    1
}

/// `buffer:decode()`: takes a value's bytes from the front, and gives the value.
unsafe extern "C-unwind" fn decode(l: *mut State) -> c_int {
    match lib_buffer_codec::push_decoded(l, this(l).rest()) {
        Ok(length) => {
            this(l).take(length);
            1
        }
        Err(Malformed) => ffi::error(l, b"unexpected end of buffer"),
    }
}
