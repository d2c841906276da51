//! `phasor.cache`: the tiered caches of the configuration. Here are the calls of the host; what Lua
//! code sees is in `lib_cache.lua`, the first level in `cache_copies`.
//!
//! A string is stored as it is, so that plugins in other languages read it; any other value as
//! `string.buffer` encodes it, behind a zero byte.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::api;
use crate::bindings::phasor::plugin::cache::{
    self, CacheError, Found, Level, Looking, Outcome, Stamp,
};
use crate::cache_copies;
use crate::cache_options::options;
use crate::ffi::{self, State};
use crate::flight;
use crate::lib_buffer_codec::{push_decoded, push_encoded};
use crate::phase;
use crate::vm::vm;
use crate::wait::{end_behind, end_with, taken};
use std::ffi::c_int;

/// Before every value that is no string, and before a string that begins with it.
const ENCODED: u8 = 0;

fn text(error: CacheError) -> Vec<u8> {
    match error {
        CacheError::UnknownCache => b"no such cache".to_vec(),
        CacheError::Refused => b"refused".to_vec(),
        CacheError::Timeout => b"timeout".to_vec(),
        CacheError::Busy => b"too many wait".to_vec(),
        CacheError::InvalidKey => b"invalid key".to_vec(),
        CacheError::TooLarge(most) => format!("the value is longer than {most} bytes").into_bytes(),
        CacheError::Lost => b"lost".to_vec(),
        CacheError::Source(reason) => reason.into_bytes(),
    }
}

/// `nil` and the error's text.
pub(crate) unsafe fn failed(l: *mut State, error: CacheError) -> c_int {
    // SAFETY: called by Lua.
    unsafe { ffi::nil_error(l, &text(error)) }
}

pub(crate) unsafe fn id(l: *mut State) -> u32 {
    // SAFETY: called by Lua.
    unsafe { u32::try_from(ffi::luaL_checkinteger(l, 1)).unwrap_or(u32::MAX) }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts and times are far below 2^53"
)]
fn number(n: u64) -> f64 {
    n as f64
}

fn level(level: Level) -> f64 {
    match level {
        Level::Memory => 1.0,
        Level::Disk => 2.0,
        Level::Remote => 3.0,
        Level::Callback => 4.0,
    }
}

unsafe fn push_stamp(l: *mut State, stamp: Stamp) {
    // SAFETY: called by Lua.
    unsafe {
        ffi::lua_pushnumber(l, f64::from(stamp.slot));
        ffi::lua_pushnumber(l, number(stamp.version));
        ffi::lua_pushnumber(l, number(stamp.until));
    }
}

/// Pushes the value that the bytes stand for; false, and nothing, when they stand for none.
unsafe fn push_value(l: *mut State, bytes: Option<&[u8]>) -> bool {
    // SAFETY: called by Lua; a part of a value that was pushed is taken away.
    unsafe {
        match bytes {
            None => ffi::lua_pushnil(l),
            Some([ENCODED, bytes @ ..]) => {
                let top = ffi::lua_gettop(l);
                if push_decoded(l, bytes).ok() != Some(bytes.len()) {
                    ffi::lua_settop(l, top);
                    return false;
                }
            }
            Some(bytes) => ffi::push_bytes(l, bytes),
        }
        true
    }
}

/// Pushes value, level, whether it is stale, stamp and the seconds left; `"malformed"` alone when
/// another's bytes stand for no value of Lua.
pub(crate) unsafe fn push_found(l: *mut State, found: &Found) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        ffi::push_bytes(l, b"hit");
        if !push_value(l, found.value.as_deref()) {
            ffi::pop(l, 1);
            ffi::push_bytes(l, b"malformed");
            return 1;
        }
        ffi::lua_pushnumber(l, level(found.level));
        ffi::lua_pushboolean(l, c_int::from(found.stale));
        push_stamp(l, found.stamp);
        match found.remaining {
            #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
            Some(left) => ffi::lua_pushnumber(l, left as f64 / 1000.0),
            None => ffi::lua_pushnil(l),
        }
        8
    }
}

/// `open(name)`: a number, how many copies to keep, and whether the number is good for longer than
/// this call: what `init` leaves is for instances that are yet to be.
unsafe extern "C-unwind" fn open_cache(l: *mut State) -> c_int {
    // SAFETY: called by Lua; the name is gone before anything raises.
    unsafe {
        ffi::check_bytes(l, 1);
        let phase = vm().phase();
        let opened = {
            let name = String::from_utf8_lossy(ffi::check_bytes(l, 1)).into_owned();
            vm().select();
            cache::open(&name)
        };
        match opened {
            Ok(opened) => {
                ffi::lua_pushnumber(l, f64::from(opened.id));
                ffi::lua_pushnumber(l, f64::from(opened.items));
                ffi::lua_pushboolean(l, c_int::from(phase != phase::INIT));
                3
            }
            Err(error) => failed(l, error),
        }
    }
}

/// `find(id, key, force, options)`: what `push_found` gives, or `"flight"` and its number, or nil and
/// why.
unsafe extern "C-unwind" fn find(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        api::check_phase(l, phase::WAIT);
        let (id, options) = (id(l), options(l, 4));
        let key = ffi::check_bytes(l, 2);
        vm().select();
        if ffi::lua_toboolean(l, 3) != 0 {
            return end_with(l, cache::begin_renew(id, key, options), found);
        }
        match cache::begin_get(id, key, options) {
            Looking::Now(hit) => push_found(l, crate::held::hold(hit).value()),
            Looking::Later(operation) => end_with(l, operation, found),
        }
    }
}

/// `get(copies, key, options)`: true, the value, its level (0: a copy) and whether it is stale, or what
/// `find` gives where there is no value.
unsafe extern "C-unwind" fn get(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        ffi::check_bytes(l, 2);
        ffi::lua_settop(l, 3);
        if cache_copies::push_copy(l) {
            ffi::lua_pushboolean(l, 1);
            ffi::lua_insert(l, 4);
            ffi::lua_pushnumber(l, 0.0);
            ffi::lua_pushboolean(l, 0);
            return 4;
        }
        api::check_phase(l, phase::WAIT);
        let (cache, options) = (cache_copies::cache_of(l), options(l, 3));
        vm().select();
        match cache::begin_get(cache, ffi::check_bytes(l, 2), options) {
            Looking::Now(hit) => push_hit(l, hit),
            Looking::Later(operation) => end_behind(l, operation, got),
        }
    }
}

unsafe extern "C-unwind" fn got(l: *mut State) -> c_int {
    // SAFETY: called by Lua as the continuation of `get`, whose arguments lie behind the operation.
    unsafe {
        let Some(operation) = taken(l) else { return 0 };
        ffi::lua_remove(l, 1);
        ended(l, cache::end_get(operation), |l, hit| push_hit(l, hit))
    }
}

/// What `get` gives of a value that is there; its arguments are on the stack.
unsafe fn push_hit(l: *mut State, mut hit: Found) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        ffi::lua_settop(l, 3);
        ffi::lua_pushboolean(l, 1);
        match hit.value.take() {
            Some(bytes) if bytes.first() != Some(&ENCODED) => crate::held::push(l, bytes),
            value => {
                let value = crate::held::hold(value);
                if !push_value(l, value.value().as_deref()) {
                    ffi::push_bytes(l, b"malformed");
                    return 1;
                }
            }
        }
        // What is stale is said to be so each time.
        let until = if hit.stale { 0 } else { hit.stamp.until };
        cache_copies::keep_value(l, 5, hit.stamp.slot, hit.stamp.version, until);
        ffi::lua_pushnumber(l, level(hit.level));
        ffi::lua_pushboolean(l, c_int::from(hit.stale));
    }
    4
}

unsafe extern "C-unwind" fn found(l: *mut State) -> c_int {
    // SAFETY: called by Lua as the continuation of `find`.
    unsafe {
        let Some(operation) = taken(l) else { return 0 };
        ended(l, cache::end_get(operation), |l, hit| {
            push_found(l, crate::held::hold(hit).value())
        })
    }
}

/// What a look-up that had to wait gives.
unsafe fn ended(
    l: *mut State,
    outcome: Result<Outcome, CacheError>,
    push: impl FnOnce(*mut State, Found) -> c_int,
) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        match outcome {
            Ok(Outcome::Hit(hit)) => push(l, hit),
            Ok(Outcome::Miss(flight)) => {
                let at = flight::board(flight);
                ffi::push_bytes(l, b"flight");
                ffi::lua_pushnumber(l, crate::lib_scratch::number(at));
                2
            }
            Err(error) => failed(l, error),
        }
    }
}

/// The bytes of the value at `idx`, on the stack; nil for none.
unsafe fn encode_at(l: *mut State, idx: c_int) {
    // SAFETY: called by Lua.
    unsafe {
        match ffi::lua_type(l, idx) {
            ffi::TNONE | ffi::TNIL => ffi::lua_pushnil(l),
            ffi::TSTRING if ffi::to_bytes(l, idx).and_then(<[u8]>::first) != Some(&ENCODED) => {
                ffi::lua_pushvalue(l, idx);
            }
            _ => push_encoded(l, idx, &[ENCODED]),
        }
    }
}

/// `encode(value)`: what is stored for it; raises for what cannot be stored.
unsafe extern "C-unwind" fn encode(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { encode_at(l, 1) };
    1
}

pub(crate) unsafe fn stamped(l: *mut State, stamp: Result<Stamp, CacheError>) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        match stamp {
            Ok(stamp) => {
                push_stamp(l, stamp);
                3
            }
            Err(error) => failed(l, error),
        }
    }
}

/// `peek(id, key, stale)`: as `find`, or nothing.
unsafe extern "C-unwind" fn peek(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let (id, key) = (id(l), ffi::check_bytes(l, 2));
        let stale = ffi::lua_toboolean(l, 3) != 0;
        vm().select();
        match cache::peek(id, key, stale) {
            Some(found) => push_found(l, &found),
            None => 0,
        }
    }
}

/// `counters(id)`: a table of numbers by name.
unsafe extern "C-unwind" fn counters(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let id = id(l);
        vm().select();
        let all = cache::counters(id);
        ffi::lua_createtable(l, 0, crate::lib_scratch::int(all.len()));
        for (name, count) in &all {
            ffi::push_bytes(l, name.as_bytes());
            ffi::lua_pushnumber(l, number(*count));
            ffi::lua_rawset(l, -3);
        }
    }
    1
}

/// `join(parts)`: several parts as one key in which they cannot run into each other, as the SDKs do.
unsafe extern "C-unwind" fn join(l: *mut State) -> c_int {
    // SAFETY: called by Lua; the parts stay in the table while they are read.
    unsafe {
        ffi::luaL_checktype(l, 1, ffi::TTABLE);
        let count = crate::lib_scratch::int(ffi::lua_rawlen(l, 1));
        for place in 1..=count {
            ffi::lua_rawgeti(l, 1, place);
            let good = matches!(ffi::lua_type(l, -1), ffi::TSTRING | ffi::TNUMBER);
            ffi::pop(l, 1);
            if !good {
                ffi::arg_error(l, 1, c"list of strings and numbers expected");
            }
        }
        crate::lib_scratch::push_built(l, |out| {
            for place in 1..=count {
                ffi::lua_rawgeti(l, 1, place);
                let part = ffi::to_bytes(l, -1).unwrap_or_default();
                out.extend_from_slice(&(part.len() as u64).to_le_bytes());
                out.extend_from_slice(part);
                ffi::pop(l, 1);
            }
        });
    }
    1
}

unsafe extern "C-unwind" fn module(l: *mut State) -> c_int {
    // SAFETY: called by `require`.
    unsafe {
        ffi::lua_settop(l, 0);
        ffi::push_library(
            l,
            &[
                (c"open", open_cache),
                (c"get", get),
                (c"find", find),
                (c"encode", encode),
                (c"peek", peek),
                (c"counters", counters),
                (c"join", join),
                (c"copies", cache_copies::new),
                (c"lookup", cache_copies::lookup),
                (c"keep", cache_copies::keep),
                (c"clear", cache_copies::clear),
                (c"guard", cache_copies::guard),
                (c"guarded", cache_copies::guarded),
            ],
        );
        ffi::register(l, &crate::api_cache_change::FUNCTIONS);
        ffi::register(l, &crate::api_cache_flight::FUNCTIONS);
        crate::lib_scratch::run(l, include_str!("lib_cache.lua"), c"=phasor.cache", 1, 1);
    }
    1
}

/// Makes the module load on its first `require`.
pub(crate) unsafe fn open(l: *mut State) {
    // SAFETY: called protected, while the state is opened.
    unsafe {
        cache_copies::open(l);
        ffi::set_preload(l, c"phasor.cache", module);
    }
}
