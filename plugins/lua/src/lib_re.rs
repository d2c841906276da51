//! `ngx.re`: OpenResty's regular expressions on PCRE2, `ngx.re.split`, and the pattern cache.
//!
//! Every pattern is cached, with or without option `o`: compiling anew is never what a caller
//! wants. The cache has two halves: a full new half becomes the old one, and the old one is let
//! go, which keeps what was used lately with one look-up per match. There is no JIT in Wasm, so
//! option `j` changes nothing. A replacement function may yield: that loop is Lua code.
#![expect(unsafe_code, reason = "the C API of Lua")]
#![expect(
    unsafe_op_in_unsafe_fn,
    reason = "every function works on the live state that Lua hands in"
)]

use crate::ffi::{self, State};
use crate::lib_re_pcre::{self as pcre, NOMATCH, Options, Pattern};
use crate::lib_scratch::{Single, int, number, run, stringify};
use std::ffi::{c_int, c_void};

/// Half of `lua_regex_cache_max_entries`' default.
const HALF: usize = 512;
/// So many bytes of a pattern count as another one: few long ones take the place of many.
const WEIGHT: usize = 4 << 10;

static HOT: Single<usize> = Single::new(0);
static OLD: Single<usize> = Single::new(0);
static META: Single<usize> = Single::new(0);

/// Installs `ngx.re`, the module `ngx.re`, and `resty.core.regex`.
pub(crate) unsafe fn open(l: *mut State) {
    ffi::lua_createtable(l, 0, 1);
    ffi::lua_pushcclosure(l, collect, 0);
    ffi::lua_setfield(l, -2, c"__gc".as_ptr());
    ffi::lua_rawsetp(l, ffi::REGISTRY, key(&META));
    for half in [&HOT, &OLD] {
        ffi::lua_createtable(l, 0, 8);
        ffi::lua_rawsetp(l, ffi::REGISTRY, key(half));
    }
    ffi::push_ngx(l);
    ffi::push_library(
        l,
        &[(c"match", match_), (c"find", find), (c"gmatch", gmatch)],
    );
    ffi::lua_pushvalue(l, -1);
    ffi::lua_setfield(l, -3, c"re".as_ptr());
    for f in [crate::lib_re_sub::replace as ffi::CFunction, step] {
        ffi::lua_pushcclosure(l, f, 0);
    }
    run(l, include_str!("lib_re.lua"), c"=ngx.re", 3, 0);
    ffi::push_library(l, &[(c"split", crate::lib_re_split::split), (c"opt", opt)]);
    ffi::set_loaded(l, c"ngx.re");
    ffi::lua_createtable(l, 0, 0);
    ffi::set_loaded(l, c"resty.core.regex");
    ffi::lua_settop(l, -4);
}

const fn key(of: &'static Single<usize>) -> *const c_void {
    of.get().cast_const().cast()
}

unsafe extern "C-unwind" fn collect(l: *mut State) -> c_int {
    let pattern = ffi::lua_touserdata(l, 1).cast::<Pattern>();
    if !pattern.is_null() {
        (*pattern).free();
    }
    0
}

/// `ngx.re.opt`: JIT stacks have no meaning here; the name is checked as OpenResty does.
unsafe extern "C-unwind" fn opt(l: *mut State) -> c_int {
    if ffi::to_bytes(l, 1) != Some(b"jit_stack_size") {
        ffi::error(l, b"unrecognized option name");
    }
    0
}

/// Reads an options string; the error is the flag that nobody knows.
fn parse_options(text: &[u8]) -> Result<Options, u8> {
    let mut options = Options::default();
    for flag in text {
        options.bits |= match flag {
            b'o' | b'j' => 0,
            b'i' => pcre::CASELESS,
            b's' => pcre::DOTALL,
            b'm' => pcre::MULTILINE,
            b'u' | b'U' => pcre::UTF,
            b'x' => pcre::EXTENDED,
            b'a' => pcre::ANCHORED,
            b'J' => pcre::ALT_BSUX | pcre::ALLOW_EMPTY_CLASS | pcre::MATCH_UNSET_BACKREF,
            b'd' => {
                options.dfa = true;
                0
            }
            b'D' => {
                options.duplicates = true;
                pcre::DUPNAMES
            }
            other => return Err(*other),
        };
    }
    Ok(options)
}

/// Pushes `cache[options][pattern]`, or nothing and gives null.
unsafe fn look_up(
    l: *mut State,
    half: &'static Single<usize>,
    regex: c_int,
    options: c_int,
) -> *mut Pattern {
    let top = ffi::lua_gettop(l);
    ffi::lua_rawgetp(l, ffi::REGISTRY, key(half));
    push_options(l, options);
    ffi::lua_rawget(l, -2);
    if ffi::lua_type(l, -1) == ffi::TTABLE {
        ffi::lua_pushvalue(l, regex);
        ffi::lua_rawget(l, -2);
        let found = ffi::lua_touserdata(l, -1);
        if !found.is_null() {
            ffi::lua_replace(l, top + 1);
            ffi::lua_settop(l, top + 1);
            return found.cast();
        }
    }
    ffi::lua_settop(l, top);
    std::ptr::null_mut()
}

unsafe fn push_options(l: *mut State, options: c_int) {
    if ffi::lua_type(l, options) == ffi::TSTRING {
        ffi::lua_pushvalue(l, options);
    } else {
        ffi::push_bytes(l, b"");
    }
}

/// Bytes of the pattern on the top of the stack.
unsafe fn pattern_size(l: *mut State) -> usize {
    let pattern = ffi::lua_touserdata(l, -1).cast::<Pattern>();
    if pattern.is_null() {
        0
    } else {
        (*pattern).size
    }
}

/// Puts the pattern on the top of the stack into the new half of the cache.
unsafe fn remember(l: *mut State, regex: c_int, options: c_int) {
    let count = HOT.get();
    if *count >= HALF {
        *count = 0;
        ffi::lua_rawgetp(l, ffi::REGISTRY, key(&HOT));
        ffi::lua_rawsetp(l, ffi::REGISTRY, key(&OLD));
        ffi::lua_createtable(l, 0, 8);
        ffi::lua_rawsetp(l, ffi::REGISTRY, key(&HOT));
    }
    *count += 1 + pattern_size(l) / WEIGHT;
    ffi::lua_rawgetp(l, ffi::REGISTRY, key(&HOT));
    push_options(l, options);
    ffi::lua_rawget(l, -2);
    if ffi::lua_type(l, -1) != ffi::TTABLE {
        ffi::pop(l, 1);
        ffi::lua_createtable(l, 0, 8);
        push_options(l, options);
        ffi::lua_pushvalue(l, -2);
        ffi::lua_rawset(l, -4);
    }
    ffi::lua_pushvalue(l, regex);
    ffi::lua_pushvalue(l, -4);
    ffi::lua_rawset(l, -3);
    ffi::pop(l, 2);
}

/// Pushes the compiled pattern of the arguments `regex` and `options`; on an error, pushes its
/// text and gives null. The userdata on the stack keeps the pattern alive.
pub(crate) unsafe fn compile(l: *mut State, regex: c_int, options: c_int) -> *mut Pattern {
    let source = ffi::check_bytes(l, regex);
    ffi::luaL_checkstack(l, 10, c"ngx.re".as_ptr());
    let found = look_up(l, &HOT, regex, options);
    if !found.is_null() {
        return found;
    }
    let found = look_up(l, &OLD, regex, options);
    if !found.is_null() {
        remember(l, regex, options);
        return found;
    }
    let parsed = match parse_options(ffi::opt_bytes(l, options).unwrap_or_default()) {
        Ok(parsed) => parsed,
        Err(flag) => unknown_flag(l, flag, options),
    };
    ffi::tick(l, source.len() * 16 + 256);
    // What a pattern is compiled to is longer than itself.
    crate::alloc::demand(l, source.len().saturating_mul(8));
    // The memory comes first: an error raised by Lua after compiling would lose the code.
    let slot = ffi::lua_newuserdata(l, size_of::<Pattern>()).cast::<Pattern>();
    let mut built = build(source, parsed, slot);
    if !built && (*MESSAGE.get()).starts_with(NO_MEMORY) {
        ffi::lua_gc(l, ffi::GCCOLLECT, 0);
        built = build(source, parsed, slot);
    }
    if !built {
        ffi::pop(l, 1);
        ffi::push_bytes(l, &*MESSAGE.get());
        return std::ptr::null_mut();
    }
    ffi::lua_rawgetp(l, ffi::REGISTRY, key(&META));
    ffi::lua_setmetatable(l, -2);
    remember(l, regex, options);
    slot
}

/// What PCRE2 says when it got none; the collector may make room.
const NO_MEMORY: &[u8] = b"pcre2_compile() failed: failed to allocate";

static MESSAGE: Single<Vec<u8>> = Single::new(Vec::new());

/// Compiles into `slot`; a failure's text is left in `MESSAGE`.
unsafe fn build(source: &[u8], options: Options, slot: *mut Pattern) -> bool {
    match Pattern::compile(source, options) {
        Ok(pattern) => {
            slot.write(pattern);
            true
        }
        Err(message) => {
            *MESSAGE.get() = message;
            false
        }
    }
}

unsafe fn unknown_flag(l: *mut State, flag: u8, options: c_int) -> ! {
    ffi::luaL_where(l, 1);
    ffi::push_bytes(l, b"unknown flag \"");
    ffi::push_bytes(l, &[flag]);
    ffi::push_bytes(l, b"\" (flags \"");
    ffi::lua_pushvalue(l, options);
    ffi::push_bytes(l, b"\")");
    ffi::lua_concat(l, 6);
    ffi::raise(l)
}

/// Pushes `pcre_exec() failed: CODE`.
pub(crate) unsafe fn push_exec_error(l: *mut State, code: c_int) {
    ffi::push_bytes(l, b"pcre_exec() failed: ");
    ffi::lua_pushnumber(l, f64::from(code));
    ffi::lua_concat(l, 2);
}

/// Matches, and counts the work.
pub(crate) unsafe fn exec(
    l: *mut State,
    pattern: &Pattern,
    subject: &[u8],
    start: usize,
    checked: bool,
) -> c_int {
    let code = pattern.exec(subject, start, checked);
    let end = if code > 0 {
        pattern.group(0).1
    } else {
        subject.len()
    };
    ffi::tick(l, end.saturating_sub(start) + 32);
    code
}

/// Puts the captures of the last match into the table on the top of the stack.
unsafe fn fill_captures(l: *mut State, pattern: &Pattern, subject: &[u8]) {
    for group in 0..=pattern.groups {
        push_group(l, pattern, subject, group);
        ffi::lua_rawseti(l, -2, int(group as usize));
    }
    for n in 0..pattern.name_count() {
        let (group, name) = pattern.name(n);
        ffi::push_bytes(l, name);
        ffi::lua_rawgeti(l, -2, int(group as usize));
        if !pattern.duplicates {
            ffi::lua_rawset(l, -3);
        } else if ffi::lua_toboolean(l, -1) == 0 {
            ffi::pop(l, 2);
        } else {
            append_named(l);
        }
    }
}

/// With `table, name, value` on the top: appends to `table[name]`, made when absent.
unsafe fn append_named(l: *mut State) {
    ffi::lua_pushvalue(l, -2);
    ffi::lua_rawget(l, -4);
    if ffi::lua_type(l, -1) != ffi::TTABLE {
        ffi::pop(l, 1);
        ffi::lua_createtable(l, 1, 0);
        ffi::lua_pushvalue(l, -3);
        ffi::lua_pushvalue(l, -2);
        ffi::lua_rawset(l, -6);
    }
    let length = int(ffi::lua_rawlen(l, -1));
    ffi::lua_insert(l, -2);
    ffi::lua_rawseti(l, -2, length + 1);
    ffi::pop(l, 2);
}

/// Pushes a group's text, or false.
pub(crate) unsafe fn push_group(l: *mut State, pattern: &Pattern, subject: &[u8], group: u32) {
    let (from, to) = pattern.group(group);
    match subject.get(from..to) {
        Some(text) if from != pcre::UNSET => ffi::push_bytes(l, text),
        _ => ffi::lua_pushboolean(l, 0),
    }
}

/// Pushes a new table with the captures.
unsafe fn push_captures(l: *mut State, pattern: &Pattern, subject: &[u8]) {
    ffi::lua_createtable(
        l,
        int(pattern.groups as usize),
        int(pattern.name_count() as usize) + 1,
    );
    fill_captures(l, pattern, subject);
}

/// Where to start, from `ctx.pos` (from 1; absent or less is 1).
unsafe fn start_of(l: *mut State, ctx: c_int) -> usize {
    if ffi::lua_type(l, ctx) <= ffi::TNIL {
        return 0;
    }
    ffi::luaL_checktype(l, ctx, ffi::TTABLE);
    ffi::lua_getfield(l, ctx, c"pos".as_ptr());
    let at = ffi::lua_tointegerx(l, -1, std::ptr::null_mut());
    ffi::pop(l, 1);
    usize::try_from(at).unwrap_or(0).saturating_sub(1)
}

unsafe fn advance(l: *mut State, ctx: c_int, pattern: &Pattern) {
    if ffi::lua_type(l, ctx) == ffi::TTABLE {
        ffi::lua_pushnumber(l, number(pattern.group(0).1 + 1));
        ffi::lua_setfield(l, ctx, c"pos".as_ptr());
    }
}

/// `captures, err = ngx.re.match(subject, regex, options?, ctx?, res_table?)`
unsafe extern "C-unwind" fn match_(l: *mut State) -> c_int {
    ffi::lua_settop(l, 5);
    let subject = stringify(l, 1);
    let pattern = compile(l, 2, 3);
    if pattern.is_null() {
        ffi::lua_pushnil(l);
        ffi::lua_insert(l, -2);
        return 2;
    }
    let pattern = &*pattern;
    let code = exec(l, pattern, subject, start_of(l, 4), false);
    if code <= 0 {
        ffi::lua_pushnil(l);
        if code == NOMATCH {
            return 1;
        }
        push_exec_error(l, code);
        return 2;
    }
    advance(l, 4, pattern);
    if ffi::lua_type(l, 5) == ffi::TTABLE {
        ffi::lua_pushvalue(l, 5);
        fill_captures(l, pattern, subject);
    } else {
        push_captures(l, pattern, subject);
    }
    1
}

/// `from, to, err = ngx.re.find(subject, regex, options?, ctx?, nth?)`
unsafe extern "C-unwind" fn find(l: *mut State) -> c_int {
    ffi::lua_settop(l, 5);
    let subject = stringify(l, 1);
    let pattern = compile(l, 2, 3);
    if pattern.is_null() {
        ffi::lua_pushnil(l);
        ffi::lua_pushnil(l);
        ffi::lua_pushvalue(l, -3);
        return 3;
    }
    let pattern = &*pattern;
    let code = exec(l, pattern, subject, start_of(l, 4), false);
    if code <= 0 {
        ffi::lua_pushnil(l);
        if code == NOMATCH {
            return 1;
        }
        ffi::lua_pushnil(l);
        push_exec_error(l, code);
        return 3;
    }
    advance(l, 4, pattern);
    let group = u32::try_from(ffi::opt_integer(l, 5, 0).max(0)).unwrap_or(u32::MAX);
    if group > pattern.groups {
        ffi::lua_pushnil(l);
        ffi::lua_pushnil(l);
        ffi::push_bytes(l, b"nth out of bound");
        return 3;
    }
    let (from, to) = pattern.group(group);
    if from == pcre::UNSET {
        ffi::lua_pushnil(l);
        ffi::lua_pushnil(l);
    } else {
        ffi::lua_pushnumber(l, number(from + 1));
        ffi::lua_pushnumber(l, number(to));
    }
    2
}

/// `iterator, err = ngx.re.gmatch(subject, regex, options?)`
unsafe extern "C-unwind" fn gmatch(l: *mut State) -> c_int {
    ffi::lua_settop(l, 3);
    stringify(l, 1);
    if compile(l, 2, 3).is_null() {
        ffi::lua_pushnil(l);
        ffi::lua_insert(l, -2);
        return 2;
    }
    ffi::lua_pushvalue(l, 1);
    ffi::lua_pushnumber(l, 0.0);
    ffi::lua_pushcclosure(l, iterate, 3);
    1
}

/// The next match; the third upvalue is where to look, -1 at the end.
unsafe extern "C-unwind" fn iterate(l: *mut State) -> c_int {
    let position = ffi::upvalue_index(3);
    let pattern = &*ffi::lua_touserdata(l, ffi::upvalue_index(1)).cast::<Pattern>();
    let subject = ffi::to_bytes(l, ffi::upvalue_index(2)).unwrap_or_default();
    let Ok(start) = usize::try_from(ffi::lua_tointegerx(l, position, std::ptr::null_mut())) else {
        ffi::lua_pushnil(l);
        return 1;
    };
    let code = exec(l, pattern, subject, start, start > 0);
    if code <= 0 {
        ffi::lua_pushnumber(l, -1.0);
        ffi::lua_replace(l, position);
        ffi::lua_pushnil(l);
        if code == NOMATCH {
            return 1;
        }
        push_exec_error(l, code);
        return 2;
    }
    match next_start(pattern, subject) {
        Some(next) => ffi::lua_pushnumber(l, number(next)),
        None => ffi::lua_pushnumber(l, -1.0),
    }
    ffi::lua_replace(l, position);
    push_captures(l, pattern, subject);
    1
}

/// Where to look after the last match: its end, or one character on when it was empty.
pub(crate) unsafe fn next_start(pattern: &Pattern, subject: &[u8]) -> Option<usize> {
    let (from, to) = pattern.group(0);
    if to > from {
        return Some(to);
    }
    let mut next = to + 1;
    while pattern.utf && subject.get(next).is_some_and(|b| b & 0xc0 == 0x80) {
        next += 1;
    }
    (next <= subject.len()).then_some(next)
}

/// One step of a replacement by function, for the loop in Lua: `(subject, regex, options, at)` →
/// `captures, from, to, next` (`next` is nil at the end), nil when nothing matched, or `nil, err`.
unsafe extern "C-unwind" fn step(l: *mut State) -> c_int {
    let subject = ffi::check_bytes(l, 1);
    let start = usize::try_from(ffi::luaL_checkinteger(l, 4)).unwrap_or(0);
    let pattern = compile(l, 2, 3);
    if pattern.is_null() {
        ffi::lua_pushnil(l);
        ffi::lua_insert(l, -2);
        return 2;
    }
    let pattern = &*pattern;
    let code = exec(l, pattern, subject, start, start > 0);
    if code <= 0 {
        ffi::lua_pushnil(l);
        if code == NOMATCH {
            return 1;
        }
        push_exec_error(l, code);
        return 2;
    }
    let (from, to) = pattern.group(0);
    push_captures(l, pattern, subject);
    ffi::lua_pushnumber(l, number(from));
    ffi::lua_pushnumber(l, number(to));
    match next_start(pattern, subject) {
        Some(next) => ffi::lua_pushnumber(l, number(next)),
        None => ffi::lua_pushnil(l),
    }
    4
}
