//! `phasor.cache`: the tiered caches of the configuration. Here are the calls of the host; what Lua
//! code sees is in `lib_cache.lua`, the first level in `cache_copies`.
//!
//! A string is stored as it is, so that plugins in other languages read it; any other value as
//! `string.buffer` encodes it, behind a zero byte.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::api;
use crate::bindings::phasor::plugin::cache::{
    self, Answers, CacheError, Flight, Found, Level, Looking, Outcome, Stamp,
};
use crate::cache_copies;
use crate::cache_options::{options, time};
use crate::ffi::{self, State};
use crate::flight;
use crate::lib_buffer_codec::{push_decoded, push_encoded};
use crate::phase;
use crate::vm::vm;
use crate::wait::{end_with, taken};
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
unsafe fn failed(l: *mut State, error: CacheError) -> c_int {
    // SAFETY: called by Lua.
    unsafe { ffi::nil_error(l, &text(error)) }
}

unsafe fn id(l: *mut State) -> u32 {
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
unsafe fn push_found(l: *mut State, found: &Found) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        ffi::push_bytes(l, b"hit");
        if !push_value(l, found.value.as_deref()) {
            ffi::pop(l, 1);
            ffi::push_bytes(l, b"malformed");
            return 1;
        }
        ffi::lua_pushnumber(
            l,
            match found.level {
                Level::Memory => 1.0,
                Level::Disk => 2.0,
                Level::Remote => 3.0,
                Level::Callback => 4.0,
            },
        );
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

unsafe extern "C-unwind" fn found(l: *mut State) -> c_int {
    // SAFETY: called by Lua as the continuation of `find`.
    unsafe {
        let Some(operation) = taken(l) else { return 0 };
        match cache::end_get(operation) {
            Ok(Outcome::Hit(hit)) => push_found(l, crate::held::hold(hit).value()),
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

unsafe fn flight_number(l: *mut State) -> usize {
    // SAFETY: called by Lua.
    unsafe { usize::try_from(ffi::luaL_checkinteger(l, 1)).unwrap_or(usize::MAX) }
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

/// `fill(flight, bytes, ttl)`: the stamp, or nil and why.
unsafe extern "C-unwind" fn fill(l: *mut State) -> c_int {
    // SAFETY: called by Lua. The flight stays where it is until this has ended.
    unsafe {
        let at = flight_number(l);
        let ttl = match ffi::lua_type(l, 3) {
            ffi::TNUMBER => {
                ffi::lua_createtable(l, 0, 1);
                ffi::lua_pushvalue(l, 3);
                ffi::lua_setfield(l, -2, c"ttl".as_ptr());
                time(l, -1, c"ttl")
            }
            _ => None,
        };
        let bytes = ffi::opt_bytes(l, 2);
        vm().select();
        let operation = flight::flying(at).map(|flight| flight.begin_fill(bytes, ttl));
        match operation {
            Some(operation) => end_with(l, operation, filled),
            None => failed(l, CacheError::Lost),
        }
    }
}

unsafe fn stamped(l: *mut State, stamp: Result<Stamp, CacheError>) -> c_int {
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

unsafe extern "C-unwind" fn filled(l: *mut State) -> c_int {
    // SAFETY: called by Lua as the continuation of `fill`.
    unsafe {
        let Some(operation) = taken(l) else { return 0 };
        stamped(l, Flight::end_fill(operation))
    }
}

/// `pass(flight, bytes)`: true, or nil and why.
unsafe extern "C-unwind" fn pass(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let at = flight_number(l);
        let bytes = ffi::opt_bytes(l, 2);
        vm().select();
        let passed = flight::leave(at).map_or(Err(CacheError::Lost), |flight| flight.pass(bytes));
        match passed {
            Ok(()) => {
                ffi::lua_pushboolean(l, 1);
                1
            }
            Err(error) => failed(l, error),
        }
    }
}

/// `fail(flight, reason)`: what serves instead, as `find` gives it, or nothing.
unsafe extern "C-unwind" fn fail(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let at = flight_number(l);
        ffi::check_bytes(l, 2);
        vm().select();
        let stale = flight::leave(at).and_then(|flight| {
            let reason = String::from_utf8_lossy(ffi::check_bytes(l, 2));
            flight.fail(&reason)
        });
        match stale {
            Some(found) => push_found(l, &found),
            None => 0,
        }
    }
}

/// `stale(flight)`: what is there still, as `find` gives it, or nothing.
unsafe extern "C-unwind" fn stale(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let at = flight_number(l);
        vm().select();
        match flight::flying(at).and_then(Flight::stale) {
            Some(found) => push_found(l, &found),
            None => 0,
        }
    }
}

/// `renew_lease(flight)`: whether the flight is the caller's still.
unsafe extern "C-unwind" fn renew_lease(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let at = flight_number(l);
        vm().select();
        let mine = flight::flying(at).is_some_and(Flight::renew);
        ffi::lua_pushboolean(l, c_int::from(mine));
    }
    1
}

/// `hand_over(flight, back)`: it outlives this task; with `back` this task takes it over.
unsafe extern "C-unwind" fn hand_over(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let at = flight_number(l);
        match ffi::lua_toboolean(l, 2) {
            0 => flight::hand_over(at),
            _ => flight::take_over(at),
        }
    }
    0
}

/// `leave(flight)`: the next in line gets it.
unsafe extern "C-unwind" fn leave(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let at = flight_number(l);
        drop(flight::leave(at));
    }
    0
}

/// `set(id, key, bytes, options)`: the stamp, or nil and why.
unsafe extern "C-unwind" fn set(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        api::check_phase(l, phase::WAIT);
        let (id, options) = (id(l), options(l, 4));
        let (key, bytes) = (ffi::check_bytes(l, 2), ffi::opt_bytes(l, 3));
        vm().select();
        end_with(l, cache::begin_set(id, key, bytes, options), changed)
    }
}

/// `delete(id, key)`
unsafe extern "C-unwind" fn delete(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        api::check_phase(l, phase::WAIT);
        let (id, key) = (id(l), ffi::check_bytes(l, 2));
        vm().select();
        end_with(l, cache::begin_delete(id, key), changed)
    }
}

/// `purge(id)`
unsafe extern "C-unwind" fn purge(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        api::check_phase(l, phase::WAIT);
        let id = id(l);
        vm().select();
        end_with(l, cache::begin_purge(id), changed)
    }
}

/// `purge_answers(id, kind, text)`: answers of routes; the kind is `"key"`, `"prefix"` or `"tag"`.
unsafe extern "C-unwind" fn purge_answers(l: *mut State) -> c_int {
    // SAFETY: called by Lua; the text is gone before anything raises.
    unsafe {
        api::check_phase(l, phase::WAIT);
        let (id, kind, text) = (id(l), ffi::check_bytes(l, 2), ffi::check_bytes(l, 3));
        vm().select();
        let operation = {
            let answers = match kind {
                b"key" => Answers::Key(text.to_vec()),
                b"prefix" => Answers::Prefix(text.to_vec()),
                _ => Answers::Tagged(text.to_vec()),
            };
            cache::begin_purge_answers(id, &answers)
        };
        end_with(l, operation, changed)
    }
}

unsafe extern "C-unwind" fn changed(l: *mut State) -> c_int {
    // SAFETY: called by Lua as the continuation of a change.
    unsafe {
        let Some(operation) = taken(l) else { return 0 };
        stamped(l, cache::end_change(operation))
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
                (c"find", find),
                (c"encode", encode),
                (c"fill", fill),
                (c"pass", pass),
                (c"fail", fail),
                (c"stale", stale),
                (c"renew_lease", renew_lease),
                (c"leave", leave),
                (c"hand_over", hand_over),
                (c"set", set),
                (c"delete", delete),
                (c"purge", purge),
                (c"purge_answers", purge_answers),
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
        crate::lib_scratch::run(l, include_str!("lib_cache.lua"), c"=phasor.cache", 1, 1);
    }
    1
}

/// Makes the module load on its first `require`.
pub(crate) unsafe fn open(l: *mut State) {
    // SAFETY: called protected, while the state is opened.
    unsafe { ffi::set_preload(l, c"phasor.cache", module) }
}
