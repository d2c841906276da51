//! LuaJIT's and OpenResty's additions to `table`, as fields and as modules (`table.new` …).
#![expect(unsafe_code, reason = "the C API of Lua")]
#![expect(
    unsafe_op_in_unsafe_fn,
    reason = "every function works on the live state that Lua hands in"
)]

use crate::ffi::{self, CFunction, State};
use crate::lib_scratch::{number, run};
use std::ffi::{CStr, c_int};

const FUNCTIONS: [(&CStr, &CStr, CFunction); 6] = [
    (c"new", c"table.new", new),
    (c"clear", c"table.clear", clear),
    (c"nkeys", c"table.nkeys", nkeys),
    (c"isarray", c"table.isarray", isarray),
    (c"isempty", c"table.isempty", isempty),
    (c"clone", c"table.clone", clone),
];

/// In Lua, so that the callbacks may yield.
const PRELUDE: &str = r#"
local table = ...
local next, type, error = next, type, error
local function check(t, f, name)
    if type(t) ~= "table" then
        error("bad argument #1 to '" .. name .. "' (table expected, got " .. (t == nil and "no value" or type(t)) .. ")", 3)
    end
    if type(f) ~= "function" then
        error("bad argument #2 to '" .. name .. "' (function expected, got " .. (f == nil and "no value" or type(f)) .. ")", 3)
    end
end
function table.foreach(t, f)
    check(t, f, "foreach")
    for k, v in next, t do
        local r = f(k, v)
        if r ~= nil then return r end
    end
end
function table.foreachi(t, f)
    check(t, f, "foreachi")
    for i = 1, #t do
        local r = f(i, t[i])
        if r ~= nil then return r end
    end
end
"#;

/// Adds the functions to the global `table`. LuaJIT has `move getn maxn foreach foreachi` as
/// fields only, the others as modules only, which here are fields as well.
pub(crate) unsafe fn open(l: *mut State) {
    ffi::lua_rawgeti(l, ffi::REGISTRY, ffi::RIDX_GLOBALS);
    ffi::luaL_getsubtable(l, -1, c"table".as_ptr());
    for (field, module, function) in FUNCTIONS {
        ffi::lua_pushcclosure(l, function, 0);
        ffi::lua_pushvalue(l, -1);
        ffi::lua_setfield(l, -3, field.as_ptr());
        ffi::set_loaded(l, module);
        ffi::pop(l, 1);
    }
    ffi::register(l, &[(c"move", move_), (c"getn", getn), (c"maxn", maxn)]);
    run(l, PRELUDE, c"=table", 1, 0);
    ffi::pop(l, 1);
}

unsafe extern "C-unwind" fn new(l: *mut State) -> c_int {
    // A larger hint is as good as this one: tables grow.
    const MOST: isize = 1 << 22;
    let array = ffi::luaL_checkinteger(l, 1).clamp(0, MOST);
    let hash = ffi::opt_integer(l, 2, 0).clamp(0, MOST);
    ffi::tick(l, array.unsigned_abs() + hash.unsigned_abs());
    ffi::lua_createtable(
        l,
        c_int::try_from(array).unwrap_or(0),
        c_int::try_from(hash).unwrap_or(0),
    );
    1
}

unsafe extern "C-unwind" fn clear(l: *mut State) -> c_int {
    ffi::luaL_checktype(l, 1, ffi::TTABLE);
    let mut count = 0;
    ffi::lua_pushnil(l);
    while ffi::lua_next(l, 1) != 0 {
        // Clearing a field that is there is allowed while walking.
        ffi::pop(l, 1);
        ffi::lua_pushvalue(l, -1);
        ffi::lua_pushnil(l);
        ffi::lua_rawset(l, 1);
        count += 1;
    }
    ffi::tick(l, count);
    0
}

unsafe extern "C-unwind" fn nkeys(l: *mut State) -> c_int {
    ffi::luaL_checktype(l, 1, ffi::TTABLE);
    let mut count = 0;
    ffi::lua_pushnil(l);
    while ffi::lua_next(l, 1) != 0 {
        ffi::pop(l, 1);
        count += 1;
    }
    ffi::tick(l, count);
    ffi::lua_pushnumber(l, number(count));
    1
}

/// True when no key is negative, fractional or no number (0 counts, as in LuaJIT).
unsafe extern "C-unwind" fn isarray(l: *mut State) -> c_int {
    ffi::luaL_checktype(l, 1, ffi::TTABLE);
    let mut count = 0;
    ffi::lua_pushnil(l);
    while ffi::lua_next(l, 1) != 0 {
        ffi::pop(l, 1);
        count += 1;
        let mut array = false;
        if ffi::lua_type(l, -1) == ffi::TNUMBER {
            let key = ffi::lua_tonumberx(l, -1, std::ptr::null_mut());
            array = key >= 0.0 && key.fract() == 0.0;
        }
        if !array {
            ffi::lua_pushboolean(l, 0);
            return 1;
        }
    }
    ffi::tick(l, count);
    ffi::lua_pushboolean(l, 1);
    1
}

unsafe extern "C-unwind" fn isempty(l: *mut State) -> c_int {
    ffi::luaL_checktype(l, 1, ffi::TTABLE);
    ffi::lua_pushnil(l);
    let some = ffi::lua_next(l, 1);
    ffi::lua_pushboolean(l, c_int::from(some == 0));
    1
}

/// A shallow copy, without the metatable.
unsafe extern "C-unwind" fn clone(l: *mut State) -> c_int {
    ffi::luaL_checktype(l, 1, ffi::TTABLE);
    ffi::lua_settop(l, 1);
    ffi::lua_createtable(l, c_int::try_from(ffi::lua_rawlen(l, 1)).unwrap_or(0), 0);
    let mut count = 0;
    ffi::lua_pushnil(l);
    while ffi::lua_next(l, 1) != 0 {
        ffi::lua_pushvalue(l, -2);
        ffi::lua_insert(l, -2);
        ffi::lua_rawset(l, 2);
        count += 1;
    }
    ffi::tick(l, count);
    1
}

/// `table.move(a, from, to, at [, b])`, which honours metamethods.
unsafe extern "C-unwind" fn move_(l: *mut State) -> c_int {
    ffi::luaL_checktype(l, 1, ffi::TTABLE);
    let (from, to, at) = (
        ffi::luaL_checkinteger(l, 2),
        ffi::luaL_checkinteger(l, 3),
        ffi::luaL_checkinteger(l, 4),
    );
    let target = if ffi::lua_type(l, 5) <= ffi::TNIL {
        1
    } else {
        5
    };
    ffi::luaL_checktype(l, target, ffi::TTABLE);
    let count = if to >= from {
        to.wrapping_sub(from).wrapping_add(1)
    } else {
        0
    };
    // Overlapping ranges of one table are walked from the safe end.
    let forward = at > to || at <= from || target != 1;
    for step in 0..count {
        let offset = if forward { step } else { count - 1 - step };
        ffi::lua_pushinteger(l, at.wrapping_add(offset));
        ffi::lua_pushinteger(l, from.wrapping_add(offset));
        ffi::lua_gettable(l, 1);
        ffi::lua_settable(l, target);
        if step & 1023 == 1023 {
            ffi::tick(l, 1024);
        }
    }
    ffi::lua_pushvalue(l, target);
    1
}

unsafe extern "C-unwind" fn getn(l: *mut State) -> c_int {
    ffi::luaL_checktype(l, 1, ffi::TTABLE);
    ffi::lua_pushnumber(l, number(ffi::lua_rawlen(l, 1)));
    1
}

unsafe extern "C-unwind" fn maxn(l: *mut State) -> c_int {
    ffi::luaL_checktype(l, 1, ffi::TTABLE);
    let mut largest = 0.0f64;
    let mut count = 0;
    ffi::lua_pushnil(l);
    while ffi::lua_next(l, 1) != 0 {
        ffi::pop(l, 1);
        count += 1;
        if ffi::lua_type(l, -1) == ffi::TNUMBER {
            largest = largest.max(ffi::lua_tonumberx(l, -1, std::ptr::null_mut()));
        }
    }
    ffi::tick(l, count);
    ffi::lua_pushnumber(l, largest);
    1
}
