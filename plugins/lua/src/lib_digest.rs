//! Checksums and digests: `ngx.md5 …`, the streaming `resty.md5 … resty.sha512`, `resty.random`.
#![expect(unsafe_code, reason = "the C API of Lua")]
#![expect(
    unsafe_op_in_unsafe_fn,
    reason = "every function works on the live state that Lua hands in"
)]

use crate::ffi::{self, State};
use crate::lib_encode::text;
use crate::lib_scratch::{push_built, push_built_or_nil};
use hmac::{Hmac, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::digest::{Digest, FixedOutputReset};
use sha2::{Sha224, Sha256, Sha384, Sha512};
use std::ffi::{CStr, c_int};

unsafe extern "C" {
    /// wasi-libc's: the host's randomness, at most 256 bytes a call.
    fn getentropy(buffer: *mut u8, length: usize) -> c_int;
}

/// A digest that `resty.*` offers. None of them has a destructor, so Lua's memory may hold them.
trait Streaming: Digest + FixedOutputReset + Default {
    /// The module, which names the metatable, too.
    const MODULE: &'static CStr;
}

impl Streaming for Md5 {
    const MODULE: &'static CStr = c"resty.md5";
}
impl Streaming for Sha1 {
    const MODULE: &'static CStr = c"resty.sha1";
}
impl Streaming for Sha224 {
    const MODULE: &'static CStr = c"resty.sha224";
}
impl Streaming for Sha256 {
    const MODULE: &'static CStr = c"resty.sha256";
}
impl Streaming for Sha384 {
    const MODULE: &'static CStr = c"resty.sha384";
}
impl Streaming for Sha512 {
    const MODULE: &'static CStr = c"resty.sha512";
}

/// Installs the functions into `ngx`, and the modules.
pub(crate) unsafe fn open(l: *mut State) {
    ffi::push_ngx(l);
    ffi::register(
        l,
        &[
            (c"crc32_short", crc32),
            (c"crc32_long", crc32),
            (c"md5", md5),
            (c"md5_bin", md5_bin),
            (c"sha1_bin", sha1_bin),
            (c"hmac_sha1", hmac_sha1),
        ],
    );
    module::<Md5>(l);
    module::<Sha1>(l);
    module::<Sha224>(l);
    module::<Sha256>(l);
    module::<Sha384>(l);
    module::<Sha512>(l);
    ffi::push_library(l, &[(c"to_hex", to_hex), (c"atoi", atoi)]);
    ffi::set_loaded(l, c"resty.string");
    ffi::push_library(l, &[(c"bytes", random)]);
    ffi::set_loaded(l, c"resty.random");
    ffi::pop(l, 3);
}

unsafe fn module<D: Streaming>(l: *mut State) {
    ffi::push_library(l, &[(c"new", new::<D>)]);
    ffi::set_loaded(l, D::MODULE);
    ffi::luaL_newmetatable(l, D::MODULE.as_ptr());
    ffi::push_library(
        l,
        &[
            (c"update", update::<D>),
            (c"final", finish::<D>),
            (c"reset", reset::<D>),
        ],
    );
    ffi::lua_setfield(l, -2, c"__index".as_ptr());
    ffi::pop(l, 2);
}

unsafe extern "C-unwind" fn new<D: Streaming>(l: *mut State) -> c_int {
    aligned(ffi::lua_newuserdata(l, size_of::<D>() + align_of::<D>()).cast::<D>())
        .write(D::default());
    ffi::lua_getfield(l, ffi::REGISTRY, D::MODULE.as_ptr());
    ffi::lua_setmetatable(l, -2);
    1
}

/// SHA-512 counts in 128 bits, and Lua's memory is not aligned for those: there is room to move up.
fn aligned<D>(at: *mut D) -> *mut D {
    at.map_addr(|address| address.next_multiple_of(align_of::<D>()))
}

unsafe fn this<D: Streaming>(l: *mut State) -> *mut D {
    aligned(ffi::luaL_checkudata(l, 1, D::MODULE.as_ptr()).cast())
}

/// `update(text, length?)`
unsafe extern "C-unwind" fn update<D: Streaming>(l: *mut State) -> c_int {
    let digest = this::<D>(l);
    let bytes = ffi::check_bytes(l, 2);
    let length = usize::try_from(ffi::opt_integer(l, 3, isize::MAX))
        .unwrap_or(0)
        .min(bytes.len());
    ffi::tick(l, length);
    Digest::update(&mut *digest, &bytes[..length]);
    ffi::lua_pushboolean(l, 1);
    1
}

unsafe extern "C-unwind" fn finish<D: Streaming>(l: *mut State) -> c_int {
    let digest = this::<D>(l);
    push_built(l, |out| {
        out.extend_from_slice(&(*digest).finalize_fixed_reset())
    });
    1
}

unsafe extern "C-unwind" fn reset<D: Streaming>(l: *mut State) -> c_int {
    this::<D>(l).write(D::default());
    ffi::lua_pushboolean(l, 1);
    1
}

unsafe extern "C-unwind" fn crc32(l: *mut State) -> c_int {
    let bytes = text(l, 1);
    ffi::tick(l, bytes.len());
    ffi::lua_pushnumber(l, f64::from(crc32fast::hash(bytes)));
    1
}

fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
}

unsafe fn digest<D: Digest>(l: *mut State) -> c_int {
    let bytes = text(l, 1);
    ffi::tick(l, bytes.len());
    push_built(l, |out| out.extend_from_slice(&D::digest(bytes)));
    1
}

unsafe extern "C-unwind" fn md5(l: *mut State) -> c_int {
    let bytes = text(l, 1);
    ffi::tick(l, bytes.len());
    push_built(l, |out| hex(out, &Md5::digest(bytes)));
    1
}

unsafe extern "C-unwind" fn md5_bin(l: *mut State) -> c_int {
    digest::<Md5>(l)
}

unsafe extern "C-unwind" fn sha1_bin(l: *mut State) -> c_int {
    digest::<Sha1>(l)
}

unsafe extern "C-unwind" fn hmac_sha1(l: *mut State) -> c_int {
    let count = ffi::lua_gettop(l);
    if count != 2 {
        ffi::luaL_where(l, 1);
        ffi::push_bytes(l, b"expecting 2 arguments, but got ");
        ffi::lua_pushnumber(l, f64::from(count));
        ffi::lua_concat(l, 3);
        ffi::raise(l);
    }
    let (key, bytes) = (ffi::check_bytes(l, 1), ffi::check_bytes(l, 2));
    ffi::tick(l, key.len() + bytes.len());
    push_built_or_nil(l, |out| {
        let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(key) else {
            return false;
        };
        mac.update(bytes);
        out.extend_from_slice(&mac.finalize().into_bytes());
        true
    });
    1
}

/// `resty.string.to_hex(text)`
unsafe extern "C-unwind" fn to_hex(l: *mut State) -> c_int {
    let bytes = ffi::check_bytes(l, 1);
    ffi::tick(l, bytes.len());
    push_built(l, |out| hex(out, bytes));
    1
}

/// `resty.string.atoi(text)`: the whole number at the start, as C's `atoi`.
unsafe extern "C-unwind" fn atoi(l: *mut State) -> c_int {
    let bytes = ffi::check_bytes(l, 1).trim_ascii_start();
    let negative = bytes.first() == Some(&b'-');
    let digits = bytes
        .strip_prefix(b"-")
        .or_else(|| bytes.strip_prefix(b"+"))
        .unwrap_or(bytes);
    let mut value = 0.0;
    for digit in digits.iter().take_while(|b| b.is_ascii_digit()) {
        value = value * 10.0 + f64::from(digit - b'0');
    }
    ffi::lua_pushnumber(l, if negative { -value } else { value });
    1
}

/// `resty.random.bytes(length, strong?)`: both kinds come from the system.
unsafe extern "C-unwind" fn random(l: *mut State) -> c_int {
    /// More than this at once is a mistake.
    const MOST: usize = 1 << 20;
    let length = usize::try_from(ffi::luaL_checkinteger(l, 1)).unwrap_or(0);
    if length > MOST {
        ffi::arg_error(l, 1, c"at most 1048576 bytes");
    }
    ffi::tick(l, length);
    push_built_or_nil(l, |out| {
        out.resize(length, 0);
        out.chunks_mut(256).all(|part| {
            // SAFETY: the part is ours to write.
            unsafe { getentropy(part.as_mut_ptr(), part.len()) == 0 }
        })
    });
    1
}
