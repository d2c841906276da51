//! `cjson` and `cjson.safe`, as OpenResty's lua-cjson offers them: the modules and their settings.
#![expect(unsafe_code, reason = "the C API of Lua")]
#![expect(
    unsafe_op_in_unsafe_fn,
    reason = "every function works on the live state that Lua hands in"
)]

use crate::ffi::{self, CFunction, State};
use crate::lib_scratch::Single;
use std::ffi::{CStr, c_int, c_void};

/// The settings of one cjson object; plain data in a userdata that its functions share.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Config {
    pub(crate) sparse_convert: c_int,
    pub(crate) sparse_ratio: c_int,
    pub(crate) sparse_safe: c_int,
    pub(crate) encode_depth: c_int,
    pub(crate) decode_depth: c_int,
    /// 0 refuses, 1 writes NaN and Infinity, 2 writes null.
    pub(crate) encode_invalid: c_int,
    pub(crate) decode_invalid: c_int,
    pub(crate) precision: c_int,
    pub(crate) keep_buffer: c_int,
    pub(crate) empty_as_object: c_int,
    pub(crate) escape_slash: c_int,
    pub(crate) skip_unsupported: c_int,
    pub(crate) with_array_mt: c_int,
    pub(crate) comments: c_int,
    indent_length: usize,
    indent: [u8; INDENT],
}

/// The longest indent per level.
const INDENT: usize = 32;

const DEFAULT: Config = Config {
    sparse_convert: 0,
    sparse_ratio: 2,
    sparse_safe: 10,
    encode_depth: 1000,
    decode_depth: 1000,
    encode_invalid: 0,
    decode_invalid: 1,
    precision: 14,
    keep_buffer: 1,
    empty_as_object: 1,
    escape_slash: 1,
    skip_unsupported: 0,
    with_array_mt: 0,
    comments: 0,
    indent_length: 0,
    indent: [0; INDENT],
};

impl Config {
    /// What one level is indented by; empty is no layout at all.
    pub(crate) fn indent(&self) -> &[u8] {
        &self.indent[..self.indent_length]
    }
}

static ARRAY_MT: Single<u8> = Single::new(0);
static EMPTY_ARRAY_MT: Single<u8> = Single::new(0);

/// The address that stands for `array_mt` in the registry, and for the value `empty_array`.
pub(crate) const fn array_key() -> *const c_void {
    ARRAY_MT.get().cast_const().cast()
}

/// The address that stands for `empty_array_mt` in the registry.
pub(crate) const fn empty_array_key() -> *const c_void {
    EMPTY_ARRAY_MT.get().cast_const().cast()
}

const FUNCTIONS: [(&CStr, CFunction); 16] = [
    (c"encode", crate::lib_cjson_encode::encode),
    (c"decode", crate::lib_cjson_decode::decode),
    (c"encode_empty_table_as_object", empty_table_as_object),
    (c"decode_array_with_array_mt", array_with_array_mt),
    (c"decode_allow_comment", allow_comment),
    (c"encode_sparse_array", sparse_array),
    (c"encode_max_depth", encode_max_depth),
    (c"decode_max_depth", decode_max_depth),
    (c"encode_number_precision", number_precision),
    (c"encode_keep_buffer", keep_buffer),
    (c"encode_invalid_numbers", encode_invalid_numbers),
    (c"decode_invalid_numbers", decode_invalid_numbers),
    (c"encode_escape_forward_slash", escape_forward_slash),
    (c"encode_skip_unsupported_value_types", skip_unsupported),
    (c"encode_indent", encode_indent),
    (c"new", new),
];

/// Makes `require "cjson"` and `require "cjson.safe"` work.
pub(crate) unsafe fn open(l: *mut State) {
    for key in [array_key(), empty_array_key()] {
        ffi::lua_createtable(l, 0, 0);
        ffi::lua_rawsetp(l, ffi::REGISTRY, key);
    }
    ffi::set_preload(l, c"cjson", new);
    ffi::set_preload(l, c"cjson.safe", new_safe);
}

unsafe extern "C-unwind" fn new(l: *mut State) -> c_int {
    ffi::lua_createtable(l, 0, 24);
    ffi::lua_newuserdata(l, size_of::<Config>())
        .cast::<Config>()
        .write(DEFAULT);
    for (name, function) in FUNCTIONS {
        ffi::lua_pushvalue(l, -1);
        ffi::lua_pushcclosure(l, function, 1);
        ffi::lua_setfield(l, -3, name.as_ptr());
    }
    ffi::pop(l, 1);
    ffi::lua_pushlightuserdata(l, std::ptr::null_mut());
    ffi::lua_setfield(l, -2, c"null".as_ptr());
    ffi::lua_pushlightuserdata(l, array_key().cast_mut());
    ffi::lua_setfield(l, -2, c"empty_array".as_ptr());
    ffi::lua_rawgetp(l, ffi::REGISTRY, array_key());
    ffi::lua_setfield(l, -2, c"array_mt".as_ptr());
    ffi::lua_rawgetp(l, ffi::REGISTRY, empty_array_key());
    ffi::lua_setfield(l, -2, c"empty_array_mt".as_ptr());
    for (name, value) in [(c"_NAME", c"cjson"), (c"_VERSION", c"2.1.0.17")] {
        ffi::lua_pushstring(l, value.as_ptr());
        ffi::lua_setfield(l, -2, name.as_ptr());
    }
    1
}

/// As `new`, but `encode` and `decode` give `nil, err` in place of an error.
unsafe extern "C-unwind" fn new_safe(l: *mut State) -> c_int {
    new(l);
    ffi::register(l, &[(c"new", new_safe)]);
    for name in [c"encode", c"decode"] {
        ffi::lua_getfield(l, -1, name.as_ptr());
        ffi::lua_pushcclosure(l, protect, 1);
        ffi::lua_setfield(l, -2, name.as_ptr());
    }
    1
}

unsafe extern "C-unwind" fn protect(l: *mut State) -> c_int {
    one_argument(l);
    ffi::lua_pushvalue(l, ffi::upvalue_index(1));
    ffi::lua_insert(l, 1);
    if ffi::lua_pcallk(l, 1, 1, 0, 0, None) == ffi::OK {
        return 1;
    }
    ffi::lua_pushnil(l);
    ffi::lua_insert(l, -2);
    2
}

/// Raises unless there is exactly one argument.
pub(crate) unsafe fn one_argument(l: *mut State) {
    if ffi::lua_gettop(l) != 1 {
        ffi::arg_error(l, 1, c"expected 1 argument");
    }
}

/// The settings that the running function belongs to.
pub(crate) unsafe fn config(l: *mut State) -> *mut Config {
    ffi::lua_touserdata(l, ffi::upvalue_index(1)).cast()
}

/// The settings, with the arguments padded to `count`.
unsafe fn settings<'a>(l: *mut State, count: c_int) -> &'a mut Config {
    if ffi::lua_gettop(l) > count {
        ffi::arg_error(l, count + 1, c"found too many arguments");
    }
    ffi::lua_settop(l, count);
    &mut *config(l)
}

/// Sets an on/off setting from argument `arg`, and pushes it. `third` is a name for 2.
unsafe fn switch(l: *mut State, arg: c_int, setting: &mut c_int, third: Option<&CStr>) -> c_int {
    match ffi::lua_type(l, arg) {
        ffi::TNIL => {}
        ffi::TBOOLEAN => *setting = ffi::lua_toboolean(l, arg),
        _ => {
            *setting = match (ffi::check_bytes(l, arg), third) {
                (b"off", _) => 0,
                (b"on", _) => 1,
                (text, Some(name)) if text == name.to_bytes() => 2,
                _ => invalid_option(l, arg),
            }
        }
    }
    match third {
        Some(name) if *setting == 2 => {
            ffi::lua_pushstring(l, name.as_ptr());
        }
        _ => ffi::lua_pushboolean(l, *setting),
    }
    1
}

unsafe fn invalid_option(l: *mut State, arg: c_int) -> ! {
    ffi::push_bytes(l, b"invalid option '");
    ffi::lua_pushvalue(l, arg);
    ffi::push_bytes(l, b"'");
    ffi::lua_concat(l, 3);
    let text = ffi::lua_tolstring(l, -1, std::ptr::null_mut());
    ffi::arg_error(l, arg, CStr::from_ptr(text))
}

/// Sets a whole number of at least `least` and at most `most` from argument `arg`, and pushes it.
unsafe fn whole(
    l: *mut State,
    arg: c_int,
    setting: &mut c_int,
    least: c_int,
    most: c_int,
) -> c_int {
    if ffi::lua_type(l, arg) != ffi::TNIL {
        match c_int::try_from(ffi::luaL_checkinteger(l, arg)) {
            Ok(value) if value >= least && value <= most => *setting = value,
            _ => out_of_range(l, least, most),
        }
    }
    ffi::lua_pushnumber(l, f64::from(*setting));
    1
}

unsafe fn out_of_range(l: *mut State, least: c_int, most: c_int) -> ! {
    ffi::push_bytes(l, b"expected integer between ");
    ffi::lua_pushnumber(l, f64::from(least));
    ffi::push_bytes(l, b" and ");
    ffi::lua_pushnumber(l, f64::from(most));
    ffi::lua_concat(l, 4);
    let text = ffi::lua_tolstring(l, -1, std::ptr::null_mut());
    ffi::arg_error(l, 1, CStr::from_ptr(text))
}

unsafe extern "C-unwind" fn sparse_array(l: *mut State) -> c_int {
    let cfg = settings(l, 3);
    switch(l, 1, &mut cfg.sparse_convert, None);
    whole(l, 2, &mut cfg.sparse_ratio, 0, c_int::MAX);
    whole(l, 3, &mut cfg.sparse_safe, 0, c_int::MAX);
    3
}

unsafe extern "C-unwind" fn encode_max_depth(l: *mut State) -> c_int {
    whole(l, 1, &mut settings(l, 1).encode_depth, 1, c_int::MAX)
}

unsafe extern "C-unwind" fn decode_max_depth(l: *mut State) -> c_int {
    whole(l, 1, &mut settings(l, 1).decode_depth, 1, c_int::MAX)
}

unsafe extern "C-unwind" fn number_precision(l: *mut State) -> c_int {
    whole(l, 1, &mut settings(l, 1).precision, 1, 16)
}

unsafe extern "C-unwind" fn empty_table_as_object(l: *mut State) -> c_int {
    switch(l, 1, &mut settings(l, 1).empty_as_object, None)
}

unsafe extern "C-unwind" fn array_with_array_mt(l: *mut State) -> c_int {
    switch(l, 1, &mut settings(l, 1).with_array_mt, None)
}

unsafe extern "C-unwind" fn allow_comment(l: *mut State) -> c_int {
    switch(l, 1, &mut settings(l, 1).comments, None)
}

unsafe extern "C-unwind" fn skip_unsupported(l: *mut State) -> c_int {
    switch(l, 1, &mut settings(l, 1).skip_unsupported, None)
}

unsafe extern "C-unwind" fn escape_forward_slash(l: *mut State) -> c_int {
    switch(l, 1, &mut settings(l, 1).escape_slash, None)
}

/// Kept for its answer: the buffer is shared by all cjson objects and always kept.
unsafe extern "C-unwind" fn keep_buffer(l: *mut State) -> c_int {
    switch(l, 1, &mut settings(l, 1).keep_buffer, None)
}

unsafe extern "C-unwind" fn encode_invalid_numbers(l: *mut State) -> c_int {
    switch(l, 1, &mut settings(l, 1).encode_invalid, Some(c"null"))
}

unsafe extern "C-unwind" fn decode_invalid_numbers(l: *mut State) -> c_int {
    switch(l, 1, &mut settings(l, 1).decode_invalid, None)
}

unsafe extern "C-unwind" fn encode_indent(l: *mut State) -> c_int {
    let cfg = settings(l, 1);
    if let Some(text) = ffi::opt_bytes(l, 1) {
        let Some(place) = cfg.indent.get_mut(..text.len()) else {
            ffi::arg_error(l, 1, c"expected at most 32 bytes");
        };
        place.copy_from_slice(text);
        cfg.indent_length = text.len();
    }
    ffi::push_bytes(l, cfg.indent());
    1
}
