//! The options of `ngx.location.capture`: Lua's table becomes Rust's values. Nothing here raises but
//! `query`, so that no destructor is skipped.
#![expect(unsafe_code, reason = "the C API of Lua")]

use crate::api_request;
use crate::bindings::phasor::plugin::subrequest::{BodySource, VariablesFrom};
use crate::ffi::{self, State};
use crate::vm::vm;
use std::ffi::{CStr, c_int};

/// Tables that were given as `ctx`, by token; weak, so that nothing outlives its users.
pub(crate) const CONTEXTS: &CStr = c"phasor.contexts";

/// What the options say, in Rust's terms.
pub(crate) struct Options {
    pub(crate) method: &'static str,
    pub(crate) body: BodySource,
    pub(crate) inherit: VariablesFrom,
    pub(crate) variables: Vec<(String, Vec<u8>)>,
    pub(crate) context: Option<[u8; 8]>,
}

impl Options {
    pub(crate) const fn new() -> Self {
        Self {
            method: "GET",
            body: BodySource::None,
            inherit: VariablesFrom::None,
            variables: Vec::new(),
            context: None,
        }
    }
}

/// A text for an error that is raised when nothing with a destructor is alive any more.
pub(crate) type Wrong = String;

/// The raw field of the table at `table`, pushed.
pub(crate) unsafe fn field(l: *mut State, table: c_int, name: &[u8]) -> c_int {
    // SAFETY: `l` is the running coroutine.
    unsafe {
        ffi::push_bytes(l, name);
        ffi::lua_rawget(l, table);
        ffi::lua_type(l, -1)
    }
}

unsafe fn truth(l: *mut State, table: c_int, name: &[u8]) -> bool {
    // SAFETY: as `field`.
    unsafe {
        field(l, table, name);
        let truth = ffi::lua_toboolean(l, -1) != 0;
        ffi::pop(l, 1);
        truth
    }
}

pub(crate) unsafe fn type_name(l: *mut State, kind: c_int) -> String {
    // SAFETY: Lua's names of types are static.
    unsafe { CStr::from_ptr(ffi::lua_typename(l, kind)) }
        .to_string_lossy()
        .into_owned()
}

/// The bytes of a string or number; numbers are converted on a copy.
pub(crate) unsafe fn bytes(l: *mut State, idx: c_int) -> Vec<u8> {
    // SAFETY: as `field`.
    unsafe {
        ffi::lua_pushvalue(l, idx);
        let bytes = ffi::to_bytes(l, -1).unwrap_or_default().to_vec();
        ffi::pop(l, 1);
        bytes
    }
}

/// Reads the options at `table`; raises nothing.
pub(crate) unsafe fn options(l: *mut State, table: c_int) -> Result<Options, Wrong> {
    let mut options = Options::new();
    // SAFETY: as `field`.
    unsafe {
        let top = ffi::lua_gettop(l);
        match field(l, table, b"method") {
            ffi::TNIL => {}
            ffi::TNUMBER => {
                let number = ffi::lua_tointegerx(l, -1, std::ptr::null_mut());
                options.method = api_request::numbered(number)
                    .ok_or_else(|| format!("unsupported HTTP method: {number}"))?;
            }
            _ => return Err("Bad http request method".to_owned()),
        }
        match field(l, table, b"body") {
            ffi::TNIL => {
                let forwards = matches!(options.method, "PUT" | "POST");
                if forwards || truth(l, table, b"always_forward_body") {
                    options.body = BodySource::Current;
                }
            }
            ffi::TSTRING | ffi::TNUMBER => options.body = BodySource::Bytes(bytes(l, -1)),
            _ => return Err("Bad http request body".to_owned()),
        }
        if truth(l, table, b"share_all_vars") {
            options.inherit = VariablesFrom::Share;
        } else if truth(l, table, b"copy_all_vars") {
            options.inherit = VariablesFrom::Copy;
        }
        match field(l, table, b"vars") {
            ffi::TNIL => {}
            ffi::TTABLE => options.variables = variables(l, ffi::lua_gettop(l))?,
            _ => return Err("Bad vars option value".to_owned()),
        }
        match field(l, table, b"ctx") {
            ffi::TNIL => {}
            ffi::TTABLE => options.context = Some(keep_context(l)),
            kind => {
                let name = type_name(l, kind);
                return Err(format!(
                    "Bad ctx option value type {name}, expected a Lua table"
                ));
            }
        }
        ffi::lua_settop(l, top);
    }
    Ok(options)
}

unsafe fn variables(l: *mut State, table: c_int) -> Result<Vec<(String, Vec<u8>)>, Wrong> {
    let mut list = Vec::new();
    // SAFETY: as `field`; the key is not changed while the table is walked.
    unsafe {
        ffi::lua_pushnil(l);
        while ffi::lua_next(l, table) != 0 {
            if ffi::lua_type(l, -2) != ffi::TSTRING {
                return Err("attempt to use a non-string key in the \"vars\" option table".into());
            }
            let kind = ffi::lua_type(l, -1);
            if kind != ffi::TSTRING && kind != ffi::TNUMBER {
                let name = type_name(l, kind);
                return Err(format!("attempt to use bad variable value type {name}"));
            }
            let name = String::from_utf8_lossy(ffi::to_bytes(l, -2).unwrap_or_default());
            list.push((name.into_owned(), bytes(l, -1)));
            ffi::pop(l, 1);
        }
    }
    Ok(list)
}

/// Keeps the table on the top for a subrequest; gives its token.
unsafe fn keep_context(l: *mut State) -> [u8; 8] {
    let vm = vm();
    vm.serial += 1;
    #[expect(clippy::cast_precision_loss, reason = "a count of requests")]
    let token = vm.serial as f64;
    // SAFETY: as `field`.
    unsafe {
        if ffi::luaL_newmetatable(l, CONTEXTS.as_ptr()) != 0 {
            ffi::lua_createtable(l, 0, 1);
            ffi::push_bytes(l, b"v");
            ffi::lua_setfield(l, -2, c"__mode".as_ptr());
            ffi::lua_setmetatable(l, -2);
        }
        ffi::lua_pushnumber(l, token);
        ffi::lua_pushvalue(l, -3);
        ffi::lua_rawset(l, -3);
        ffi::pop(l, 1);
    }
    token.to_le_bytes()
}

/// The query of the options, in place of what lies on the top; it may raise.
pub(crate) unsafe fn query(l: *mut State) {
    // SAFETY: as `field`.
    unsafe {
        match ffi::lua_type(l, -1) {
            ffi::TNIL | ffi::TSTRING => {}
            ffi::TNUMBER => {
                ffi::to_bytes(l, -1);
            }
            ffi::TTABLE => {
                ffi::push_ngx(l);
                ffi::lua_getfield(l, -1, c"encode_args".as_ptr());
                ffi::lua_remove(l, -2);
                ffi::lua_insert(l, -2);
                ffi::lua_callk(l, 1, 1, 0, None);
            }
            _ => ffi::error(l, b"Bad args option value"),
        }
    }
}
