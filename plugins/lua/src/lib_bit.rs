//! `bit`: LuaJIT's bit operations, with its signed 32-bit results.
#![expect(unsafe_code, reason = "the C API of Lua")]
#![expect(
    unsafe_op_in_unsafe_fn,
    reason = "every function works on the live state that Lua hands in"
)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "bit operations work modulo 2^32"
)]

use crate::ffi::{self, State};
use std::ffi::c_int;

/// Loads `bit` into `package.loaded` and the globals.
pub(crate) unsafe fn open(l: *mut State) {
    ffi::push_library(
        l,
        &[
            (c"tobit", tobit),
            (c"tohex", tohex),
            (c"bnot", bnot),
            (c"band", band),
            (c"bor", bor),
            (c"bxor", bxor),
            (c"lshift", lshift),
            (c"rshift", rshift),
            (c"arshift", arshift),
            (c"rol", rol),
            (c"ror", ror),
            (c"bswap", bswap),
        ],
    );
    ffi::set_loaded(l, c"bit");
    ffi::lua_setglobal(l, c"bit".as_ptr());
}

/// A number's low 32 bits, halves rounded to even as LuaJIT's conversion does.
#[expect(clippy::cast_sign_loss, reason = "modulo 2^32")]
fn to_u32(n: f64) -> u32 {
    let rounded = n.round_ties_even();
    if rounded.abs() < 9_007_199_254_740_992.0 {
        rounded as i64 as u32
    } else if rounded.is_finite() {
        rounded.rem_euclid(4_294_967_296.0) as u64 as u32
    } else {
        0
    }
}

unsafe fn check(l: *mut State, arg: c_int) -> u32 {
    to_u32(ffi::luaL_checknumber(l, arg))
}

#[expect(clippy::cast_possible_wrap, reason = "results are signed")]
unsafe fn give(l: *mut State, bits: u32) -> c_int {
    ffi::lua_pushnumber(l, f64::from(bits as i32));
    1
}

unsafe extern "C-unwind" fn tobit(l: *mut State) -> c_int {
    give(l, check(l, 1))
}

unsafe extern "C-unwind" fn bnot(l: *mut State) -> c_int {
    give(l, !check(l, 1))
}

unsafe extern "C-unwind" fn bswap(l: *mut State) -> c_int {
    give(l, check(l, 1).swap_bytes())
}

unsafe fn fold(l: *mut State, f: fn(u32, u32) -> u32) -> c_int {
    let mut bits = check(l, 1);
    for arg in 2..=ffi::lua_gettop(l) {
        bits = f(bits, check(l, arg));
    }
    give(l, bits)
}

unsafe extern "C-unwind" fn band(l: *mut State) -> c_int {
    fold(l, |a, b| a & b)
}

unsafe extern "C-unwind" fn bor(l: *mut State) -> c_int {
    fold(l, |a, b| a | b)
}

unsafe extern "C-unwind" fn bxor(l: *mut State) -> c_int {
    fold(l, |a, b| a ^ b)
}

/// Only the lower five bits of the distance count.
unsafe fn shift(l: *mut State, f: fn(u32, u32) -> u32) -> c_int {
    let bits = check(l, 1);
    let distance = check(l, 2) & 31;
    give(l, f(bits, distance))
}

unsafe extern "C-unwind" fn lshift(l: *mut State) -> c_int {
    shift(l, |a, n| a << n)
}

unsafe extern "C-unwind" fn rshift(l: *mut State) -> c_int {
    shift(l, |a, n| a >> n)
}

#[expect(
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "the sign bit is what shifts in"
)]
unsafe extern "C-unwind" fn arshift(l: *mut State) -> c_int {
    shift(l, |a, n| ((a as i32) >> n) as u32)
}

unsafe extern "C-unwind" fn rol(l: *mut State) -> c_int {
    shift(l, u32::rotate_left)
}

unsafe extern "C-unwind" fn ror(l: *mut State) -> c_int {
    shift(l, u32::rotate_right)
}

/// `tohex(x, n)`: the lowest |n| digits; upper case when n is negative.
#[expect(clippy::cast_possible_wrap, reason = "the count is signed")]
unsafe extern "C-unwind" fn tohex(l: *mut State) -> c_int {
    let mut bits = check(l, 1);
    let count = if ffi::lua_type(l, 2) <= ffi::TNIL {
        8
    } else {
        check(l, 2) as i32
    };
    let digits: &[u8; 16] = if count < 0 {
        b"0123456789ABCDEF"
    } else {
        b"0123456789abcdef"
    };
    let length = count.unsigned_abs().min(8) as usize;
    let mut text = [0u8; 8];
    for place in text[..length].iter_mut().rev() {
        *place = digits[(bits & 15) as usize];
        bits >>= 4;
    }
    ffi::push_bytes(l, &text[..length]);
    1
}
