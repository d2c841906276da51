//! The constants of `ngx`: return codes, methods, statuses and log levels.
#![expect(unsafe_code, reason = "fills a Lua table")]

use crate::ffi::{self, State};
use std::ffi::CStr;

const CONSTANTS: [(&CStr, i32); 70] = [
    (c"OK", 0),
    (c"ERROR", -1),
    (c"AGAIN", -2),
    (c"DONE", -4),
    (c"DECLINED", -5),
    (c"HTTP_GET", 0x2),
    (c"HTTP_HEAD", 0x4),
    (c"HTTP_POST", 0x8),
    (c"HTTP_PUT", 0x10),
    (c"HTTP_DELETE", 0x20),
    (c"HTTP_MKCOL", 0x40),
    (c"HTTP_COPY", 0x80),
    (c"HTTP_MOVE", 0x100),
    (c"HTTP_OPTIONS", 0x200),
    (c"HTTP_PROPFIND", 0x400),
    (c"HTTP_PROPPATCH", 0x800),
    (c"HTTP_LOCK", 0x1000),
    (c"HTTP_UNLOCK", 0x2000),
    (c"HTTP_PATCH", 0x4000),
    (c"HTTP_TRACE", 0x8000),
    (c"HTTP_CONTINUE", 100),
    (c"HTTP_SWITCHING_PROTOCOLS", 101),
    (c"HTTP_OK", 200),
    (c"HTTP_CREATED", 201),
    (c"HTTP_ACCEPTED", 202),
    (c"HTTP_NO_CONTENT", 204),
    (c"HTTP_PARTIAL_CONTENT", 206),
    (c"HTTP_SPECIAL_RESPONSE", 300),
    (c"HTTP_MOVED_PERMANENTLY", 301),
    (c"HTTP_MOVED_TEMPORARILY", 302),
    (c"HTTP_SEE_OTHER", 303),
    (c"HTTP_NOT_MODIFIED", 304),
    (c"HTTP_TEMPORARY_REDIRECT", 307),
    (c"HTTP_PERMANENT_REDIRECT", 308),
    (c"HTTP_BAD_REQUEST", 400),
    (c"HTTP_UNAUTHORIZED", 401),
    (c"HTTP_PAYMENT_REQUIRED", 402),
    (c"HTTP_FORBIDDEN", 403),
    (c"HTTP_NOT_FOUND", 404),
    (c"HTTP_NOT_ALLOWED", 405),
    (c"HTTP_NOT_ACCEPTABLE", 406),
    (c"HTTP_REQUEST_TIMEOUT", 408),
    (c"HTTP_CONFLICT", 409),
    (c"HTTP_GONE", 410),
    (c"HTTP_UPGRADE_REQUIRED", 426),
    (c"HTTP_TOO_MANY_REQUESTS", 429),
    (c"HTTP_CLOSE", 444),
    (c"HTTP_ILLEGAL", 451),
    (c"HTTP_INTERNAL_SERVER_ERROR", 500),
    (c"HTTP_NOT_IMPLEMENTED", 501),
    (c"HTTP_METHOD_NOT_IMPLEMENTED", 501),
    (c"HTTP_BAD_GATEWAY", 502),
    (c"HTTP_SERVICE_UNAVAILABLE", 503),
    (c"HTTP_GATEWAY_TIMEOUT", 504),
    (c"HTTP_VERSION_NOT_SUPPORTED", 505),
    (c"HTTP_INSUFFICIENT_STORAGE", 507),
    (c"STDERR", 0),
    (c"EMERG", 1),
    (c"ALERT", 2),
    (c"CRIT", 3),
    (c"ERR", 4),
    (c"WARN", 5),
    (c"NOTICE", 6),
    (c"INFO", 7),
    (c"DEBUG", 8),
    (c"HTTP_REQUEST_ENTITY_TOO_LARGE", 413),
    (c"HTTP_REQUEST_URI_TOO_LARGE", 414),
    (c"HTTP_UNSUPPORTED_MEDIA_TYPE", 415),
    (c"HTTP_RANGE_NOT_SATISFIABLE", 416),
    (c"HTTP_CLIENT_CLOSED_REQUEST", 499),
];

/// Opens the constants.
pub(crate) unsafe fn open(l: *mut State) {
    // SAFETY: called while the state is opened.
    unsafe {
        ffi::push_ngx(l);
        for (name, value) in CONSTANTS {
            ffi::lua_pushnumber(l, f64::from(value));
            ffi::lua_setfield(l, -2, name.as_ptr());
        }
        ffi::lua_pushlightuserdata(l, std::ptr::null_mut());
        ffi::lua_setfield(l, -2, c"null".as_ptr());
        ffi::pop(l, 1);
    }
}
