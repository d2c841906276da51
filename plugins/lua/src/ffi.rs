//! The C API of Lua 5.2 as this plugin uses it: declarations, and thin wrappers that every library
//! file shares, so that none of them repeats pointer work.
//!
//! Lua raises errors by a throw that skips Rust's destructors: nothing with a `Drop` may be alive
//! when a function that can raise is called (`error`, `check_*`, `call`, allocation of Lua values).
#![expect(unsafe_code, reason = "the C API of Lua")]
#![expect(dead_code, reason = "the API as a whole, whatever of it is used today")]

use std::ffi::{CStr, c_char, c_int, c_void};

/// A Lua thread (`lua_State`).
#[repr(C)]
pub(crate) struct State {
    opaque: [u8; 0],
}

/// A function that Lua calls.
pub(crate) type CFunction = unsafe extern "C-unwind" fn(*mut State) -> c_int;
/// A debug hook.
pub(crate) type Hook = unsafe extern "C-unwind" fn(*mut State, *mut Debug);
/// An allocator.
pub(crate) type Alloc = unsafe extern "C" fn(*mut c_void, *mut c_void, usize, usize) -> *mut c_void;

/// `lua_Debug`.
#[repr(C)]
pub(crate) struct Debug {
    pub(crate) event: c_int,
    pub(crate) name: *const c_char,
    pub(crate) namewhat: *const c_char,
    pub(crate) what: *const c_char,
    pub(crate) source: *const c_char,
    pub(crate) currentline: c_int,
    pub(crate) linedefined: c_int,
    pub(crate) lastlinedefined: c_int,
    pub(crate) nups: u8,
    pub(crate) nparams: u8,
    pub(crate) isvararg: c_char,
    pub(crate) istailcall: c_char,
    pub(crate) short_src: [c_char; 60],
    pub(crate) ci: *mut c_void,
}

pub(crate) const REGISTRY: c_int = -201_000;
pub(crate) const MULTRET: c_int = -1;
pub(crate) const OK: c_int = 0;
pub(crate) const YIELD: c_int = 1;
pub(crate) const ERRRUN: c_int = 2;
pub(crate) const ERRSYNTAX: c_int = 3;
pub(crate) const ERRMEM: c_int = 4;
pub(crate) const ERRGCMM: c_int = 5;
pub(crate) const ERRERR: c_int = 6;
pub(crate) const TNONE: c_int = -1;
pub(crate) const TNIL: c_int = 0;
pub(crate) const TBOOLEAN: c_int = 1;
pub(crate) const TLIGHTUSERDATA: c_int = 2;
pub(crate) const TNUMBER: c_int = 3;
pub(crate) const TSTRING: c_int = 4;
pub(crate) const TTABLE: c_int = 5;
pub(crate) const TFUNCTION: c_int = 6;
pub(crate) const TUSERDATA: c_int = 7;
pub(crate) const TTHREAD: c_int = 8;
pub(crate) const RIDX_MAINTHREAD: c_int = 1;
pub(crate) const RIDX_GLOBALS: c_int = 2;
pub(crate) const GCSTOP: c_int = 0;
pub(crate) const GCRESTART: c_int = 1;
pub(crate) const GCCOLLECT: c_int = 2;
pub(crate) const GCCOUNT: c_int = 3;
pub(crate) const GCCOUNTB: c_int = 4;
pub(crate) const GCSTEP: c_int = 5;
pub(crate) const GCSETPAUSE: c_int = 6;
pub(crate) const GCSETSTEPMUL: c_int = 7;
pub(crate) const OPEQ: c_int = 0;
pub(crate) const OPLT: c_int = 1;
pub(crate) const OPLE: c_int = 2;
pub(crate) const MASKCOUNT: c_int = 8;

/// The pseudo-index of a C function's upvalue, from 1.
pub(crate) const fn upvalue_index(i: c_int) -> c_int {
    REGISTRY - i
}

unsafe extern "C-unwind" {
    pub(crate) fn lua_newstate(f: Alloc, ud: *mut c_void) -> *mut State;
    pub(crate) fn lua_close(l: *mut State);
    pub(crate) fn lua_newthread(l: *mut State) -> *mut State;
    pub(crate) fn lua_atpanic(l: *mut State, f: CFunction) -> Option<CFunction>;

    pub(crate) fn lua_absindex(l: *mut State, idx: c_int) -> c_int;
    pub(crate) fn lua_gettop(l: *mut State) -> c_int;
    pub(crate) fn lua_settop(l: *mut State, idx: c_int);
    pub(crate) fn lua_pushvalue(l: *mut State, idx: c_int);
    pub(crate) fn lua_remove(l: *mut State, idx: c_int);
    pub(crate) fn lua_insert(l: *mut State, idx: c_int);
    pub(crate) fn lua_replace(l: *mut State, idx: c_int);
    pub(crate) fn lua_copy(l: *mut State, from: c_int, to: c_int);
    pub(crate) fn lua_checkstack(l: *mut State, n: c_int) -> c_int;
    pub(crate) fn lua_xmove(from: *mut State, to: *mut State, n: c_int);

    pub(crate) fn lua_isnumber(l: *mut State, idx: c_int) -> c_int;
    pub(crate) fn lua_isstring(l: *mut State, idx: c_int) -> c_int;
    pub(crate) fn lua_iscfunction(l: *mut State, idx: c_int) -> c_int;
    pub(crate) fn lua_isuserdata(l: *mut State, idx: c_int) -> c_int;
    pub(crate) fn lua_type(l: *mut State, idx: c_int) -> c_int;
    pub(crate) fn lua_typename(l: *mut State, t: c_int) -> *const c_char;
    pub(crate) fn lua_tonumberx(l: *mut State, idx: c_int, ok: *mut c_int) -> f64;
    pub(crate) fn lua_tointegerx(l: *mut State, idx: c_int, ok: *mut c_int) -> isize;
    pub(crate) fn lua_toboolean(l: *mut State, idx: c_int) -> c_int;
    pub(crate) fn lua_tolstring(l: *mut State, idx: c_int, len: *mut usize) -> *const c_char;
    pub(crate) fn lua_rawlen(l: *mut State, idx: c_int) -> usize;
    pub(crate) fn lua_tocfunction(l: *mut State, idx: c_int) -> Option<CFunction>;
    pub(crate) fn lua_touserdata(l: *mut State, idx: c_int) -> *mut c_void;
    pub(crate) fn lua_tothread(l: *mut State, idx: c_int) -> *mut State;
    pub(crate) fn lua_topointer(l: *mut State, idx: c_int) -> *const c_void;
    pub(crate) fn lua_rawequal(l: *mut State, a: c_int, b: c_int) -> c_int;
    pub(crate) fn lua_compare(l: *mut State, a: c_int, b: c_int, op: c_int) -> c_int;

    pub(crate) fn lua_pushnil(l: *mut State);
    pub(crate) fn lua_pushnumber(l: *mut State, n: f64);
    pub(crate) fn lua_pushinteger(l: *mut State, n: isize);
    pub(crate) fn lua_pushlstring(l: *mut State, s: *const c_char, n: usize) -> *const c_char;
    pub(crate) fn lua_pushstring(l: *mut State, s: *const c_char) -> *const c_char;
    pub(crate) fn lua_pushcclosure(l: *mut State, f: CFunction, n: c_int);
    pub(crate) fn lua_pushboolean(l: *mut State, b: c_int);
    pub(crate) fn lua_pushlightuserdata(l: *mut State, p: *mut c_void);
    pub(crate) fn lua_pushthread(l: *mut State) -> c_int;

    pub(crate) fn lua_getglobal(l: *mut State, name: *const c_char);
    pub(crate) fn lua_setglobal(l: *mut State, name: *const c_char);
    pub(crate) fn lua_gettable(l: *mut State, idx: c_int);
    pub(crate) fn lua_settable(l: *mut State, idx: c_int);
    pub(crate) fn lua_getfield(l: *mut State, idx: c_int, k: *const c_char);
    pub(crate) fn lua_setfield(l: *mut State, idx: c_int, k: *const c_char);
    pub(crate) fn lua_rawget(l: *mut State, idx: c_int);
    pub(crate) fn lua_rawset(l: *mut State, idx: c_int);
    pub(crate) fn lua_rawgeti(l: *mut State, idx: c_int, n: c_int);
    pub(crate) fn lua_rawseti(l: *mut State, idx: c_int, n: c_int);
    pub(crate) fn lua_rawgetp(l: *mut State, idx: c_int, p: *const c_void);
    pub(crate) fn lua_rawsetp(l: *mut State, idx: c_int, p: *const c_void);
    pub(crate) fn lua_createtable(l: *mut State, narr: c_int, nrec: c_int);
    pub(crate) fn lua_newuserdata(l: *mut State, n: usize) -> *mut c_void;
    pub(crate) fn lua_getmetatable(l: *mut State, idx: c_int) -> c_int;
    pub(crate) fn lua_setmetatable(l: *mut State, idx: c_int) -> c_int;
    pub(crate) fn lua_getuservalue(l: *mut State, idx: c_int);
    pub(crate) fn lua_setuservalue(l: *mut State, idx: c_int);
    pub(crate) fn lua_next(l: *mut State, idx: c_int) -> c_int;
    pub(crate) fn lua_concat(l: *mut State, n: c_int);
    pub(crate) fn lua_len(l: *mut State, idx: c_int);

    pub(crate) fn lua_callk(l: *mut State, n: c_int, r: c_int, ctx: c_int, k: Option<CFunction>);
    pub(crate) fn lua_pcallk(
        l: *mut State,
        n: c_int,
        r: c_int,
        msgh: c_int,
        ctx: c_int,
        k: Option<CFunction>,
    ) -> c_int;
    pub(crate) fn lua_getctx(l: *mut State, ctx: *mut c_int) -> c_int;
    pub(crate) fn lua_yieldk(l: *mut State, n: c_int, ctx: c_int, k: Option<CFunction>) -> c_int;
    pub(crate) fn lua_resume(l: *mut State, from: *mut State, n: c_int) -> c_int;
    pub(crate) fn lua_status(l: *mut State) -> c_int;
    pub(crate) fn lua_gc(l: *mut State, what: c_int, data: c_int) -> c_int;
    pub(crate) fn lua_error(l: *mut State) -> c_int;

    pub(crate) fn lua_getstack(l: *mut State, level: c_int, ar: *mut Debug) -> c_int;
    pub(crate) fn lua_getinfo(l: *mut State, what: *const c_char, ar: *mut Debug) -> c_int;
    pub(crate) fn lua_sethook(l: *mut State, f: Option<Hook>, mask: c_int, count: c_int) -> c_int;
    pub(crate) fn lua_getupvalue(l: *mut State, f: c_int, n: c_int) -> *const c_char;
    pub(crate) fn lua_setupvalue(l: *mut State, f: c_int, n: c_int) -> *const c_char;

    pub(crate) fn luaL_loadbufferx(
        l: *mut State,
        s: *const c_char,
        n: usize,
        name: *const c_char,
        mode: *const c_char,
    ) -> c_int;
    pub(crate) fn luaL_traceback(l: *mut State, of: *mut State, msg: *const c_char, level: c_int);
    pub(crate) fn luaL_where(l: *mut State, level: c_int);
    pub(crate) fn luaL_argerror(l: *mut State, arg: c_int, msg: *const c_char) -> c_int;
    pub(crate) fn luaL_checklstring(l: *mut State, arg: c_int, len: *mut usize) -> *const c_char;
    pub(crate) fn luaL_checknumber(l: *mut State, arg: c_int) -> f64;
    pub(crate) fn luaL_checkinteger(l: *mut State, arg: c_int) -> isize;
    pub(crate) fn luaL_checktype(l: *mut State, arg: c_int, t: c_int);
    pub(crate) fn luaL_checkany(l: *mut State, arg: c_int);
    pub(crate) fn luaL_checkstack(l: *mut State, n: c_int, msg: *const c_char);
    pub(crate) fn luaL_newmetatable(l: *mut State, name: *const c_char) -> c_int;
    pub(crate) fn luaL_checkudata(l: *mut State, arg: c_int, name: *const c_char) -> *mut c_void;
    pub(crate) fn luaL_testudata(l: *mut State, arg: c_int, name: *const c_char) -> *mut c_void;
    pub(crate) fn luaL_tolstring(l: *mut State, idx: c_int, len: *mut usize) -> *const c_char;
    pub(crate) fn luaL_ref(l: *mut State, t: c_int) -> c_int;
    pub(crate) fn luaL_unref(l: *mut State, t: c_int, r: c_int);
    pub(crate) fn luaL_getmetafield(l: *mut State, idx: c_int, name: *const c_char) -> c_int;
    pub(crate) fn luaL_callmeta(l: *mut State, idx: c_int, name: *const c_char) -> c_int;
    pub(crate) fn luaL_getsubtable(l: *mut State, idx: c_int, name: *const c_char) -> c_int;
    pub(crate) fn luaL_requiref(l: *mut State, name: *const c_char, f: CFunction, global: c_int);

    pub(crate) fn luaopen_base(l: *mut State) -> c_int;
    pub(crate) fn luaopen_table(l: *mut State) -> c_int;
    pub(crate) fn luaopen_string(l: *mut State) -> c_int;
    pub(crate) fn luaopen_math(l: *mut State) -> c_int;
    pub(crate) fn luaopen_debug(l: *mut State) -> c_int;
    pub(crate) fn luaopen_io(l: *mut State) -> c_int;
    pub(crate) fn luaopen_os(l: *mut State) -> c_int;
    pub(crate) fn luaopen_package(l: *mut State) -> c_int;

    // Our own additions, from patches/ and csrc/.
    pub(crate) fn lua_getfenv(l: *mut State, idx: c_int);
    pub(crate) fn lua_setfenv(l: *mut State, idx: c_int) -> c_int;
    pub(crate) fn lua_cloneenv(l: *mut State, idx: c_int);
    /// Whether globals and closure are as new.
    pub(crate) fn phasor_clean(
        l: *mut State,
        env: c_int,
        f: c_int,
        metatable: *const c_void,
    ) -> c_int;
    /// Pushes the globals of the running task.
    pub(crate) fn phasor_pushglobals(l: *mut State);
    pub(crate) fn phasor_yieldable(l: *mut State) -> c_int;
    /// To whom a coroutine belongs: see `coroutine::Mark`.
    pub(crate) fn phasor_mark(l: *mut State) -> c_int;
    pub(crate) fn phasor_setmark(l: *mut State, mark: c_int);
    /// What stands in place 1 of the table that is the first argument, if it is a userdata with this
    /// metatable.
    pub(crate) fn phasor_object(l: *mut State, metatable: *const c_void) -> *mut c_void;
    /// As `phasor_object` of the first argument itself.
    pub(crate) fn phasor_self(l: *mut State, metatable: *const c_void) -> *mut c_void;
    /// Counts `n` units of work done in C (roughly: bytes or steps); raises over the CPU budget.
    pub(crate) fn phasor_tick(l: *mut State, n: usize);
}

/// Pushes a string of any bytes.
#[inline]
pub(crate) unsafe fn push_bytes(l: *mut State, s: &[u8]) {
    // SAFETY: the slice is live for the call; Lua copies it.
    unsafe {
        lua_pushlstring(l, s.as_ptr().cast(), s.len());
    }
}

/// The bytes of a string or number at `idx` (a number is converted in place), else `None`. They
/// live as long as the value stays on the stack.
#[inline]
pub(crate) unsafe fn to_bytes<'a>(l: *mut State, idx: c_int) -> Option<&'a [u8]> {
    let mut n = 0;
    // SAFETY: Lua gives a pointer to `n` bytes or null.
    unsafe {
        let p = lua_tolstring(l, idx, &raw mut n);
        if p.is_null() {
            None
        } else {
            Some(std::slice::from_raw_parts(p.cast(), n))
        }
    }
}

/// The bytes of argument `arg`; raises when it is no string or number.
#[inline]
pub(crate) unsafe fn check_bytes<'a>(l: *mut State, arg: c_int) -> &'a [u8] {
    let mut n = 0;
    // SAFETY: `luaL_checklstring` gives `n` bytes or raises.
    unsafe {
        let p = luaL_checklstring(l, arg, &raw mut n);
        std::slice::from_raw_parts(p.cast(), n)
    }
}

/// The bytes of argument `arg`, `None` when it is nil or absent; raises for other types.
pub(crate) unsafe fn opt_bytes<'a>(l: *mut State, arg: c_int) -> Option<&'a [u8]> {
    // SAFETY: as `check_bytes`.
    unsafe {
        if lua_type(l, arg) <= TNIL {
            None
        } else {
            Some(check_bytes(l, arg))
        }
    }
}

/// The number in argument `arg`, `default` when it is nil or absent; raises for other types.
pub(crate) unsafe fn opt_number(l: *mut State, arg: c_int, default: f64) -> f64 {
    // SAFETY: `l` is live.
    unsafe {
        if lua_type(l, arg) <= TNIL {
            default
        } else {
            luaL_checknumber(l, arg)
        }
    }
}

/// The integer in argument `arg`, `default` when it is nil or absent; raises for other types.
pub(crate) unsafe fn opt_integer(l: *mut State, arg: c_int, default: isize) -> isize {
    // SAFETY: `l` is live.
    unsafe {
        if lua_type(l, arg) <= TNIL {
            default
        } else {
            luaL_checkinteger(l, arg)
        }
    }
}

/// Raises `message` with the position of the calling Lua code before it.
pub(crate) unsafe fn error(l: *mut State, message: &[u8]) -> ! {
    // SAFETY: level 1 is the function that called us.
    unsafe {
        luaL_where(l, 1);
        push_bytes(l, message);
        lua_concat(l, 2);
        raise(l)
    }
}

/// Raises the value on the top of the stack.
pub(crate) unsafe fn raise(l: *mut State) -> ! {
    // SAFETY: `lua_error` never returns.
    unsafe {
        lua_error(l);
        std::hint::unreachable_unchecked()
    }
}

/// Raises `bad argument #arg to 'function' (message)`.
pub(crate) unsafe fn arg_error(l: *mut State, arg: c_int, message: &CStr) -> ! {
    // SAFETY: `luaL_argerror` never returns.
    unsafe {
        luaL_argerror(l, arg, message.as_ptr());
        std::hint::unreachable_unchecked()
    }
}

/// Drops the `n` uppermost values.
#[inline]
pub(crate) unsafe fn pop(l: *mut State, n: c_int) {
    // SAFETY: the caller has pushed them.
    unsafe { lua_settop(l, -n - 1) }
}

/// Pushes `nil` and `message`, and gives 2: the usual failure of `ngx.*`.
pub(crate) unsafe fn nil_error(l: *mut State, message: &[u8]) -> c_int {
    // SAFETY: `l` is live.
    unsafe {
        lua_pushnil(l);
        push_bytes(l, message);
    }
    2
}

/// Makes each function a field of the table on the top of the stack.
pub(crate) unsafe fn register(l: *mut State, functions: &[(&CStr, CFunction)]) {
    for (name, function) in functions {
        // SAFETY: the caller has pushed the table.
        unsafe {
            lua_pushcclosure(l, *function, 0);
            lua_setfield(l, -2, name.as_ptr());
        }
    }
}

/// Pushes a new table with these functions.
pub(crate) unsafe fn push_library(l: *mut State, functions: &[(&CStr, CFunction)]) {
    let size = c_int::try_from(functions.len()).unwrap_or(0);
    // SAFETY: the table is on the top.
    unsafe {
        lua_createtable(l, 0, size);
        register(l, functions);
    }
}

/// Puts the value on the top into `package.loaded[name]`, and leaves it on the stack.
pub(crate) unsafe fn set_loaded(l: *mut State, name: &CStr) {
    // SAFETY: `_LOADED` is there as soon as the state is opened.
    unsafe {
        luaL_getsubtable(l, REGISTRY, c"_LOADED".as_ptr());
        lua_pushvalue(l, -2);
        lua_setfield(l, -2, name.as_ptr());
        pop(l, 1);
    }
}

/// Puts a function into `package.preload[name]`.
pub(crate) unsafe fn set_preload(l: *mut State, name: &CStr, open: CFunction) {
    // SAFETY: `_PRELOAD` is there as soon as the state is opened.
    unsafe {
        luaL_getsubtable(l, REGISTRY, c"_PRELOAD".as_ptr());
        lua_pushcclosure(l, open, 0);
        lua_setfield(l, -2, name.as_ptr());
        pop(l, 1);
    }
}

/// Pushes the shared table `ngx` (made on first use).
pub(crate) unsafe fn push_ngx(l: *mut State) {
    // SAFETY: slot 2 of the registry holds the shared globals.
    unsafe {
        lua_rawgeti(l, REGISTRY, RIDX_GLOBALS);
        luaL_getsubtable(l, -1, c"ngx".as_ptr());
        lua_remove(l, -2);
    }
}

/// Pops the value on the top and keeps it in the registry.
pub(crate) unsafe fn reference(l: *mut State) -> c_int {
    // SAFETY: the registry is a table.
    unsafe { luaL_ref(l, REGISTRY) }
}

/// Lets go what `reference` kept.
pub(crate) unsafe fn unreference(l: *mut State, r: c_int) {
    // SAFETY: as `reference`.
    unsafe { luaL_unref(l, REGISTRY, r) }
}

/// Pushes what `reference` kept.
#[inline]
pub(crate) unsafe fn push_reference(l: *mut State, r: c_int) {
    // SAFETY: as `reference`.
    unsafe { lua_rawgeti(l, REGISTRY, r) }
}

/// Compiles `source`; leaves the function, or the message, on the stack.
pub(crate) unsafe fn load(l: *mut State, source: &[u8], name: &CStr) -> c_int {
    // SAFETY: both live for the call; "t" refuses byte code.
    unsafe {
        luaL_loadbufferx(
            l,
            source.as_ptr().cast(),
            source.len(),
            name.as_ptr(),
            c"t".as_ptr(),
        )
    }
}

/// Counts `units` of work against the CPU budget of the running handler; raises when it is spent.
/// Call it from loops that can run long, about once per kilobyte or per match. Much work makes much
/// output (three bytes of one, at most), so that there must be room for that, too.
#[inline]
pub(crate) unsafe fn tick(l: *mut State, units: usize) {
    const MUCH: usize = 256 << 10;
    // SAFETY: `l` is live.
    unsafe {
        phasor_tick(l, units);
        if units > MUCH {
            crate::alloc::demand(l, units.saturating_mul(3));
        }
    }
}

unsafe extern "C" {
    static mut phasor_globals: *const c_void;
    static mut phasor_seed: u32;
}

/// The globals of new chunks; null: the shared ones.
#[inline]
pub(crate) fn globals() -> *const c_void {
    // SAFETY: an instance has one thread.
    unsafe { phasor_globals }
}

/// Sets the globals of new chunks.
#[inline]
pub(crate) fn set_globals(globals: *const c_void) {
    // SAFETY: an instance has one thread; the task keeps the table alive.
    unsafe { phasor_globals = globals }
}

/// Sets the seed of the string hash of states that are opened later.
pub(crate) fn set_seed(seed: u32) {
    // SAFETY: an instance has one thread.
    unsafe { phasor_seed = seed }
}
