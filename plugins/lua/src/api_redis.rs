//! `phasor.redis`: commands to the Redis servers of the configuration. Each call begins an operation
//! and waits as any other call does; what Lua code sees is in `lib_redis.lua`.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::api;
use crate::bindings::phasor::plugin::redis::{self, RedisError, Reply, Subscription, Value};
use crate::ffi::{self, State};
use crate::held::hold;
use crate::phase;
use crate::vm::vm;
use crate::wait::{self, taken};
use std::ffi::c_int;

fn text(error: &RedisError) -> Vec<u8> {
    match error {
        RedisError::Timeout => b"timeout".to_vec(),
        RedisError::Unavailable(text)
        | RedisError::Refused(text)
        | RedisError::Invalid(text)
        | RedisError::Failed(text) => text.clone().into_bytes(),
        RedisError::BreakerOpen => b"unavailable: the breaker is open".to_vec(),
        RedisError::Busy => b"too many commands wait".to_vec(),
        RedisError::UnknownRedis => b"no such redis".to_vec(),
        RedisError::TooLarge(limit) => {
            format!("the reply is longer than {limit} bytes").into_bytes()
        }
    }
}

/// `nil` and the error's text.
unsafe fn failed(l: *mut State, error: &RedisError) -> c_int {
    // SAFETY: called by Lua; the text is held.
    unsafe { ffi::nil_error(l, hold(text(error)).value()) }
}

unsafe fn push_single(l: *mut State, value: &Value) {
    // SAFETY: called by Lua.
    unsafe {
        match value {
            Value::Nil => ffi::lua_pushlightuserdata(l, std::ptr::null_mut()),
            Value::Boolean(truth) => ffi::lua_pushboolean(l, c_int::from(*truth)),
            #[expect(clippy::cast_precision_loss, reason = "numbers of Lua are doubles")]
            Value::Integer(number) => ffi::lua_pushnumber(l, *number as f64),
            Value::Double(number) => ffi::lua_pushnumber(l, *number),
            Value::Status(text) => ffi::push_bytes(l, text.as_bytes()),
            Value::Bytes(bytes) => ffi::push_bytes(l, bytes),
            Value::Failed(text) => {
                ffi::lua_createtable(l, 2, 0);
                ffi::lua_pushboolean(l, 0);
                ffi::lua_rawseti(l, -2, 1);
                ffi::push_bytes(l, text.as_bytes());
                ffi::lua_rawseti(l, -2, 2);
            }
            Value::BeginList(_) | Value::BeginMap(_) | Value::BeginSet(_) => ffi::lua_pushnil(l),
        }
    }
}

fn length(n: u32) -> c_int {
    c_int::try_from(n).unwrap_or(c_int::MAX)
}

/// Pushes the value that begins at `at`; gives the place behind it.
unsafe fn push_nested(l: *mut State, values: &[Value], at: usize) -> usize {
    // SAFETY: called by Lua; the depth is bounded by the host's reader.
    unsafe {
        ffi::luaL_checkstack(l, 8, c"the reply is nested too deep".as_ptr());
        let mut next = at + 1;
        match values.get(at) {
            None => ffi::lua_pushnil(l),
            Some(Value::BeginList(count) | Value::BeginSet(count)) => {
                ffi::lua_createtable(l, length(*count), 0);
                for place in 1..=length(*count) {
                    next = push_nested(l, values, next);
                    ffi::lua_rawseti(l, -2, place);
                }
            }
            Some(Value::BeginMap(count)) => {
                ffi::lua_createtable(l, 0, length(*count));
                for _ in 0..*count {
                    next = push_nested(l, values, next);
                    next = push_nested(l, values, next);
                    ffi::lua_rawset(l, -3);
                }
            }
            Some(single) => push_single(l, single),
        }
        next
    }
}

unsafe fn push_reply(l: *mut State, reply: &Reply) {
    // SAFETY: called by Lua.
    unsafe {
        match reply {
            Reply::Single(value) => push_single(l, value),
            Reply::Nested(values) => {
                push_nested(l, values, 0);
            }
        }
    }
}

/// An argument as Redis gets it: a string, a number, or a truth value by its name.
unsafe fn argument(l: *mut State, idx: c_int) -> Option<Vec<u8>> {
    // SAFETY: a number is converted on a copy, so that a table's key stays what it is.
    unsafe {
        match ffi::lua_type(l, idx) {
            ffi::TSTRING | ffi::TNUMBER => {
                ffi::lua_pushvalue(l, idx);
                let bytes = ffi::to_bytes(l, -1).map(<[u8]>::to_vec);
                ffi::pop(l, 1);
                bytes
            }
            ffi::TBOOLEAN if ffi::lua_toboolean(l, idx) != 0 => Some(b"true".to_vec()),
            ffi::TBOOLEAN => Some(b"false".to_vec()),
            _ => None,
        }
    }
}

/// What `argument` takes of memory.
unsafe fn length_of(l: *mut State, idx: c_int) -> usize {
    // A vector, and the place in the list of them.
    const BESIDE: usize = 64;
    // SAFETY: called by Lua.
    unsafe {
        match ffi::lua_type(l, idx) {
            ffi::TSTRING => ffi::lua_rawlen(l, idx) + BESIDE,
            _ => BESIDE,
        }
    }
}

/// What the strings of a list, and of lists in it, take when they are gathered: who does so demands it
/// before.
pub(crate) unsafe fn total_of(l: *mut State, idx: c_int, nested: bool) -> usize {
    // SAFETY: called by Lua.
    unsafe {
        if ffi::lua_type(l, idx) != ffi::TTABLE || ffi::lua_checkstack(l, 4) == 0 {
            return length_of(l, idx);
        }
        let idx = ffi::lua_absindex(l, idx);
        let mut total = 0;
        for place in 1..=c_int::try_from(ffi::lua_rawlen(l, idx)).unwrap_or(c_int::MAX) {
            ffi::tick(l, 8);
            ffi::lua_rawgeti(l, idx, place);
            total += if nested {
                total_of(l, -1, false)
            } else {
                length_of(l, -1)
            };
            ffi::pop(l, 1);
        }
        total
    }
}

/// The strings of a list; `None` when something else is among them.
pub(crate) unsafe fn strings(l: *mut State, idx: c_int) -> Option<Vec<Vec<u8>>> {
    // SAFETY: called by Lua.
    unsafe {
        if ffi::lua_type(l, idx) != ffi::TTABLE {
            return None;
        }
        let idx = ffi::lua_absindex(l, idx);
        let mut list = Vec::with_capacity(ffi::lua_rawlen(l, idx));
        for place in 1..=c_int::try_from(ffi::lua_rawlen(l, idx)).unwrap_or(c_int::MAX) {
            ffi::lua_rawgeti(l, idx, place);
            let text = argument(l, -1);
            ffi::pop(l, 1);
            list.push(text?);
        }
        Some(list)
    }
}

unsafe fn bad(l: *mut State, arg: c_int) -> ! {
    // SAFETY: nothing with a destructor is alive here.
    unsafe { ffi::arg_error(l, arg, c"strings and numbers expected") }
}

/// The name of the Redis, in argument 1.
unsafe fn name(l: *mut State) -> String {
    // SAFETY: called by Lua.
    unsafe { String::from_utf8_lossy(ffi::check_bytes(l, 1)).into_owned() }
}

/// `command(redis, name, …)`.
unsafe extern "C-unwind" fn command(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        api::check_phase(l, phase::WAIT);
        ffi::check_bytes(l, 1);
        for idx in 2..=ffi::lua_gettop(l) {
            if !matches!(
                ffi::lua_type(l, idx),
                ffi::TSTRING | ffi::TNUMBER | ffi::TBOOLEAN
            ) {
                bad(l, idx);
            }
        }
        vm().select();
        let total = (2..=ffi::lua_gettop(l)).map(|idx| length_of(l, idx)).sum();
        crate::alloc::demand(l, total);
        let operation = {
            let name = name(l);
            let arguments: Vec<_> = (2..=ffi::lua_gettop(l))
                .filter_map(|i| argument(l, i))
                .collect();
            redis::begin_command(&name, &arguments)
        };
        wait::end_with(l, operation, command_done)
    }
}

unsafe extern "C-unwind" fn command_done(l: *mut State) -> c_int {
    // SAFETY: called by Lua as the continuation of `wait`.
    unsafe {
        let Some(operation) = taken(l) else { return 0 };
        match hold(redis::end_command(operation)).value() {
            Ok(reply) => {
                push_reply(l, reply);
                1
            }
            Err(error) => failed(l, error),
        }
    }
}

/// `pipeline(redis, commands, atomic)`.
unsafe extern "C-unwind" fn pipeline(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        api::check_phase(l, phase::WAIT);
        ffi::check_bytes(l, 1);
        ffi::luaL_checktype(l, 2, ffi::TTABLE);
        crate::alloc::demand(l, total_of(l, 2, true));
        vm().select();
        let operation = {
            let name = name(l);
            commands(l).map(|commands| match ffi::lua_toboolean(l, 3) {
                0 => redis::begin_pipeline(&name, &commands),
                _ => redis::begin_transaction(&name, &commands),
            })
        };
        match operation {
            Some(operation) => wait::end_with(l, operation, pipeline_done),
            None => bad(l, 2),
        }
    }
}

unsafe fn commands(l: *mut State) -> Option<Vec<Vec<Vec<u8>>>> {
    // SAFETY: called by Lua.
    unsafe {
        let mut list = Vec::new();
        for place in 1..=c_int::try_from(ffi::lua_rawlen(l, 2)).unwrap_or(c_int::MAX) {
            ffi::lua_rawgeti(l, 2, place);
            let command = strings(l, -1);
            ffi::pop(l, 1);
            list.push(command?);
        }
        Some(list)
    }
}

unsafe extern "C-unwind" fn pipeline_done(l: *mut State) -> c_int {
    // SAFETY: called by Lua as the continuation of `wait`.
    unsafe {
        let Some(operation) = taken(l) else { return 0 };
        match hold(redis::end_pipeline(operation)).value() {
            Ok(replies) => {
                ffi::lua_createtable(l, c_int::try_from(replies.len()).unwrap_or(0), 0);
                for (place, reply) in (1..).zip(replies) {
                    push_reply(l, reply);
                    ffi::lua_rawseti(l, -2, place);
                }
                1
            }
            Err(error) => failed(l, error),
        }
    }
}

/// `eval(redis, script, keys, arguments)`.
unsafe extern "C-unwind" fn eval(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        api::check_phase(l, phase::WAIT);
        ffi::check_bytes(l, 1);
        ffi::check_bytes(l, 2);
        crate::alloc::demand(l, total_of(l, 3, false) + total_of(l, 4, false));
        vm().select();
        let operation = match (strings(l, 3), strings(l, 4)) {
            (Some(keys), Some(arguments)) => Some(redis::begin_eval(
                &name(l),
                ffi::check_bytes(l, 2),
                &keys,
                &arguments,
            )),
            _ => None,
        };
        match operation {
            Some(operation) => wait::end_with(l, operation, command_done),
            None => bad(l, 3),
        }
    }
}

/// `subscribe(redis, channels, patterns)`.
unsafe extern "C-unwind" fn subscribe(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        api::check_phase(l, phase::WAIT);
        ffi::check_bytes(l, 1);
        crate::alloc::demand(l, total_of(l, 2, false) + total_of(l, 3, false));
        vm().select();
        let operation = match (strings(l, 2), strings(l, 3)) {
            (Some(channels), Some(patterns)) => Some(Subscription::begin_subscribe(
                &name(l),
                &channels,
                &patterns,
            )),
            _ => None,
        };
        match operation {
            Some(operation) => wait::end_with(l, operation, subscribed),
            None => bad(l, 2),
        }
    }
}

unsafe extern "C-unwind" fn subscribed(l: *mut State) -> c_int {
    // SAFETY: called by Lua as the continuation of `wait`; the memory is written before use.
    unsafe {
        let Some(operation) = taken(l) else { return 0 };
        match Subscription::end_subscribe(operation) {
            Ok(subscription) => {
                let place: *mut Option<Subscription> =
                    ffi::lua_newuserdata(l, size_of::<Option<Subscription>>()).cast();
                place.write(Some(subscription));
                if ffi::luaL_newmetatable(l, c"phasor.subscription".as_ptr()) != 0 {
                    ffi::register(l, &[(c"__gc", unsubscribe)]);
                }
                ffi::lua_setmetatable(l, -2);
                1
            }
            Err(error) => failed(l, &error),
        }
    }
}

unsafe extern "C-unwind" fn unsubscribe(l: *mut State) -> c_int {
    // SAFETY: called by Lua's collector with a userdata of this type.
    unsafe {
        let place: *mut Option<Subscription> = ffi::lua_touserdata(l, 1).cast();
        drop((*place).take());
    }
    0
}

/// `next_message(subscription)`.
unsafe extern "C-unwind" fn next_message(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        api::check_phase(l, phase::WAIT);
        let place: *mut Option<Subscription> =
            ffi::luaL_checkudata(l, 1, c"phasor.subscription".as_ptr()).cast();
        vm().select();
        let Some(subscription) = &*place else {
            return 0;
        };
        wait::end_with(l, subscription.begin_next(), message_done)
    }
}

unsafe extern "C-unwind" fn message_done(l: *mut State) -> c_int {
    // SAFETY: called by Lua as the continuation of `wait`.
    unsafe {
        let Some(operation) = taken(l) else { return 0 };
        match hold(Subscription::end_next(operation)).value() {
            Ok(message) => {
                ffi::lua_createtable(l, 0, 3);
                ffi::push_bytes(l, &message.channel);
                ffi::lua_setfield(l, -2, c"channel".as_ptr());
                ffi::push_bytes(l, &message.payload);
                ffi::lua_setfield(l, -2, c"payload".as_ptr());
                if let Some(pattern) = &message.pattern {
                    ffi::push_bytes(l, pattern);
                    ffi::lua_setfield(l, -2, c"pattern".as_ptr());
                }
                1
            }
            Err(error) => failed(l, error),
        }
    }
}

unsafe extern "C-unwind" fn module(l: *mut State) -> c_int {
    // SAFETY: called by `require`.
    unsafe {
        ffi::lua_settop(l, 0);
        ffi::push_library(
            l,
            &[
                (c"command", command),
                (c"pipeline", pipeline),
                (c"eval", eval),
                (c"subscribe", subscribe),
                (c"next_message", next_message),
            ],
        );
        crate::lib_scratch::run(l, include_str!("lib_redis.lua"), c"=phasor.redis", 1, 1);
    }
    1
}

/// Makes the module load on its first `require`.
pub(crate) unsafe fn open(l: *mut State) {
    // SAFETY: called protected, while the state is opened.
    unsafe { ffi::set_preload(l, c"phasor.redis", module) }
}
