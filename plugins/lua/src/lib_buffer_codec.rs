//! `encode` and `decode` of `string.buffer`, in the format that LuaJIT documents: numbers, strings,
//! truth values, `ngx.null` and tables of them as bytes. The cache keeps Lua values in it, too.
//!
//! Values are read and built on the stack of Lua; nothing with a destructor is alive when Lua can
//! raise, for the output lies in a static.
#![expect(unsafe_code, reason = "the C API of Lua")]
#![expect(
    unsafe_op_in_unsafe_fn,
    reason = "every function works on the live state that Lua hands in"
)]

use crate::ffi::{self, State};
use crate::lib_scratch::{Single, int};
use std::ffi::c_int;

static OUTPUT: Single<Vec<u8>> = Single::new(Vec::new());
/// A larger buffer is given back after use.
const KEEP: usize = 1 << 20;
/// LuaJIT's depth.
const DEEPEST: u32 = 100;

const NIL: u8 = 0x00;
const FALSE: u8 = 0x01;
const TRUE: u8 = 0x02;
const NULL: u8 = 0x03;
const INT: u8 = 0x06;
const NUMBER: u8 = 0x07;
const TABLE: u8 = 0x08;
/// Bits of a table's tag: it has named entries; how its list is kept.
const NAMED: u8 = 1;
const LIST_FROM_0: u8 = 2;
const LIST_FROM_1: u8 = 4;
const LAST_TABLE: u8 = 0x0d;
const STRING: u8 = 0x20;

/// Pushes the bytes of the value at `index`, behind `prefix`; raises for what has none.
pub(crate) unsafe fn push_encoded(l: *mut State, index: c_int, prefix: &[u8]) {
    let out = &mut *OUTPUT.get();
    if out.capacity() > KEEP {
        *out = Vec::new();
    }
    out.clear();
    out.extend_from_slice(prefix);
    ffi::lua_pushvalue(l, index);
    put_value(l, 0);
    ffi::pop(l, 1);
    ffi::push_bytes(l, &*OUTPUT.get());
}

unsafe fn put(l: *mut State, bytes: &[u8]) {
    crate::alloc::demand_in(l, &mut *OUTPUT.get(), bytes.len());
    (*OUTPUT.get()).extend_from_slice(bytes);
}

/// A count in one to five bytes.
unsafe fn put_count(l: *mut State, n: u32) {
    let [low, high, ..] = n.wrapping_sub(0xe0).to_le_bytes();
    match n {
        0..0xe0 => put(l, &n.to_le_bytes()[..1]),
        0xe0..0x1fe0 => put(l, &[0xe0 | high, low]),
        _ => {
            put(l, &[0xff]);
            put(l, &n.to_le_bytes());
        }
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Writes the value on the top of the stack, and leaves it there.
unsafe fn put_value(l: *mut State, depth: u32) {
    ffi::tick(l, 8);
    match ffi::lua_type(l, -1) {
        ffi::TNIL => put(l, &[NIL]),
        ffi::TBOOLEAN if ffi::lua_toboolean(l, -1) == 0 => put(l, &[FALSE]),
        ffi::TBOOLEAN => put(l, &[TRUE]),
        ffi::TNUMBER => put_number(l),
        ffi::TSTRING => {
            let text = ffi::to_bytes(l, -1).unwrap_or_default();
            ffi::tick(l, text.len());
            put_count(l, count(text.len()).saturating_add(u32::from(STRING)));
            put(l, text);
        }
        ffi::TTABLE if depth >= DEEPEST => ffi::error(l, b"too deep to serialize"),
        ffi::TTABLE => put_table(l, depth),
        ffi::TLIGHTUSERDATA if ffi::lua_touserdata(l, -1).is_null() => put(l, &[NULL]),
        kind => {
            ffi::luaL_where(l, 1);
            ffi::push_bytes(l, b"cannot serialize ");
            ffi::lua_pushstring(l, ffi::lua_typename(l, kind));
            ffi::lua_concat(l, 3);
            ffi::raise(l)
        }
    }
}

unsafe fn put_number(l: *mut State) {
    let number = ffi::lua_tonumberx(l, -1, std::ptr::null_mut());
    #[expect(
        clippy::cast_possible_truncation,
        reason = "compared with what it was made of"
    )]
    let whole = number as i32;
    // Minus zero is no integer.
    if f64::from(whole).to_bits() == number.to_bits() {
        put(l, &[INT]);
        put(l, &whole.to_le_bytes());
    } else {
        put(l, &[NUMBER]);
        put(l, &number.to_le_bytes());
    }
}

unsafe fn put_table(l: *mut State, depth: u32) {
    ffi::luaL_checkstack(l, 8, c"serialize".as_ptr());
    let listed = ffi::lua_rawlen(l, -1);
    let named = named_entries(l, listed);
    let mut tag = TABLE;
    if named > 0 {
        tag |= NAMED;
    }
    if listed > 0 {
        tag += LIST_FROM_1;
    }
    put(l, &[tag]);
    if listed > 0 {
        put_count(l, count(listed).saturating_add(1));
    }
    if named > 0 {
        put_count(l, count(named));
    }
    for place in 1..=int(listed) {
        ffi::lua_rawgeti(l, -1, place);
        put_value(l, depth + 1);
        ffi::pop(l, 1);
    }
    if named == 0 {
        return;
    }
    ffi::lua_pushnil(l);
    while ffi::lua_next(l, -2) != 0 {
        if !in_list(l, listed) {
            ffi::lua_pushvalue(l, -2);
            put_value(l, depth + 1);
            ffi::pop(l, 1);
            put_value(l, depth + 1);
        }
        ffi::pop(l, 1);
    }
}

/// Whether the key below the top stands in the list.
unsafe fn in_list(l: *mut State, listed: usize) -> bool {
    if ffi::lua_type(l, -2) != ffi::TNUMBER {
        return false;
    }
    let key = ffi::lua_tonumberx(l, -2, std::ptr::null_mut());
    key >= 1.0 && key <= crate::lib_scratch::number(listed) && key.fract() == 0.0
}

unsafe fn named_entries(l: *mut State, listed: usize) -> usize {
    let mut named = 0;
    ffi::lua_pushnil(l);
    while ffi::lua_next(l, -2) != 0 {
        ffi::tick(l, 2);
        if !in_list(l, listed) {
            named += 1;
        }
        ffi::pop(l, 1);
    }
    named
}

/// What is left to be read.
struct Reader<'a> {
    l: *mut State,
    bytes: &'a [u8],
}

/// The bytes are no value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Malformed;

/// Pushes the value at the beginning of `bytes`, and gives how many bytes it took. What was pushed
/// of a malformed one is left to the caller. Raises for lack of memory only.
pub(crate) unsafe fn push_decoded(l: *mut State, bytes: &[u8]) -> Result<usize, Malformed> {
    ffi::tick(l, bytes.len());
    let mut reader = Reader { l, bytes };
    reader.value(0)?;
    Ok(bytes.len() - reader.bytes.len())
}

impl Reader<'_> {
    fn take(&mut self, n: usize) -> Result<&[u8], Malformed> {
        let (taken, rest) = self.bytes.split_at_checked(n).ok_or(Malformed)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    fn count(&mut self) -> Result<u32, Malformed> {
        let [first] = self.array()?;
        self.count_from(first)
    }

    fn count_from(&mut self, first: u8) -> Result<u32, Malformed> {
        Ok(match first {
            0..0xe0 => u32::from(first),
            0xff => u32::from_le_bytes(self.array()?),
            _ => {
                let [low] = self.array()?;
                (u32::from(first & 0x1f) << 8 | u32::from(low)) + 0xe0
            }
        })
    }

    unsafe fn value(&mut self, depth: u32) -> Result<(), Malformed> {
        let l = self.l;
        let [tag] = self.array()?;
        match tag {
            NIL => ffi::lua_pushnil(l),
            FALSE | TRUE => ffi::lua_pushboolean(l, c_int::from(tag == TRUE)),
            NULL => ffi::lua_pushlightuserdata(l, std::ptr::null_mut()),
            INT => ffi::lua_pushnumber(l, f64::from(i32::from_le_bytes(self.array()?))),
            NUMBER => ffi::lua_pushnumber(l, f64::from_le_bytes(self.array()?)),
            TABLE..=LAST_TABLE if depth < DEEPEST => self.table(tag, depth)?,
            STRING.. => {
                let length = self.count_from(tag)?.checked_sub(u32::from(STRING));
                let length = length.and_then(|n| usize::try_from(n).ok());
                let length = length.ok_or(Malformed)?;
                ffi::push_bytes(l, self.take(length)?);
            }
            _ => return Err(Malformed),
        }
        Ok(())
    }

    unsafe fn table(&mut self, tag: u8, depth: u32) -> Result<(), Malformed> {
        let l = self.l;
        ffi::luaL_checkstack(l, 8, c"deserialize".as_ptr());
        let shape = tag - TABLE;
        // A list's count is that of its slots, from 0.
        let (first, slots) = match shape & !NAMED {
            0 => (1, 1),
            LIST_FROM_0 => (0, self.count()?),
            LIST_FROM_1 => (1, self.count()?),
            _ => return Err(Malformed),
        };
        let named = if shape & NAMED == 0 { 0 } else { self.count()? };
        // An entry takes a byte at least: no table is made larger than what can be in it.
        let room = count(self.bytes.len());
        if slots.saturating_sub(1) > room || named > room {
            return Err(Malformed);
        }
        let size = |n: u32| c_int::try_from(n).unwrap_or(c_int::MAX);
        ffi::lua_createtable(l, size(slots.saturating_sub(1)), size(named));
        for place in first..size(slots) {
            self.value(depth + 1)?;
            ffi::lua_rawseti(l, -2, place);
        }
        for _ in 0..named {
            self.value(depth + 1)?;
            let bad = match ffi::lua_type(l, -1) {
                ffi::TNIL => true,
                ffi::TNUMBER => ffi::lua_tonumberx(l, -1, std::ptr::null_mut()).is_nan(),
                _ => false,
            };
            if bad {
                return Err(Malformed);
            }
            self.value(depth + 1)?;
            ffi::lua_rawset(l, -3);
        }
        Ok(())
    }
}

/// `buffer.encode(value)`
pub(crate) unsafe extern "C-unwind" fn encode(l: *mut State) -> c_int {
    ffi::luaL_checkany(l, 1);
    push_encoded(l, 1, b"");
    1
}

/// `buffer.decode(text)`
pub(crate) unsafe extern "C-unwind" fn decode(l: *mut State) -> c_int {
    let text = ffi::check_bytes(l, 1);
    match push_decoded(l, text) {
        Ok(length) if length == text.len() => 1,
        Ok(_) => ffi::error(l, b"left-over data in buffer"),
        Err(Malformed) => ffi::error(l, b"unexpected end of buffer"),
    }
}
