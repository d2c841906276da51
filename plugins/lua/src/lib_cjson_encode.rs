//! `cjson.encode`: walks Lua values and writes JSON into one reused buffer.
//!
//! A metamethod may run Lua code that encodes, too: that output goes behind ours in the same
//! buffer. Errors are carried back as values without destructors, and raised at the outermost.
#![expect(unsafe_code, reason = "the C API of Lua")]
#![expect(
    unsafe_op_in_unsafe_fn,
    reason = "every function works on the live state that Lua hands in"
)]

use crate::ffi::{self, State};
use crate::lib_cjson::{Config, array_key, config, empty_array_key, one_argument};
use crate::lib_number::push_g;
use crate::lib_scratch::{Single, int, number};
use std::ffi::c_int;

static OUTPUT: Single<Vec<u8>> = Single::new(Vec::new());
/// How many metamethods of values being encoded are running.
static RUNNING: Single<usize> = Single::new(0);
/// A larger buffer is given back after use.
const KEEP: usize = 1 << 20;
/// Deeper than this the Wasm stack would end first, whatever is configured.
const DEEPEST: c_int = 4000;

/// Why encoding ended.
#[derive(Clone, Copy)]
enum Fail {
    /// A value of this Lua type cannot be written.
    Value(c_int, &'static str),
    /// Too deep.
    Depth(c_int),
    /// Lua code raised; the value is on the top of the stack.
    Raised,
}

/// Whether a value was written, or left out as unsupported.
#[derive(Clone, Copy, PartialEq)]
enum Wrote {
    Value,
    Nothing,
}

#[derive(Clone, Copy)]
struct Encoder {
    l: *mut State,
    cfg: Config,
}

/// `cjson.encode(value)`
pub(crate) unsafe extern "C-unwind" fn encode(l: *mut State) -> c_int {
    one_argument(l);
    let out = &mut *OUTPUT.get();
    let base = if *RUNNING.get() > 0 { out.len() } else { 0 };
    if base == 0 && out.capacity() > KEEP {
        *out = Vec::new();
    }
    out.truncate(base);
    let encoder = Encoder { l, cfg: *config(l) };
    match encoder.value(0) {
        Ok(_) => {
            ffi::push_bytes(l, &(&*OUTPUT.get())[base..]);
            (*OUTPUT.get()).truncate(base);
            1
        }
        Err(fail) => {
            (*OUTPUT.get()).truncate(base);
            report(l, fail)
        }
    }
}

unsafe fn report(l: *mut State, fail: Fail) -> ! {
    ffi::luaL_checkstack(l, 8, c"cjson".as_ptr());
    match fail {
        Fail::Raised => ffi::raise(l),
        Fail::Depth(depth) => {
            ffi::luaL_where(l, 1);
            ffi::push_bytes(l, b"Cannot serialise, excessive nesting (");
            ffi::lua_pushnumber(l, f64::from(depth));
            ffi::push_bytes(l, b")");
            ffi::lua_concat(l, 4);
        }
        Fail::Value(kind, reason) => {
            ffi::luaL_where(l, 1);
            ffi::push_bytes(l, b"Cannot serialise ");
            ffi::lua_pushstring(l, ffi::lua_typename(l, kind));
            ffi::push_bytes(l, b": ");
            ffi::push_bytes(l, reason.as_bytes());
            ffi::lua_concat(l, 5);
        }
    }
    ffi::raise(l)
}

impl Encoder {
    unsafe fn put(&self, bytes: &[u8]) {
        crate::alloc::demand_in(self.l, &mut *OUTPUT.get(), bytes.len());
        (*OUTPUT.get()).extend_from_slice(bytes);
    }

    /// Writes the value on the top of the stack, and leaves it there.
    unsafe fn value(&self, depth: c_int) -> Result<Wrote, Fail> {
        let l = self.l;
        match ffi::lua_type(l, -1) {
            ffi::TSTRING => self.string(-1),
            ffi::TNUMBER => self.number(-1)?,
            ffi::TBOOLEAN => self.put(if ffi::lua_toboolean(l, -1) != 0 {
                b"true"
            } else {
                b"false"
            }),
            ffi::TTABLE => self.table(depth + 1)?,
            ffi::TNIL => self.put(b"null"),
            ffi::TLIGHTUSERDATA if ffi::lua_touserdata(l, -1).is_null() => self.put(b"null"),
            ffi::TLIGHTUSERDATA if ffi::lua_touserdata(l, -1).cast_const() == array_key() => {
                self.put(b"[]")
            }
            _ if self.cfg.skip_unsupported != 0 => return Ok(Wrote::Nothing),
            kind => return Err(Fail::Value(kind, "type not supported")),
        }
        Ok(Wrote::Value)
    }

    unsafe fn string(&self, index: c_int) {
        let out = &mut *OUTPUT.get();
        let text = ffi::to_bytes(self.l, index).unwrap_or_default();
        crate::alloc::demand_in(self.l, out, text.len() + 2);
        out.reserve(text.len() + 2);
        out.push(b'"');
        let mut kept = 0;
        for (at, byte) in text.iter().enumerate() {
            let special = *byte < 0x20
                || matches!(byte, b'"' | b'\\' | 0x7f)
                || (*byte == b'/' && self.cfg.escape_slash != 0);
            if special {
                out.extend_from_slice(&text[kept..at]);
                escape(out, *byte);
                kept = at + 1;
            }
        }
        out.extend_from_slice(&text[kept..]);
        out.push(b'"');
    }

    unsafe fn number(&self, index: c_int) -> Result<(), Fail> {
        let n = ffi::lua_tonumberx(self.l, index, std::ptr::null_mut());
        if n.is_finite() {
            push_g(
                &mut *OUTPUT.get(),
                n,
                self.cfg.precision.unsigned_abs() as usize,
            );
            return Ok(());
        }
        let text: &[u8] = match self.cfg.encode_invalid {
            0 => return Err(Fail::Value(ffi::TNUMBER, "must not be NaN or Infinity")),
            1 if n.is_nan() => b"NaN",
            1 if n < 0.0 => b"-Infinity",
            1 => b"Infinity",
            _ => b"null",
        };
        self.put(text);
        Ok(())
    }

    unsafe fn table(&self, depth: c_int) -> Result<(), Fail> {
        let l = self.l;
        if depth > self.cfg.encode_depth.min(DEEPEST) || ffi::lua_checkstack(l, 8) == 0 {
            return Err(Fail::Depth(depth));
        }
        let mut raw = true;
        let mut empty_array = false;
        if ffi::lua_getmetatable(l, -1) != 0 {
            ffi::lua_rawgetp(l, ffi::REGISTRY, array_key());
            let array = ffi::lua_rawequal(l, -1, -2) != 0;
            ffi::lua_rawgetp(l, ffi::REGISTRY, empty_array_key());
            empty_array = ffi::lua_rawequal(l, -1, -3) != 0;
            ffi::pop(l, 3);
            if array {
                return self.array(depth, ffi::lua_rawlen(l, -1), true);
            }
            raw = ffi::luaL_getmetafield(l, -1, c"__index".as_ptr()) == 0;
            if !raw {
                ffi::pop(l, 1);
            }
            if let Some(length) = self.length()? {
                return self.array(depth, length, raw);
            }
        }
        match self.array_length()? {
            Some(0) if empty_array => self.array(depth, 0, raw),
            Some(length) if length > 0 || self.cfg.empty_as_object == 0 => {
                self.array(depth, length, raw)
            }
            _ => self.object(depth),
        }
    }

    /// What the metamethod `__len` of the table on the top gives, if there is one.
    unsafe fn length(&self) -> Result<Option<usize>, Fail> {
        let l = self.l;
        if ffi::luaL_getmetafield(l, -1, c"__len".as_ptr()) == 0 {
            return Ok(None);
        }
        ffi::lua_pushvalue(l, -2);
        self.call(1)?;
        let length = ffi::lua_tointegerx(l, -1, std::ptr::null_mut());
        ffi::pop(l, 1);
        Ok(Some(usize::try_from(length).unwrap_or(0)))
    }

    /// Calls Lua code for one result, in protected mode so that `RUNNING` stays right.
    unsafe fn call(&self, arguments: c_int) -> Result<(), Fail> {
        *RUNNING.get() += 1;
        let status = ffi::lua_pcallk(self.l, arguments, 1, 0, 0, None);
        *RUNNING.get() -= 1;
        if status == ffi::OK {
            Ok(())
        } else {
            Err(Fail::Raised)
        }
    }

    /// The largest index when all keys are positive integers, `None` when not; raises or gives
    /// `None`, as configured, when too many would be null.
    unsafe fn array_length(&self) -> Result<Option<usize>, Fail> {
        let l = self.l;
        let (mut largest, mut items) = (0.0f64, 0usize);
        ffi::lua_pushnil(l);
        while ffi::lua_next(l, -2) != 0 {
            ffi::pop(l, 1);
            let key = if ffi::lua_type(l, -1) == ffi::TNUMBER {
                ffi::lua_tonumberx(l, -1, std::ptr::null_mut())
            } else {
                0.0
            };
            if !(1.0..=2_147_483_647.0).contains(&key) || key.fract() != 0.0 {
                ffi::pop(l, 1);
                return Ok(None);
            }
            largest = largest.max(key);
            items += 1;
        }
        ffi::tick(l, items);
        let (ratio, safe) = (
            f64::from(self.cfg.sparse_ratio),
            f64::from(self.cfg.sparse_safe),
        );
        if ratio > 0.0 && largest > number(items) * ratio && largest > safe {
            return if self.cfg.sparse_convert != 0 {
                Ok(None)
            } else {
                Err(Fail::Value(ffi::TTABLE, "excessively sparse array"))
            };
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "1 to 2^31 - 1, checked above"
        )]
        Ok(Some(largest as usize))
    }

    unsafe fn new_line(&self, depth: c_int) {
        if !self.cfg.indent().is_empty() {
            self.put(b"\n");
            for _ in 0..depth {
                self.put(self.cfg.indent());
            }
        }
    }

    /// Writes one element behind `comma`; gives back what was begun when it is left out.
    unsafe fn element(&self, depth: c_int, begun: usize, first: &mut bool) -> Result<(), Fail> {
        if self.value(depth)? == Wrote::Nothing {
            (*OUTPUT.get()).truncate(begun);
        } else {
            *first = false;
        }
        Ok(())
    }

    unsafe fn array(&self, depth: c_int, length: usize, raw: bool) -> Result<(), Fail> {
        let l = self.l;
        self.put(b"[");
        let mut first = true;
        for i in 1..=int(length) {
            let begun = (*OUTPUT.get()).len();
            if !first {
                self.put(b",");
            }
            self.new_line(depth);
            if raw {
                ffi::lua_rawgeti(l, -1, i);
            } else {
                ffi::lua_pushcclosure(l, index, 0);
                ffi::lua_pushvalue(l, -2);
                ffi::lua_pushnumber(l, f64::from(i));
                self.call(2)?;
            }
            self.element(depth, begun, &mut first)?;
            ffi::pop(l, 1);
            if i & 1023 == 0 {
                ffi::tick(l, 8192);
            }
        }
        if length > 0 {
            self.new_line(depth - 1);
        }
        self.put(b"]");
        ffi::tick(l, (length & 1023) * 8);
        Ok(())
    }

    unsafe fn object(&self, depth: c_int) -> Result<(), Fail> {
        let l = self.l;
        self.put(b"{");
        let (mut first, mut items) = (true, 0usize);
        ffi::lua_pushnil(l);
        while ffi::lua_next(l, -2) != 0 {
            items += 1;
            let begun = (*OUTPUT.get()).len();
            if !first {
                self.put(b",");
            }
            self.new_line(depth);
            match ffi::lua_type(l, -2) {
                ffi::TSTRING => self.string(-2),
                ffi::TNUMBER => {
                    self.put(b"\"");
                    self.number(-2)?;
                    self.put(b"\"");
                }
                kind => return Err(Fail::Value(kind, "table key must be a number or string")),
            }
            self.put(if self.cfg.indent().is_empty() {
                b":"
            } else {
                b": "
            });
            self.element(depth, begun, &mut first)?;
            ffi::pop(l, 1);
        }
        if items > 0 {
            self.new_line(depth - 1);
        }
        self.put(b"}");
        ffi::tick(l, items * 8);
        Ok(())
    }
}

unsafe extern "C-unwind" fn index(l: *mut State) -> c_int {
    ffi::lua_gettable(l, 1);
    1
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' | b'\\' | b'/' => byte,
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0c => b'f',
        b'\r' => b'r',
        _ => {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(&[
                b'\\',
                b'u',
                b'0',
                b'0',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}
