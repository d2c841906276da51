//! `ngx.shared.DICT`: OpenResty's results and error strings over the host's shared dicts.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::api_shared_list;
use crate::bindings::phasor::plugin::shared_dict::{Dict, DictError, Mode, Value};
use crate::ffi::{self, State};
use crate::vm::vm;
use std::ffi::c_int;

/// OpenResty's longest key.
const MAX_KEY: usize = 65_535;

/// OpenResty's text for an error.
pub(crate) fn text(e: DictError) -> &'static [u8] {
    match e {
        DictError::UnknownDict => b"no such dict",
        DictError::Refused => b"not allowed",
        DictError::NotFound => b"not found",
        DictError::Exists => b"exists",
        DictError::NoMemory => b"no memory",
        DictError::NotANumber => b"not a number",
        DictError::IsAList => b"value is a list",
        DictError::NotAList => b"value not a list",
        DictError::Invalid => b"bad value type",
        DictError::Busy => b"too many waits",
    }
}

/// A dict that this VM has opened. What Lua holds is its place in the list: the host's handle does not
/// come over with the heap image, so `init` leaves none, and the first use in an instance opens it.
pub(crate) struct Opened {
    name: String,
    dict: Option<Dict>,
}

/// Gives the host its handles back: the heap image is taken, and every instance opens its own.
pub(crate) fn close_all() {
    for opened in &mut vm().dicts {
        opened.dict = None;
    }
}

/// The number of the dict in argument 1: a table, as in OpenResty, whose first element is a light
/// userdata that Lua code cannot make (`ngx.null` is the only other one).
pub(crate) unsafe fn zone(l: *mut State) -> Option<usize> {
    // SAFETY: called by Lua.
    unsafe {
        if ffi::lua_type(l, 1) != ffi::TTABLE {
            return None;
        }
        ffi::lua_rawgeti(l, 1, 1);
        let zone = match ffi::lua_type(l, -1) {
            ffi::TLIGHTUSERDATA => (ffi::lua_touserdata(l, -1) as usize).checked_sub(1),
            _ => None,
        };
        ffi::pop(l, 1);
        zone
    }
}

/// The dict in argument 1.
pub(crate) unsafe fn dict(l: *mut State) -> &'static Dict {
    // SAFETY: called by Lua; a number that is not of the list is refused.
    unsafe {
        let number = zone(l).filter(|number| *number < vm().dicts.len());
        let Some(number) = number else {
            ffi::error(l, b"bad \"zone\" argument");
        };
        match dict_at(number) {
            Some(dict) => dict,
            None => ffi::error(l, b"the shared dict is gone"),
        }
    }
}

/// The dict of this number.
pub(crate) fn dict_at(number: usize) -> Option<&'static Dict> {
    let vm = vm();
    vm.select();
    let opened = vm.dicts.get_mut(number)?;
    if opened.dict.is_none() {
        opened.dict = Dict::open(&opened.name).ok();
    }
    opened.dict.as_ref()
}

/// The key in argument 2, or why it is none.
pub(crate) unsafe fn key<'a>(l: *mut State) -> Result<&'a [u8], &'static [u8]> {
    // SAFETY: a number is converted on the stack.
    unsafe {
        match ffi::lua_type(l, 2) {
            ffi::TNIL | ffi::TNONE => Err(b"nil key"),
            ffi::TSTRING | ffi::TNUMBER => match ffi::to_bytes(l, 2) {
                Some(b"") => Err(b"empty key"),
                Some(key) if key.len() > MAX_KEY => Err(b"key too long"),
                Some(key) => Ok(key),
                None => Err(b"nil key"),
            },
            _ => {
                ffi::luaL_tolstring(l, 2, std::ptr::null_mut());
                ffi::lua_replace(l, 2);
                Ok(ffi::to_bytes(l, 2).unwrap_or_default())
            }
        }
    }
}

pub(crate) unsafe fn push_value(l: *mut State, value: Value) {
    // SAFETY: called by Lua.
    unsafe {
        match value {
            Value::Nil => ffi::lua_pushnil(l),
            Value::Boolean(b) => ffi::lua_pushboolean(l, c_int::from(b)),
            Value::Number(n) => ffi::lua_pushnumber(l, n),
            Value::Bytes(b) => crate::held::push(l, b),
        }
    }
}

/// The value in argument `idx`; `None` for a type that a dict cannot hold. Raises for lack of memory.
pub(crate) unsafe fn to_value(l: *mut State, idx: c_int) -> Option<Value> {
    // SAFETY: called by Lua.
    unsafe {
        Some(match ffi::lua_type(l, idx) {
            ffi::TNIL | ffi::TNONE => Value::Nil,
            ffi::TBOOLEAN => Value::Boolean(ffi::lua_toboolean(l, idx) != 0),
            ffi::TNUMBER => Value::Number(ffi::lua_tonumberx(l, idx, std::ptr::null_mut())),
            ffi::TSTRING => {
                let bytes = ffi::to_bytes(l, idx)?;
                crate::alloc::demand(l, bytes.len());
                Value::Bytes(bytes.to_vec())
            }
            _ => return None,
        })
    }
}

/// Seconds as Lua gives them, in milliseconds.
pub(crate) unsafe fn ttl(l: *mut State, idx: c_int, what: &std::ffi::CStr) -> u64 {
    // SAFETY: called by Lua.
    unsafe {
        let seconds = ffi::opt_number(l, idx, 0.0);
        if seconds < 0.0 {
            ffi::error(l, what.to_bytes());
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative; saturates"
        )]
        let milliseconds = (seconds * 1000.0) as u64;
        milliseconds
    }
}

/// Flags are a C `int` in OpenResty: what does not fit is the smallest.
pub(crate) unsafe fn flags(l: *mut State, idx: c_int) -> u32 {
    // SAFETY: called by Lua.
    let given = unsafe { ffi::opt_number(l, idx, 0.0) };
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
    let flags = if given > -2_147_483_649.0 && given < 2_147_483_648.0 {
        given as i32
    } else {
        i32::MIN
    };
    flags.cast_unsigned()
}

unsafe fn fetch(l: *mut State, with_stale: bool) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let dict = dict(l);
        let key = match key(l) {
            Ok(key) => key,
            Err(e) => return ffi::nil_error(l, e),
        };
        match dict.get(key, with_stale) {
            Ok(Some(entry)) => {
                push_value(l, entry.value);
                if entry.flags != 0 {
                    ffi::lua_pushnumber(l, f64::from(entry.flags.cast_signed()));
                } else if with_stale {
                    ffi::lua_pushnil(l);
                } else {
                    return 1;
                }
                if !with_stale {
                    return 2;
                }
                ffi::lua_pushboolean(l, c_int::from(entry.stale));
                3
            }
            Ok(None) => {
                ffi::lua_pushnil(l);
                1
            }
            Err(e) => ffi::nil_error(l, text(e)),
        }
    }
}

unsafe extern "C-unwind" fn get(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { fetch(l, false) }
}

unsafe extern "C-unwind" fn get_stale(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { fetch(l, true) }
}

unsafe fn store(l: *mut State, mode: Mode) -> c_int {
    // SAFETY: called by Lua; the value is gone before anything raises.
    unsafe {
        let dict = dict(l);
        let ttl = ttl(l, 4, c"bad \"exptime\" argument");
        let flags = flags(l, 5);
        let key = match key(l) {
            Ok(key) => key,
            Err(e) => return ffi::nil_error(l, e),
        };
        let Some(value) = to_value(l, 3) else {
            return ffi::nil_error(l, b"bad value type");
        };
        let needs_value = matches!(mode, Mode::Add | Mode::SafeAdd | Mode::Replace);
        if needs_value && matches!(value, Value::Nil) {
            return stored(l, Err(b"attempt to add or replace nil values"));
        }
        let outcome = dict.store(mode, key, &value, ttl, flags);
        drop(value);
        stored(l, outcome.map_err(text))
    }
}

/// Pushes the three results of a store.
unsafe fn stored(l: *mut State, outcome: Result<bool, &[u8]>) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        ffi::lua_pushboolean(l, c_int::from(outcome.is_ok()));
        match outcome {
            Ok(_) => ffi::lua_pushnil(l),
            Err(text) => ffi::push_bytes(l, text),
        }
        ffi::lua_pushboolean(l, c_int::from(outcome == Ok(true)));
    }
    3
}

macro_rules! stores {
    ($($name:ident $mode:ident),*) => {$(
        unsafe extern "C-unwind" fn $name(l: *mut State) -> c_int {
            // SAFETY: called by Lua.
            unsafe { store(l, Mode::$mode) }
        }
    )*};
}
stores!(set Set, safe_set SafeSet, add Add, safe_add SafeAdd, replace Replace);

unsafe extern "C-unwind" fn incr(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let dict = dict(l);
        let by = ffi::luaL_checknumber(l, 3);
        let init = if ffi::lua_type(l, 4) <= ffi::TNIL {
            None
        } else {
            Some(ffi::luaL_checknumber(l, 4))
        };
        let init_ttl = ttl(l, 5, c"bad \"init_ttl\" argument");
        if init_ttl > 0 && init.is_none() {
            ffi::error(l, b"must provide \"init\" when providing \"init_ttl\"");
        }
        let key = match key(l) {
            Ok(key) => key,
            Err(e) => return ffi::nil_error(l, e),
        };
        match dict.incr(key, by, init, init_ttl) {
            Ok((value, forcible)) => {
                ffi::lua_pushnumber(l, value);
                if init.is_none() {
                    return 1;
                }
                ffi::lua_pushnil(l);
                ffi::lua_pushboolean(l, c_int::from(forcible));
                3
            }
            Err(e) => ffi::nil_error(l, text(e)),
        }
    }
}

unsafe extern "C-unwind" fn delete(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let dict = dict(l);
        let key = match key(l) {
            Ok(key) => key,
            Err(e) => return ffi::nil_error(l, e),
        };
        match dict.delete(key) {
            Ok(()) => {
                ffi::lua_pushboolean(l, 1);
                1
            }
            Err(e) => ffi::nil_error(l, text(e)),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds")]
unsafe extern "C-unwind" fn time_to_live(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let dict = dict(l);
        let key = match key(l) {
            Ok(key) => key,
            Err(e) => return ffi::nil_error(l, e),
        };
        match dict.ttl(key) {
            Ok(left) => {
                ffi::lua_pushnumber(l, left as f64 / 1000.0);
                1
            }
            Err(e) => ffi::nil_error(l, text(e)),
        }
    }
}

unsafe extern "C-unwind" fn expire(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let dict = dict(l);
        if ffi::lua_type(l, 3) <= ffi::TNIL {
            ffi::error(l, b"bad \"exptime\" argument");
        }
        // As in OpenResty, a time below zero is for ever here, and refused by `set`.
        let ttl = if ffi::luaL_checknumber(l, 3) > 0.0 {
            ttl(l, 3, c"")
        } else {
            0
        };
        let key = match key(l) {
            Ok(key) => key,
            Err(e) => return ffi::nil_error(l, e),
        };
        match dict.expire(key, ttl) {
            Ok(()) => {
                ffi::lua_pushboolean(l, 1);
                1
            }
            Err(e) => ffi::nil_error(l, text(e)),
        }
    }
}

unsafe extern "C-unwind" fn flush_all(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { dict(l).flush_all() };
    0
}

unsafe extern "C-unwind" fn flush_expired(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let dict = dict(l);
        let max = u32::try_from(ffi::opt_integer(l, 2, 0)).unwrap_or(0);
        ffi::lua_pushnumber(l, f64::from(dict.flush_expired(max)));
    }
    1
}

unsafe extern "C-unwind" fn get_keys(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let dict = dict(l);
        let max = u32::try_from(ffi::opt_integer(l, 2, 1024)).unwrap_or(0);
        let keys = crate::held::hold(dict.get_keys(max));
        let keys = keys.value();
        ffi::lua_createtable(l, c_int::try_from(keys.len()).unwrap_or(0), 0);
        for (i, key) in (1..).zip(keys) {
            ffi::push_bytes(l, key);
            ffi::lua_rawseti(l, -2, i);
        }
    }
    1
}

#[expect(clippy::cast_precision_loss, reason = "bytes")]
unsafe extern "C-unwind" fn capacity(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { ffi::lua_pushnumber(l, dict(l).capacity() as f64) };
    1
}

#[expect(clippy::cast_precision_loss, reason = "bytes")]
unsafe extern "C-unwind" fn free_space(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { ffi::lua_pushnumber(l, dict(l).free_space() as f64) };
    1
}

/// Pushes a dict, which is opened at its first use.
unsafe fn push_dict(l: *mut State, name: &str) {
    let dicts = &mut vm().dicts;
    dicts.push(Opened {
        name: name.to_owned(),
        dict: None,
    });
    // SAFETY: called while the state is opened.
    unsafe {
        ffi::lua_createtable(l, 1, 0);
        ffi::lua_pushlightuserdata(l, std::ptr::without_provenance_mut(dicts.len()));
        ffi::lua_rawseti(l, -2, 1);
        ffi::lua_getfield(l, ffi::REGISTRY, c"phasor.shared".as_ptr());
        ffi::lua_setmetatable(l, -2);
    }
}

/// A dict that is not in `ngx.shared`: none, and if it is one that this plugin may not use, the host
/// says so in the error log.
unsafe extern "C-unwind" fn index(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        if ffi::lua_type(l, 2) == ffi::TSTRING {
            vm().select();
            let name = std::str::from_utf8(ffi::check_bytes(l, 2)).unwrap_or_default();
            drop(Dict::open(name));
        }
    }
    0
}

/// Opens `ngx.shared`.
pub(crate) unsafe fn open(l: *mut State) {
    // SAFETY: called while the state is opened.
    unsafe {
        ffi::luaL_newmetatable(l, c"phasor.shared".as_ptr());
        ffi::push_library(
            l,
            &[
                (c"get", get),
                (c"get_stale", get_stale),
                (c"set", set),
                (c"safe_set", safe_set),
                (c"add", add),
                (c"safe_add", safe_add),
                (c"replace", replace),
                (c"add_in_turn", crate::api_shared_swap::add_in_turn),
                (c"cas", crate::api_shared_swap::cas),
                (c"wait", crate::api_shared_swap::wait_for),
                (c"wake", crate::api_shared_swap::wake),
                (c"delete", delete),
                (c"incr", incr),
                (c"lpush", api_shared_list::lpush),
                (c"rpush", api_shared_list::rpush),
                (c"lpop", api_shared_list::lpop),
                (c"rpop", api_shared_list::rpop),
                (c"llen", api_shared_list::llen),
                (c"ttl", time_to_live),
                (c"expire", expire),
                (c"flush_all", flush_all),
                (c"flush_expired", flush_expired),
                (c"get_keys", get_keys),
                (c"capacity", capacity),
                (c"free_space", free_space),
            ],
        );
        ffi::lua_setfield(l, -2, c"__index".as_ptr());
        ffi::pop(l, 1);
        ffi::push_ngx(l);
        ffi::lua_createtable(l, 0, 0);
        for name in &vm().program.shared {
            ffi::push_bytes(l, name.as_bytes());
            push_dict(l, name);
            ffi::lua_rawset(l, -3);
        }
        ffi::push_library(l, &[(c"__index", index)]);
        ffi::lua_setmetatable(l, -2);
        ffi::lua_setfield(l, -2, c"shared".as_ptr());
        ffi::pop(l, 1);
    }
}
