//! Log, phase, worker and configuration: `ngx.log print ngx.get_phase ngx.worker.* ngx.config.*`.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::bindings::phasor::plugin::{error_log, worker};
use crate::ffi::{self, State};
use crate::phase;
use crate::vm::vm;
use std::ffi::c_int;

const LEVELS: [error_log::Level; 9] = [
    error_log::Level::Emerg,
    error_log::Level::Emerg,
    error_log::Level::Alert,
    error_log::Level::Crit,
    error_log::Level::Error,
    error_log::Level::Warn,
    error_log::Level::Notice,
    error_log::Level::Info,
    error_log::Level::Debug,
];

/// Writes the arguments from `first` on, with the position of the caller, as OpenResty does:
/// `[lua] file:line: message`.
unsafe fn log(l: *mut State, level: usize, first: c_int) {
    // SAFETY: called by Lua; tables and functions go through `tostring`.
    unsafe {
        let n = ffi::lua_gettop(l);
        vm().select();
        if LEVELS[level] as u8 > error_log::max_level() as u8 {
            return;
        }
        for i in first..=n {
            if ffi::lua_type(l, i) == ffi::TLIGHTUSERDATA && ffi::lua_touserdata(l, i).is_null() {
                ffi::push_bytes(l, b"null");
            } else {
                ffi::luaL_tolstring(l, i, std::ptr::null_mut());
            }
            ffi::lua_replace(l, i);
        }
        ffi::luaL_checkstack(l, 3, c"".as_ptr());
        ffi::luaL_where(l, 1);
        // What is no UTF-8 becomes longer.
        let total: usize = (first..=n).map(|i| ffi::lua_rawlen(l, i)).sum();
        crate::alloc::demand(l, total.saturating_mul(3));
        let mut text = String::from("[lua] ");
        text.push_str(&String::from_utf8_lossy(
            ffi::to_bytes(l, -1).unwrap_or_default(),
        ));
        for i in first..=n {
            text.push_str(&String::from_utf8_lossy(
                ffi::to_bytes(l, i).unwrap_or_default(),
            ));
        }
        error_log::write(LEVELS[level], &text);
    }
}

unsafe extern "C-unwind" fn ngx_log(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let level = ffi::luaL_checkinteger(l, 1);
        match usize::try_from(level).ok().filter(|n| *n < LEVELS.len()) {
            Some(level) => log(l, level, 2),
            None => ffi::arg_error(l, 1, c"bad log level"),
        }
    }
    0
}

unsafe extern "C-unwind" fn print(l: *mut State) -> c_int {
    const NOTICE: usize = 6;
    // SAFETY: called by Lua.
    unsafe { log(l, NOTICE, 1) };
    0
}

/// `ngx.errlog.raw_log(level, message)`: without the caller's place.
unsafe extern "C-unwind" fn raw_log(l: *mut State) -> c_int {
    // SAFETY: called by Lua; the text leaks if Lua runs out of memory here.
    unsafe {
        if ffi::lua_type(l, 1) != ffi::TNUMBER {
            ffi::error(l, b"bad argument #1 to 'raw_log' (must be a number)");
        }
        if ffi::lua_type(l, 2) != ffi::TSTRING {
            ffi::error(l, b"bad argument #2 to 'raw_log' (must be a string)");
        }
        let level = usize::try_from(ffi::luaL_checkinteger(l, 1)).ok();
        let Some(&level) = level.and_then(|level| LEVELS.get(level)) else {
            ffi::error(l, b"bad log level")
        };
        vm().select();
        if level as u8 <= error_log::max_level() as u8 {
            let text = String::from_utf8_lossy(ffi::to_bytes(l, 2).unwrap_or_default());
            error_log::write(level, &text);
        }
    }
    0
}

/// The level of the error log, as a number: the most talkative one of the same kind.
unsafe extern "C-unwind" fn sys_filter_level(l: *mut State) -> c_int {
    let most = error_log::max_level() as u8;
    let level = LEVELS.iter().rposition(|level| *level as u8 == most);
    // SAFETY: called by Lua.
    unsafe {
        #[expect(clippy::cast_precision_loss, reason = "one of nine")]
        ffi::lua_pushnumber(l, level.unwrap_or(0) as f64);
    }
    1
}

/// What `lua_capture_error_log` would switch on.
unsafe extern "C-unwind" fn no_capture(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { ffi::nil_error(l, b"directive \"lua_capture_error_log\" is not set") }
}

unsafe extern "C-unwind" fn errlog(l: *mut State) -> c_int {
    // SAFETY: called by `require`.
    unsafe {
        ffi::push_library(
            l,
            &[
                (c"raw_log", raw_log),
                (c"get_sys_filter_level", sys_filter_level),
                (c"get_logs", no_capture),
                (c"set_filter_level", no_capture),
            ],
        );
    }
    1
}

unsafe extern "C-unwind" fn get_phase(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { ffi::push_bytes(l, phase::lua_name(vm().phase()).as_bytes()) };
    1
}

unsafe extern "C-unwind" fn worker_id(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { ffi::lua_pushnumber(l, f64::from(worker::id())) };
    1
}

unsafe extern "C-unwind" fn worker_count(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { ffi::lua_pushnumber(l, f64::from(worker::count())) };
    1
}

unsafe extern "C-unwind" fn worker_pid(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { ffi::lua_pushnumber(l, f64::from(worker::pid())) };
    1
}

/// All workers are threads of one process.
unsafe extern "C-unwind" fn worker_pids(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let n = c_int::try_from(worker::count()).unwrap_or(1);
        ffi::lua_createtable(l, n, 0);
        for i in 1..=n {
            ffi::lua_pushnumber(l, f64::from(worker::pid()));
            ffi::lua_rawseti(l, -2, i);
        }
    }
    1
}

unsafe extern "C-unwind" fn worker_exiting(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let exiting = vm().stopping || worker::exiting();
        ffi::lua_pushboolean(l, c_int::from(exiting));
    }
    1
}

unsafe extern "C-unwind" fn prefix(l: *mut State) -> c_int {
    // SAFETY: called by Lua; the text leaks if Lua runs out of memory here.
    unsafe {
        let mut prefix = vm().program.root.clone();
        if !prefix.ends_with('/') {
            prefix.push('/');
        }
        ffi::push_bytes(l, prefix.as_bytes());
    }
    1
}

unsafe extern "C-unwind" fn configure(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { ffi::push_bytes(l, b"") };
    1
}

/// The versions that libraries ask for: the surface is that of this one.
const NGINX_VERSION: f64 = 1_027_001.0;
const NGX_LUA_VERSION: f64 = 10_028.0;

/// Opens these functions.
pub(crate) unsafe fn open(l: *mut State) {
    // SAFETY: called while the state is opened.
    unsafe {
        ffi::set_preload(l, c"ngx.errlog", errlog);
        ffi::lua_pushcclosure(l, print, 0);
        ffi::lua_setglobal(l, c"print".as_ptr());
        ffi::push_ngx(l);
        ffi::register(l, &[(c"log", ngx_log), (c"get_phase", get_phase)]);
        ffi::push_library(
            l,
            &[
                (c"id", worker_id),
                (c"count", worker_count),
                (c"pid", worker_pid),
                (c"pids", worker_pids),
                (c"exiting", worker_exiting),
            ],
        );
        ffi::lua_setfield(l, -2, c"worker".as_ptr());
        ffi::push_library(l, &[(c"prefix", prefix), (c"nginx_configure", configure)]);
        ffi::push_bytes(l, b"http");
        ffi::lua_setfield(l, -2, c"subsystem".as_ptr());
        ffi::lua_pushboolean(l, 0);
        ffi::lua_setfield(l, -2, c"debug".as_ptr());
        ffi::lua_pushnumber(l, NGINX_VERSION);
        ffi::lua_setfield(l, -2, c"nginx_version".as_ptr());
        ffi::lua_pushnumber(l, NGX_LUA_VERSION);
        ffi::lua_setfield(l, -2, c"ngx_lua_version".as_ptr());
        ffi::lua_setfield(l, -2, c"config".as_ptr());
        ffi::pop(l, 1);
    }
}
