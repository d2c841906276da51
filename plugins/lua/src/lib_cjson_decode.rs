//! `cjson.decode`: parses bytes and builds Lua values on the stack as it goes.
#![expect(unsafe_code, reason = "the C API of Lua")]
#![expect(
    unsafe_op_in_unsafe_fn,
    reason = "every function works on the live state that Lua hands in"
)]

use crate::ffi::{self, State};
use crate::lib_cjson::{Config, array_key, config, one_argument};
use crate::lib_number;
use crate::lib_scratch::{Single, number};
use std::ffi::c_int;

/// A string with escapes is put together here.
static TEXT: Single<Vec<u8>> = Single::new(Vec::new());
/// Deeper than this the Wasm stack would end first, whatever is configured.
const DEEPEST: c_int = 4000;
/// A larger buffer is given back after use.
const KEEP: usize = 1 << 20;

/// What stands next, in lua-cjson's names. A string's text has been pushed.
#[derive(Clone, Copy, PartialEq)]
enum Token {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    Text,
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    Error(&'static str),
}

/// Why decoding ended.
#[derive(Clone, Copy)]
enum Fail {
    Expected(&'static str, &'static str, usize),
    Depth(c_int, usize),
}

struct Parser<'a> {
    l: *mut State,
    cfg: Config,
    text: &'a [u8],
    at: usize,
    /// Where the last token began, or its error lies.
    token_at: usize,
    depth: c_int,
}

/// `cjson.decode(text)`
pub(crate) unsafe extern "C-unwind" fn decode(l: *mut State) -> c_int {
    one_argument(l);
    let text = ffi::check_bytes(l, 1);
    if text.len() >= 2 && (text[0] == 0 || text[1] == 0) {
        ffi::error(l, b"JSON parser does not support UTF-16 or UTF-32");
    }
    ffi::tick(l, text.len());
    if (*TEXT.get()).capacity() > KEEP {
        *TEXT.get() = Vec::new();
    }
    let mut parser = Parser {
        l,
        cfg: *config(l),
        text,
        at: 0,
        token_at: 0,
        depth: 0,
    };
    let outcome = parser.document();
    match outcome {
        Ok(()) => 1,
        Err(fail) => report(l, fail),
    }
}

unsafe fn report(l: *mut State, fail: Fail) -> ! {
    ffi::luaL_checkstack(l, 10, c"cjson".as_ptr());
    ffi::luaL_where(l, 1);
    match fail {
        Fail::Expected(expected, found, at) => {
            ffi::push_bytes(l, b"Expected ");
            ffi::push_bytes(l, expected.as_bytes());
            ffi::push_bytes(l, b" but found ");
            ffi::push_bytes(l, found.as_bytes());
            ffi::push_bytes(l, b" at character ");
            ffi::lua_pushnumber(l, number(at + 1));
            ffi::lua_concat(l, 7);
        }
        Fail::Depth(depth, at) => {
            ffi::push_bytes(l, b"Found too many nested data structures (");
            ffi::lua_pushnumber(l, f64::from(depth));
            ffi::push_bytes(l, b") at character ");
            ffi::lua_pushnumber(l, number(at));
            ffi::lua_concat(l, 5);
        }
    }
    ffi::raise(l)
}

const fn name(token: Token) -> &'static str {
    match token {
        Token::ObjectBegin => "T_OBJ_BEGIN",
        Token::ObjectEnd => "T_OBJ_END",
        Token::ArrayBegin => "T_ARR_BEGIN",
        Token::ArrayEnd => "T_ARR_END",
        Token::Text => "T_STRING",
        Token::Number(_) => "T_NUMBER",
        Token::Boolean(_) => "T_BOOLEAN",
        Token::Null => "T_NULL",
        Token::Colon => "T_COLON",
        Token::Comma => "T_COMMA",
        Token::End => "T_END",
        Token::Error(text) => text,
    }
}

impl Parser<'_> {
    /// The byte at `at`; behind the text, and for NUL, 0: the end, as C sees it.
    fn byte(&self, at: usize) -> u8 {
        self.text.get(at).copied().unwrap_or(0)
    }

    const fn expected(&self, what: &'static str, found: Token) -> Fail {
        Fail::Expected(what, name(found), self.token_at)
    }

    unsafe fn document(&mut self) -> Result<(), Fail> {
        let token = self.next();
        self.value(token)?;
        match self.next() {
            Token::End => Ok(()),
            token => Err(self.expected("the end", token)),
        }
    }

    unsafe fn value(&mut self, token: Token) -> Result<(), Fail> {
        match token {
            Token::Text => {}
            Token::Number(n) => ffi::lua_pushnumber(self.l, n),
            Token::Boolean(b) => ffi::lua_pushboolean(self.l, c_int::from(b)),
            Token::Null => ffi::lua_pushlightuserdata(self.l, std::ptr::null_mut()),
            Token::ObjectBegin => self.object()?,
            Token::ArrayBegin => self.array()?,
            Token::ObjectEnd
            | Token::ArrayEnd
            | Token::Colon
            | Token::Comma
            | Token::End
            | Token::Error(_) => {
                return Err(self.expected("value", token));
            }
        }
        Ok(())
    }

    unsafe fn descend(&mut self) -> Result<(), Fail> {
        self.depth += 1;
        if self.depth > self.cfg.decode_depth.min(DEEPEST) || ffi::lua_checkstack(self.l, 6) == 0 {
            return Err(Fail::Depth(self.depth, self.at));
        }
        Ok(())
    }

    unsafe fn object(&mut self) -> Result<(), Fail> {
        self.descend()?;
        ffi::lua_createtable(self.l, 0, 0);
        let mut token = self.next();
        while token != Token::ObjectEnd {
            if token != Token::Text {
                return Err(self.expected("object key string", token));
            }
            token = self.next();
            if token != Token::Colon {
                return Err(self.expected("colon", token));
            }
            token = self.next();
            self.value(token)?;
            ffi::lua_rawset(self.l, -3);
            token = self.next();
            if token == Token::ObjectEnd {
                break;
            }
            if token != Token::Comma {
                return Err(self.expected("comma or object end", token));
            }
            token = self.next();
            if token == Token::ObjectEnd {
                return Err(self.expected("object key string", token));
            }
        }
        self.depth -= 1;
        Ok(())
    }

    unsafe fn array(&mut self) -> Result<(), Fail> {
        self.descend()?;
        ffi::lua_createtable(self.l, 0, 0);
        if self.cfg.with_array_mt != 0 {
            ffi::lua_rawgetp(self.l, ffi::REGISTRY, array_key());
            ffi::lua_setmetatable(self.l, -2);
        }
        let mut token = self.next();
        let mut index = 0;
        while index > 0 || token != Token::ArrayEnd {
            self.value(token)?;
            index += 1;
            ffi::lua_rawseti(self.l, -2, index);
            token = self.next();
            if token == Token::ArrayEnd {
                break;
            }
            if token != Token::Comma {
                return Err(self.expected("comma or array end", token));
            }
            token = self.next();
        }
        self.depth -= 1;
        Ok(())
    }

    fn fail(&mut self, why: &'static str) -> Token {
        self.token_at = self.at;
        Token::Error(why)
    }

    fn one(&mut self, token: Token, length: usize) -> Token {
        self.at += length;
        token
    }

    unsafe fn next(&mut self) -> Token {
        if let Err(why) = self.skip_space() {
            return self.fail(why);
        }
        self.token_at = self.at;
        match self.byte(self.at) {
            0 => Token::End,
            b'{' => self.one(Token::ObjectBegin, 1),
            b'}' => self.one(Token::ObjectEnd, 1),
            b'[' => self.one(Token::ArrayBegin, 1),
            b']' => self.one(Token::ArrayEnd, 1),
            b',' => self.one(Token::Comma, 1),
            b':' => self.one(Token::Colon, 1),
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            b't' if self.text[self.at..].starts_with(b"true") => self.one(Token::Boolean(true), 4),
            b'f' if self.text[self.at..].starts_with(b"false") => {
                self.one(Token::Boolean(false), 5)
            }
            b'n' if self.text[self.at..].starts_with(b"null") => self.one(Token::Null, 4),
            b'+' | b'i' | b'I' | b'n' | b'N' if self.cfg.decode_invalid != 0 && self.strange() => {
                self.number()
            }
            _ => self.fail("invalid token"),
        }
    }

    /// Spaces, and comments where they are allowed.
    fn skip_space(&mut self) -> Result<(), &'static str> {
        loop {
            while matches!(self.byte(self.at), b' ' | b'\t' | b'\n' | b'\r') {
                self.at += 1;
            }
            if self.cfg.comments == 0 || self.byte(self.at) != b'/' {
                return Ok(());
            }
            let rest = self.text.get(self.at + 2..).unwrap_or_default();
            match self.byte(self.at + 1) {
                b'/' => self.at += 2 + memchr::memchr(b'\n', rest).unwrap_or(rest.len()),
                b'*' => match memchr::memmem::find(rest, b"*/") {
                    Some(end) => self.at += 2 + end + 2,
                    None => return Err("unclosed multi-line comment"),
                },
                _ => return Ok(()),
            }
        }
    }

    /// Whether what stands here is a number that C reads but JSON does not know.
    fn strange(&self) -> bool {
        if self.byte(self.at) == b'+' {
            return true;
        }
        let at = self.at + usize::from(self.byte(self.at) == b'-');
        match self.byte(at) {
            b'0' => matches!(self.byte(at + 1), b'x' | b'X' | b'0'..=b'9'),
            b'i' | b'I' | b'n' | b'N' => {
                let word = self.text.get(at..at + 3).unwrap_or_default();
                word.eq_ignore_ascii_case(b"inf") || word.eq_ignore_ascii_case(b"nan")
            }
            _ => false,
        }
    }

    fn number(&mut self) -> Token {
        if self.cfg.decode_invalid == 0 && self.strange() {
            return self.fail("invalid number");
        }
        match lib_number::read(&self.text[self.at..]) {
            Some((n, length)) => self.one(Token::Number(n), length),
            None => self.fail("invalid number"),
        }
    }

    /// Pushes the string that begins here.
    unsafe fn string(&mut self) -> Token {
        let begin = self.at + 1;
        self.at = begin;
        let plain = self.text[begin..]
            .iter()
            .position(|b| matches!(b, b'"' | b'\\' | 0))
            .unwrap_or(self.text.len() - begin);
        if self.byte(begin + plain) == b'"' {
            self.at = begin + plain + 1;
            ffi::push_bytes(self.l, &self.text[begin..begin + plain]);
            return Token::Text;
        }
        let out = &mut *TEXT.get();
        out.clear();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest
                .iter()
                .position(|b| matches!(b, b'"' | b'\\' | 0))
                .unwrap_or(rest.len());
            out.extend_from_slice(&rest[..plain]);
            self.at += plain;
            match self.byte(self.at) {
                b'"' => break,
                b'\\' => {
                    if let Err(why) = self.escape(out) {
                        return self.fail(why);
                    }
                }
                _ => return self.fail("unexpected end of string"),
            }
        }
        self.at += 1;
        ffi::push_bytes(self.l, out);
        Token::Text
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), &'static str> {
        let plain = match self.byte(self.at + 1) {
            c @ (b'"' | b'\\' | b'/') => c,
            b'b' => 0x08,
            b't' => b'\t',
            b'n' => b'\n',
            b'f' => 0x0c,
            b'r' => b'\r',
            b'u' => return self.unicode(out).ok_or("invalid unicode escape code"),
            _ => return Err("invalid escape code"),
        };
        out.push(plain);
        self.at += 2;
        Ok(())
    }

    fn hex4(&self, at: usize) -> Option<u32> {
        let text = self.text.get(at..at + 4)?;
        text.iter()
            .try_fold(0, |n, b| Some(n << 4 | char::from(*b).to_digit(16)?))
    }

    /// `\uXXXX`, or two of them for one character beyond the first 65,536.
    fn unicode(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let mut code = self.hex4(self.at + 2)?;
        let mut length = 6;
        if code & 0xf800 == 0xd800 {
            let low = self.hex4(self.at + 8)?;
            let paired = self.byte(self.at + 6) == b'\\' && self.byte(self.at + 7) == b'u';
            if code & 0x400 != 0 || !paired || low & 0xfc00 != 0xdc00 {
                return None;
            }
            code = ((code & 0x3ff) << 10 | low & 0x3ff) + 0x1_0000;
            length = 12;
        }
        let mut utf8 = [0; 4];
        out.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut utf8).as_bytes());
        self.at += length;
        Some(())
    }
}
