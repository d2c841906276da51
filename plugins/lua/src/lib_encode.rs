//! `ngx.escape_uri`, query arguments, base64 and SQL quoting, byte for byte as OpenResty's.
#![expect(unsafe_code, reason = "the C API of Lua")]
#![expect(
    unsafe_op_in_unsafe_fn,
    reason = "every function works on the live state that Lua hands in"
)]

use crate::ffi::{self, State};
use crate::lib_scratch::{push_built, push_built_or_nil, stringify};
use std::ffi::c_int;

/// What `ngx.decode_args` reads when no number is given.
const MAX_ARGS: isize = 100;

/// Installs the functions into `ngx`, and the module `ngx.base64`.
pub(crate) unsafe fn open(l: *mut State) {
    ffi::push_ngx(l);
    ffi::register(
        l,
        &[
            (c"escape_uri", escape_uri),
            (c"unescape_uri", unescape_uri),
            (c"encode_args", encode_args),
            (c"decode_args", decode_args),
            (c"encode_base64", encode_base64),
            (c"decode_base64", decode_base64),
            (c"decode_base64mime", decode_base64mime),
            (c"quote_sql_str", quote_sql_str),
        ],
    );
    ffi::push_library(
        l,
        &[
            (c"encode_base64url", encode_base64url),
            (c"decode_base64url", decode_base64url),
        ],
    );
    ffi::set_loaded(l, c"ngx.base64");
    ffi::pop(l, 2);
}

/// An argument as `ngx.*` takes text: nil and false are empty, others go through `tostring`.
pub(crate) unsafe fn text<'a>(l: *mut State, arg: c_int) -> &'a [u8] {
    if ffi::lua_type(l, arg) == ffi::TSTRING {
        return ffi::to_bytes(l, arg).unwrap_or_default();
    }
    if ffi::lua_toboolean(l, arg) == 0 {
        return b"";
    }
    let bytes = stringify(l, arg);
    ffi::tick(l, bytes.len());
    bytes
}

/// Whether `byte` is escaped under nginx's escape type `kind`.
const fn escaped(byte: u8, kind: u8) -> bool {
    let control = byte < 0x20 || byte >= 0x7f;
    match kind {
        0 => control || matches!(byte, b' ' | b'#' | b'%' | b'?'),
        1 => control || matches!(byte, b' ' | b'#' | b'%' | b'?' | b'+'),
        2 => {
            !byte.is_ascii_alphanumeric()
                && !matches!(
                    byte,
                    b'-' | b'.' | b'_' | b'~' | b'!' | b'\'' | b'(' | b')' | b'*'
                )
        }
        3 => control || matches!(byte, b' ' | b'#' | b'"' | b'%' | b'\''),
        4 => control || matches!(byte, b' ' | b'"' | b'\''),
        _ => byte < 0x20 || matches!(byte, b' ' | b'%'),
    }
}

/// Writes `text` with nginx's escape type `kind` (0 URI, 1 arguments, 2 component, …).
pub(crate) fn escape(out: &mut Vec<u8>, text: &[u8], kind: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text {
        if escaped(*byte, kind) {
            out.extend_from_slice(&[
                b'%',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]);
        } else {
            out.push(*byte);
        }
    }
}

/// Writes `text` with `%XX` and `+` decoded; what is no escape stays.
pub(crate) fn unescape(out: &mut Vec<u8>, text: &[u8]) {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        at += 1;
        let digit = |offset: usize| {
            text.get(at + offset)
                .and_then(|b| char::from(*b).to_digit(16))
        };
        match (*byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high << 4 | low).unwrap_or(0));
                at += 2;
            }
            (b'+', ..) => out.push(b' '),
            _ => out.push(*byte),
        }
    }
}

unsafe extern "C-unwind" fn escape_uri(l: *mut State) -> c_int {
    let source = text(l, 1);
    let mut kind = 2;
    if ffi::lua_type(l, 2) > ffi::TNIL {
        if ffi::lua_type(l, 2) != ffi::TNUMBER {
            ffi::error(l, b"\"type\" is not a number");
        }
        kind = match u8::try_from(ffi::lua_tointegerx(l, 2, std::ptr::null_mut())) {
            Ok(kind) if kind <= 6 => kind,
            _ => out_of_range(l),
        };
    }
    if source.iter().any(|b| escaped(*b, kind)) {
        ffi::tick(l, source.len());
        push_built(l, |out| escape(out, source, kind));
    } else {
        ffi::push_bytes(l, source);
    }
    1
}

unsafe fn out_of_range(l: *mut State) -> ! {
    ffi::luaL_where(l, 1);
    ffi::push_bytes(l, b"\"type\" ");
    ffi::lua_pushvalue(l, 2);
    ffi::push_bytes(l, b" out of range");
    ffi::lua_concat(l, 4);
    ffi::raise(l)
}

unsafe extern "C-unwind" fn unescape_uri(l: *mut State) -> c_int {
    let source = text(l, 1);
    ffi::tick(l, source.len());
    push_built(l, |out| unescape(out, source));
    1
}

/// `ngx.encode_args(table)`
unsafe extern "C-unwind" fn encode_args(l: *mut State) -> c_int {
    let count = ffi::lua_gettop(l);
    if count != 1 {
        wrong_count(l, b"expecting 1 argument but seen ", count);
    }
    ffi::luaL_checktype(l, 1, ffi::TTABLE);
    push_args(l, 1);
    1
}

unsafe fn wrong_count(l: *mut State, message: &[u8], count: c_int) -> ! {
    ffi::luaL_where(l, 1);
    ffi::push_bytes(l, message);
    ffi::lua_pushnumber(l, f64::from(count));
    ffi::lua_concat(l, 3);
    ffi::raise(l)
}

/// Pushes the table at `index` as a query string.
pub(crate) unsafe fn push_args(l: *mut State, index: c_int) {
    ffi::push_bytes(l, b"");
    let text = ffi::lua_gettop(l);
    // Checked before anything is built: errors must not pass through the builder.
    let total = check_args(l, index);
    crate::alloc::demand(l, total);
    push_built(l, |out| {
        // SAFETY: reads of strings and of a checked table, which cannot raise.
        unsafe {
            ffi::lua_pushnil(l);
            while ffi::lua_next(l, index) != 0 {
                if ffi::lua_type(l, -1) == ffi::TTABLE {
                    for i in 1.. {
                        ffi::lua_rawgeti(l, -1, i);
                        let end = ffi::lua_type(l, -1) == ffi::TNIL;
                        if !end {
                            push_pair(l, out, -3);
                        }
                        ffi::pop(l, 1);
                        if end {
                            break;
                        }
                    }
                } else {
                    push_pair(l, out, -2);
                }
                ffi::pop(l, 1);
            }
        }
    });
    ffi::lua_replace(l, text);
}

/// Writes `key=value` for the value on the top; true is the key alone, false nothing.
unsafe fn push_pair(l: *mut State, out: &mut Vec<u8>, key: c_int) {
    let value = ffi::lua_type(l, -1);
    if value == ffi::TBOOLEAN && ffi::lua_toboolean(l, -1) == 0 {
        return;
    }
    if !out.is_empty() {
        out.push(b'&');
    }
    escape(out, ffi::to_bytes(l, key).unwrap_or_default(), 2);
    if value != ffi::TBOOLEAN {
        out.push(b'=');
        escape(out, ffi::to_bytes(l, -1).unwrap_or_default(), 2);
    }
}

/// Gives how long the query string may become.
unsafe fn check_args(l: *mut State, index: c_int) -> usize {
    // Each byte may be escaped; numbers are short.
    let most = |key: usize, value: usize| (key + value + 32).saturating_mul(3);
    let mut total: usize = 0;
    ffi::luaL_checkstack(l, 8, c"encode_args".as_ptr());
    ffi::lua_pushnil(l);
    while ffi::lua_next(l, index) != 0 {
        if ffi::lua_type(l, -2) != ffi::TSTRING {
            ffi::error(
                l,
                b"attempt to use a non-string key in the \"args\" option table",
            );
        }
        if ffi::lua_type(l, -1) == ffi::TTABLE {
            let length = ffi::lua_rawlen(l, -1);
            let key = ffi::lua_rawlen(l, -2);
            for i in 1..=c_int::try_from(length).unwrap_or(c_int::MAX) {
                ffi::lua_rawgeti(l, -1, i);
                check_arg(l);
                total = total.saturating_add(most(key, ffi::lua_rawlen(l, -1)));
                ffi::pop(l, 1);
            }
            ffi::tick(l, length * 16);
        } else {
            check_arg(l);
            let (key, value) = (ffi::lua_rawlen(l, -2), ffi::lua_rawlen(l, -1));
            total = total.saturating_add(most(key, value));
        }
        ffi::pop(l, 1);
        ffi::tick(l, 32);
    }
    total
}

unsafe fn check_arg(l: *mut State) {
    let kind = ffi::lua_type(l, -1);
    if !matches!(
        kind,
        ffi::TSTRING | ffi::TNUMBER | ffi::TBOOLEAN | ffi::TNIL
    ) {
        ffi::luaL_where(l, 1);
        ffi::push_bytes(l, b"attempt to use ");
        ffi::lua_pushstring(l, ffi::lua_typename(l, kind));
        ffi::push_bytes(l, b" as query arg value");
        ffi::lua_concat(l, 4);
        ffi::raise(l);
    }
}

/// `args, err = ngx.decode_args(text, max?)`
unsafe extern "C-unwind" fn decode_args(l: *mut State) -> c_int {
    let count = ffi::lua_gettop(l);
    if count != 1 && count != 2 {
        wrong_count(l, b"expecting 1 or 2 arguments but seen ", count);
    }
    let source = ffi::check_bytes(l, 1);
    let max = ffi::opt_integer(l, 2, MAX_ARGS);
    ffi::lua_createtable(l, 0, 4);
    parse_args(l, source, max)
}

/// Reads a query string into the table on the top; at most `max` pairs (0 or less: all). Gives
/// the number of results: the table, and `truncated` when there was more.
pub(crate) unsafe fn parse_args(l: *mut State, source: &[u8], max: isize) -> c_int {
    let mut rest = source;
    let mut count = 0;
    ffi::tick(l, source.len());
    while !rest.is_empty() {
        let end = memchr::memchr(b'&', rest);
        let pair = &rest[..end.unwrap_or(rest.len())];
        rest = end.map_or(&[][..], |end| &rest[end + 1..]);
        parse_pair(l, pair);
        count += 1;
        if max > 0 && count == max && end.is_some() {
            ffi::push_bytes(l, b"truncated");
            return 2;
        }
    }
    1
}

unsafe fn parse_pair(l: *mut State, pair: &[u8]) {
    let equals = memchr::memchr(b'=', pair);
    let key = &pair[..equals.unwrap_or(pair.len())];
    if key.is_empty() {
        return;
    }
    push_built(l, |out| unescape(out, key));
    match equals {
        Some(equals) => push_built(l, |out| unescape(out, &pair[equals + 1..])),
        None => ffi::lua_pushboolean(l, 1),
    }
    add_value(l);
}

/// With `table, key, value` on the top: sets, or makes a list of the old and the new value.
pub(crate) unsafe fn add_value(l: *mut State) {
    ffi::lua_pushvalue(l, -2);
    ffi::lua_rawget(l, -4);
    match ffi::lua_type(l, -1) {
        ffi::TNIL => {
            ffi::pop(l, 1);
            ffi::lua_rawset(l, -3);
        }
        ffi::TTABLE => {
            let length = c_int::try_from(ffi::lua_rawlen(l, -1)).unwrap_or(0);
            ffi::lua_insert(l, -2);
            ffi::lua_rawseti(l, -2, length + 1);
            ffi::pop(l, 2);
        }
        _ => {
            ffi::lua_createtable(l, 4, 0);
            ffi::lua_insert(l, -3);
            ffi::lua_rawseti(l, -3, 1);
            ffi::lua_rawseti(l, -2, 2);
            ffi::lua_rawset(l, -3);
        }
    }
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn to_base64(out: &mut Vec<u8>, source: &[u8], alphabet: &[u8; 64], pad: bool) {
    for group in source.chunks(3) {
        let bits =
            group.iter().fold(0u32, |bits, b| bits << 8 | u32::from(*b)) << (8 * (3 - group.len()));
        for place in 0..4 {
            if place <= group.len() {
                out.push(alphabet[(bits >> (18 - 6 * place) & 63) as usize]);
            } else if pad {
                out.push(b'=');
            }
        }
    }
}

const fn sextet(byte: u8, alphabet: &[u8; 64]) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        _ if byte == alphabet[62] => Some(62),
        _ if byte == alphabet[63] => Some(63),
        _ => None,
    }
}

/// As nginx: a `=` ends the text, padding may be absent. `skip` passes over other bytes.
fn from_base64(out: &mut Vec<u8>, source: &[u8], alphabet: &[u8; 64], skip: bool) -> bool {
    let (mut bits, mut count) = (0u32, 0usize);
    for byte in source.iter().take_while(|b| **b != b'=') {
        let Some(six) = sextet(*byte, alphabet) else {
            if skip {
                continue;
            }
            return false;
        };
        bits = (bits << 6 | u32::from(six)) & 0xff_ffff;
        count += 1;
        if count % 4 == 0 {
            out.extend_from_slice(&bits.to_be_bytes()[1..]);
        }
    }
    match count % 4 {
        1 => return false,
        2 => out.push((bits >> 4 & 0xff) as u8),
        3 => out.extend_from_slice(&[(bits >> 10 & 0xff) as u8, (bits >> 2 & 0xff) as u8]),
        _ => {}
    }
    true
}

unsafe extern "C-unwind" fn encode_base64(l: *mut State) -> c_int {
    let source = text(l, 1);
    let bare = ffi::lua_toboolean(l, 2) != 0;
    if bare && ffi::lua_type(l, 2) != ffi::TBOOLEAN {
        ffi::luaL_where(l, 1);
        ffi::push_bytes(l, b"bad no_padding: boolean expected, got ");
        ffi::lua_pushstring(l, ffi::lua_typename(l, ffi::lua_type(l, 2)));
        ffi::lua_concat(l, 3);
        ffi::raise(l);
    }
    ffi::tick(l, source.len());
    push_built(l, |out| to_base64(out, source, STANDARD, !bare));
    1
}

unsafe fn decode(l: *mut State, skip: bool) -> c_int {
    if ffi::lua_type(l, 1) != ffi::TSTRING {
        ffi::error(l, b"string argument only");
    }
    let source = text(l, 1);
    ffi::tick(l, source.len());
    push_built_or_nil(l, |out| from_base64(out, source, STANDARD, skip));
    1
}

unsafe extern "C-unwind" fn decode_base64(l: *mut State) -> c_int {
    decode(l, false)
}

unsafe extern "C-unwind" fn decode_base64mime(l: *mut State) -> c_int {
    decode(l, true)
}

unsafe extern "C-unwind" fn encode_base64url(l: *mut State) -> c_int {
    if ffi::lua_type(l, 1) != ffi::TSTRING {
        return ffi::nil_error(l, b"must provide a string");
    }
    let source = text(l, 1);
    ffi::tick(l, source.len());
    push_built(l, |out| to_base64(out, source, URL, false));
    1
}

unsafe extern "C-unwind" fn decode_base64url(l: *mut State) -> c_int {
    if ffi::lua_type(l, 1) != ffi::TSTRING {
        return ffi::nil_error(l, b"must provide a string");
    }
    let source = text(l, 1);
    ffi::tick(l, source.len());
    push_built_or_nil(l, |out| from_base64(out, source, URL, false));
    if ffi::lua_type(l, -1) == ffi::TNIL {
        return ffi::nil_error(l, b"invalid input");
    }
    1
}

/// `ngx.quote_sql_str(text)`: in quotes, escaped by MySQL's rules.
unsafe extern "C-unwind" fn quote_sql_str(l: *mut State) -> c_int {
    if ffi::lua_gettop(l) != 1 {
        ffi::error(l, b"expecting one argument");
    }
    let source = ffi::check_bytes(l, 1);
    ffi::tick(l, source.len());
    push_built(l, |out| {
        out.push(b'\'');
        for byte in source {
            let letter = match byte {
                0 => b'0',
                0x08 => b'b',
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                26 => b'Z',
                b'\\' | b'\'' | b'"' => *byte,
                _ => {
                    out.push(*byte);
                    continue;
                }
            };
            out.extend_from_slice(&[b'\\', letter]);
        }
        out.push(b'\'');
    });
    1
}
