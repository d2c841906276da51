//! `ngx.now` and its family, `resty.core.time`, and Lua's `os` clock functions, on the host's clock.
#![expect(unsafe_code, reason = "the C API of Lua")]
#![expect(
    unsafe_op_in_unsafe_fn,
    reason = "every function works on the live state that Lua hands in"
)]
#![expect(clippy::cast_precision_loss, reason = "times are far below 2^53")]

use crate::bindings::phasor::plugin::time;
use crate::ffi::{self, State};
use crate::lib_date::{Date, parse_http, seconds};
use crate::lib_scratch::push_built;
use std::ffi::{CStr, c_int};

/// Times beyond this many seconds are refused: the year would pass 9999.
const LAST: f64 = 253_402_300_799.0;

/// Installs the functions into `ngx` and `os`, and the module `resty.core.time`.
pub(crate) unsafe fn open(l: *mut State) {
    ffi::push_ngx(l);
    ffi::register(
        l,
        &[
            (c"now", now),
            (c"time", time_),
            (c"update_time", update_time),
            (c"today", today),
            (c"localtime", localtime),
            (c"utctime", utctime),
            (c"cookie_time", cookie_time),
            (c"http_time", http_time),
            (c"parse_http_time", parse_http_time),
        ],
    );
    ffi::push_library(
        l,
        &[
            (c"monotonic_msec", monotonic_msec),
            (c"monotonic_time", monotonic_time),
        ],
    );
    ffi::set_loaded(l, c"resty.core.time");
    ffi::lua_rawgeti(l, ffi::REGISTRY, ffi::RIDX_GLOBALS);
    ffi::luaL_getsubtable(l, -1, c"os".as_ptr());
    ffi::register(
        l,
        &[
            (c"time", os_time),
            (c"date", os_date),
            (c"clock", os_clock),
            (c"difftime", os_difftime),
        ],
    );
    ffi::pop(l, 4);
}

fn now_seconds() -> i64 {
    i64::try_from(time::now() / 1000).unwrap_or(0)
}

fn local_offset() -> i64 {
    i64::from(time::local_offset())
}

unsafe extern "C-unwind" fn now(l: *mut State) -> c_int {
    ffi::lua_pushnumber(l, time::now() as f64 / 1000.0);
    1
}

unsafe extern "C-unwind" fn time_(l: *mut State) -> c_int {
    ffi::lua_pushnumber(l, now_seconds() as f64);
    1
}

unsafe extern "C-unwind" fn update_time(_: *mut State) -> c_int {
    time::update();
    0
}

unsafe extern "C-unwind" fn monotonic_msec(l: *mut State) -> c_int {
    ffi::lua_pushnumber(l, (time::monotonic() / 1_000_000) as f64);
    1
}

unsafe extern "C-unwind" fn monotonic_time(l: *mut State) -> c_int {
    ffi::lua_pushnumber(l, (time::monotonic() / 1_000_000) as f64 / 1000.0);
    1
}

unsafe fn push_text(l: *mut State, make: impl FnOnce() -> String) -> c_int {
    push_built(l, |out| out.extend_from_slice(make().as_bytes()));
    1
}

unsafe extern "C-unwind" fn today(l: *mut State) -> c_int {
    push_text(l, || Date::of(now_seconds() + local_offset()).day_text())
}

unsafe extern "C-unwind" fn localtime(l: *mut State) -> c_int {
    let date = Date::of(now_seconds() + local_offset());
    push_text(l, || format!("{} {}", date.day_text(), date.clock_text()))
}

unsafe extern "C-unwind" fn utctime(l: *mut State) -> c_int {
    let date = Date::of(now_seconds());
    push_text(l, || format!("{} {}", date.day_text(), date.clock_text()))
}

/// The date in argument 1, which must be a number.
unsafe fn date_argument(l: *mut State) -> Date {
    if ffi::lua_type(l, 1) != ffi::TNUMBER {
        ffi::error(l, b"number argument only");
    }
    Date::of(whole(ffi::lua_tonumberx(l, 1, std::ptr::null_mut())))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "clamped to the years up to 9999"
)]
const fn whole(n: f64) -> i64 {
    n.clamp(-LAST, LAST) as i64
}

unsafe extern "C-unwind" fn cookie_time(l: *mut State) -> c_int {
    let date = date_argument(l);
    push_text(l, || date.cookie_text())
}

unsafe extern "C-unwind" fn http_time(l: *mut State) -> c_int {
    let date = date_argument(l);
    push_text(l, || date.http_text())
}

unsafe extern "C-unwind" fn parse_http_time(l: *mut State) -> c_int {
    if ffi::lua_type(l, 1) != ffi::TSTRING {
        ffi::error(l, b"string argument only");
    }
    match parse_http(ffi::to_bytes(l, 1).unwrap_or_default()) {
        Some(seconds) => ffi::lua_pushnumber(l, seconds as f64),
        None => ffi::lua_pushnil(l),
    }
    1
}

unsafe extern "C-unwind" fn os_clock(l: *mut State) -> c_int {
    ffi::lua_pushnumber(l, time::monotonic() as f64 / 1e9);
    1
}

unsafe extern "C-unwind" fn os_difftime(l: *mut State) -> c_int {
    ffi::lua_pushnumber(l, ffi::luaL_checknumber(l, 1) - ffi::opt_number(l, 2, 0.0));
    1
}

/// A field of the table in argument 1; without a default it must be there.
unsafe fn field(l: *mut State, name: &CStr, default: Option<i64>) -> i64 {
    ffi::lua_getfield(l, 1, name.as_ptr());
    let mut good = 0;
    let value = ffi::lua_tonumberx(l, -1, &raw mut good);
    ffi::pop(l, 1);
    match (good != 0, default) {
        (true, _) => whole(value),
        (false, Some(default)) => default,
        (false, None) => {
            ffi::luaL_where(l, 1);
            ffi::push_bytes(l, b"field '");
            ffi::push_bytes(l, name.to_bytes());
            ffi::push_bytes(l, b"' missing in date table");
            ffi::lua_concat(l, 4);
            ffi::raise(l)
        }
    }
}

/// `os.time(table?)`: local time; `isdst` is not looked at, the host gives one offset.
unsafe extern "C-unwind" fn os_time(l: *mut State) -> c_int {
    if ffi::lua_type(l, 1) <= ffi::TNIL {
        ffi::lua_pushnumber(l, now_seconds() as f64);
        return 1;
    }
    ffi::luaL_checktype(l, 1, ffi::TTABLE);
    let clock = [
        field(l, c"hour", Some(12)),
        field(l, c"min", Some(0)),
        field(l, c"sec", Some(0)),
    ];
    let (day, month, year) = (
        field(l, c"day", None),
        field(l, c"month", None),
        field(l, c"year", None),
    );
    let most = 1 << 33;
    let total = seconds(
        year.clamp(-9999, 9999),
        month.clamp(-most, most),
        day.clamp(-most, most),
        clock,
    );
    ffi::lua_pushnumber(l, (total - local_offset()) as f64);
    1
}

/// `os.date(format?, time?)`
unsafe extern "C-unwind" fn os_date(l: *mut State) -> c_int {
    let format = ffi::opt_bytes(l, 1).unwrap_or(b"%c");
    let at = if ffi::lua_type(l, 2) <= ffi::TNIL {
        now_seconds()
    } else {
        whole(ffi::luaL_checknumber(l, 2))
    };
    let (format, offset) = match format.strip_prefix(b"!") {
        Some(rest) => (rest, None),
        None => (format, Some(local_offset())),
    };
    let date = Date::of(at + offset.unwrap_or(0));
    if format.starts_with(b"*t") {
        push_fields(l, &date);
        return 1;
    }
    ffi::tick(l, format.len());
    push_built(l, |out| {
        crate::lib_strftime::write(out, format, &date, at, offset)
    });
    1
}

unsafe fn push_fields(l: *mut State, date: &Date) {
    ffi::lua_createtable(l, 0, 9);
    let fields: [(&CStr, i64); 8] = [
        (c"year", date.year),
        (c"month", i64::from(date.month)),
        (c"day", i64::from(date.day)),
        (c"hour", i64::from(date.hour)),
        (c"min", i64::from(date.minute)),
        (c"sec", i64::from(date.second)),
        (c"wday", i64::from(date.weekday) + 1),
        (c"yday", i64::from(date.yearday)),
    ];
    for (name, value) in fields {
        ffi::lua_pushnumber(l, value as f64);
        ffi::lua_setfield(l, -2, name.as_ptr());
    }
    ffi::lua_pushboolean(l, 0);
    ffi::lua_setfield(l, -2, c"isdst".as_ptr());
}
