//! `ngx.location.capture` and `capture_multi`: requests inside the server, whose answers come back as
//! tables. All of one call are begun before the first is waited for.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::api;
use crate::api_body::push_operation;
use crate::api_location_options::{
    CONTEXTS, Options, Wrong, bytes, field, options, query, type_name,
};
use crate::api_request;
use crate::bindings::phasor::plugin::operation::Operation;
use crate::bindings::phasor::plugin::subrequest::{self, Captured, Inner, SubrequestError};
use crate::ffi::{self, State};
use crate::phase;
use crate::vm::vm;
use crate::wait;
use std::ffi::c_int;

/// Under this name a subrequest finds its token.
const CONTEXT: &str = "lua.ctx";

/// Pushes the table that was given as this subrequest's `ngx.ctx`; false when none was.
pub(crate) unsafe fn push_context(l: *mut State) -> bool {
    vm().select();
    let token = crate::bindings::phasor::plugin::context::get(CONTEXT)
        .and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
    let Some(token) = token else { return false };
    // SAFETY: as `field`.
    unsafe {
        ffi::luaL_newmetatable(l, CONTEXTS.as_ptr());
        ffi::lua_pushnumber(l, f64::from_le_bytes(token));
        ffi::lua_rawget(l, -2);
        ffi::lua_remove(l, -2);
        if ffi::lua_type(l, -1) == ffi::TTABLE {
            return true;
        }
        ffi::pop(l, 1);
    }
    false
}

/// Begins the subrequest whose URI and options lie on the top; both are popped.
unsafe fn begin(l: *mut State) -> Result<Operation, Wrong> {
    // SAFETY: as `field`; `query` has left a string or nil under the options.
    unsafe {
        let top = ffi::lua_gettop(l);
        let (uri, query, table) = (top - 2, top - 1, top);
        let mut target = String::from_utf8_lossy(&bytes(l, uri)).into_owned();
        if ffi::lua_type(l, query) == ffi::TSTRING {
            let query = String::from_utf8_lossy(ffi::to_bytes(l, query).unwrap_or_default());
            if !query.is_empty() {
                target.push(if target.contains('?') { '&' } else { '?' });
                target.push_str(&query);
            }
        }
        let unsafe_uri = target.is_empty()
            || target.split(['?', '#']).next().is_some_and(|path| {
                path.split('/').any(|part| part == "..") || path.contains('\0')
            });
        if unsafe_uri {
            return Err(format!("unsafe uri in argument #1: {target}"));
        }
        let given = match ffi::lua_type(l, table) {
            ffi::TTABLE => options(l, table)?,
            _ => Options::new(),
        };
        ffi::lua_settop(l, top - 3);
        Ok(start(target, given))
    }
}

fn start(target: String, given: Options) -> Operation {
    let context = given.context.iter();
    let context = context.map(|token| (CONTEXT.to_owned(), token.to_vec()));
    let request = Inner {
        target,
        method: given.method.to_owned(),
        headers: Vec::new(),
        body: given.body,
        inherit: given.inherit,
        context: context.collect(),
        variables: given.variables,
    };
    vm().select();
    subrequest::begin_capture(&request)
}

/// The stack while subrequests run: their URIs and options, which keep what was given as `ctx`, the
/// operations, the results, and the number of the one that is waited for.
const ORDERS: c_int = 1;
const OPERATIONS: c_int = 2;
const RESULTS: c_int = 3;
const NUMBER: c_int = 4;

/// Begins the subrequests of the list at `ORDERS` and waits for them.
unsafe fn capture_all(l: *mut State) -> c_int {
    // SAFETY: called by Lua, with the list alone on the stack.
    unsafe {
        if !wait::can_wait(l) {
            ffi::error(l, b"attempt to yield across C-call boundary");
        }
        let count = c_int::try_from(ffi::lua_rawlen(l, ORDERS)).unwrap_or(c_int::MAX);
        ffi::lua_createtable(l, count, 0);
        ffi::lua_createtable(l, count, 0);
        ffi::luaL_checkstack(l, 20, c"".as_ptr());
        for number in 1..=count {
            ffi::lua_rawgeti(l, ORDERS, number);
            let order = ffi::lua_gettop(l);
            ffi::lua_rawgeti(l, order, 1);
            ffi::lua_rawgeti(l, order, 2);
            if ffi::lua_type(l, -1) == ffi::TTABLE {
                field(l, order + 2, b"body");
                crate::alloc::demand(l, ffi::lua_rawlen(l, -1));
                ffi::pop(l, 1);
                field(l, order + 2, b"args");
                query(l);
            } else {
                ffi::lua_pushnil(l);
            }
            // URI, query, options.
            ffi::lua_insert(l, -2);
            match begin(l) {
                Ok(operation) => {
                    push_operation(l, operation);
                    ffi::lua_rawseti(l, OPERATIONS, number);
                }
                Err(text) => {
                    ffi::luaL_where(l, 1);
                    ffi::push_bytes(l, text.as_bytes());
                    drop(text);
                    ffi::lua_concat(l, 2);
                    ffi::raise(l);
                }
            }
            ffi::lua_settop(l, RESULTS);
        }
        ffi::lua_pushnumber(l, 1.0);
        captured(l)
    }
}

/// Takes what is ready and waits for the next.
unsafe extern "C-unwind" fn captured(l: *mut State) -> c_int {
    // SAFETY: called by Lua, with the stack as `capture_all` leaves it.
    unsafe {
        let count = c_int::try_from(ffi::lua_rawlen(l, OPERATIONS)).unwrap_or(0);
        ffi::lua_settop(l, NUMBER);
        let mut number =
            c_int::try_from(ffi::lua_tointegerx(l, NUMBER, std::ptr::null_mut())).unwrap_or(1);
        while number <= count {
            ffi::lua_rawgeti(l, OPERATIONS, number);
            let place: *mut Option<Operation> = ffi::lua_touserdata(l, -1).cast();
            ffi::pop(l, 1);
            let Some(operation) = &*place else { return 0 };
            if !operation.ready() {
                ffi::lua_pushnumber(l, f64::from(number));
                ffi::lua_replace(l, NUMBER);
                return wait::operation(l, operation, captured);
            }
            if let Some(operation) = (*place).take() {
                vm().select();
                match subrequest::end_capture(operation) {
                    Ok(answer) => push_answer(l, crate::held::hold(answer).value()),
                    Err(error) => fail(l, error),
                }
                ffi::lua_rawseti(l, RESULTS, number);
            }
            number += 1;
        }
        ffi::luaL_checkstack(l, count, c"too many subrequests".as_ptr());
        for number in 1..=count {
            ffi::lua_rawgeti(l, RESULTS, number);
        }
        count
    }
}

unsafe fn fail(l: *mut State, error: SubrequestError) -> ! {
    let text = match error {
        SubrequestError::Invalid(text) | SubrequestError::Refused(text) => text,
        SubrequestError::UnknownVariable(name) => format!(
            "variable \"{name}\" cannot be assigned a value (maybe you forgot to define it first?)"
        ),
        SubrequestError::TooDeep(most) => {
            format!("subrequests cycle: subrequest_depth is {most}")
        }
        SubrequestError::TooMany(most) => format!("too many subrequests: subrequests is {most}"),
        SubrequestError::Ended => "the request has ended".to_owned(),
    };
    // SAFETY: the text lies on Lua's stack before the error is raised.
    unsafe {
        ffi::luaL_where(l, 1);
        ffi::push_bytes(l, text.as_bytes());
        drop(text);
        ffi::lua_concat(l, 2);
        ffi::raise(l)
    }
}

/// A header's name as people write it; HTTP has no case for it.
fn train_case<'a>(name: &[u8], room: &'a mut [u8; 256]) -> Option<&'a [u8]> {
    if name.len() > room.len() {
        return None;
    }
    let mut first = true;
    for (to, from) in room.iter_mut().zip(name) {
        let from = if *from == b'_' { b'-' } else { *from };
        *to = if first {
            from.to_ascii_uppercase()
        } else {
            from.to_ascii_lowercase()
        };
        first = from == b'-';
    }
    let name = &mut room[..name.len()];
    match &name[..] {
        b"Etag" => name[1] = b'T',
        b"Www-Authenticate" => name[..3].copy_from_slice(b"WWW"),
        _ => {}
    }
    Some(name)
}

/// `res.header["x_one"]` finds `X-One`.
unsafe extern "C-unwind" fn header_index(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        if ffi::lua_type(l, 2) != ffi::TSTRING {
            return 0;
        }
        let mut room = [0; 256];
        let Some(name) = train_case(ffi::check_bytes(l, 2), &mut room) else {
            return 0;
        };
        ffi::push_bytes(l, name);
        ffi::lua_rawget(l, 1);
    }
    1
}

unsafe fn push_answer(l: *mut State, answer: &Captured) {
    // SAFETY: `l` is the running coroutine.
    unsafe {
        ffi::lua_createtable(l, 0, 4);
        ffi::lua_pushnumber(l, f64::from(answer.status));
        ffi::lua_setfield(l, -2, c"status".as_ptr());
        ffi::push_bytes(l, &answer.body);
        ffi::lua_setfield(l, -2, c"body".as_ptr());
        ffi::lua_pushboolean(l, c_int::from(answer.truncated));
        ffi::lua_setfield(l, -2, c"truncated".as_ptr());
        ffi::lua_createtable(l, 0, c_int::try_from(answer.headers.len()).unwrap_or(0));
        let table = ffi::lua_gettop(l);
        let mut room = [0; 256];
        for (name, value) in &answer.headers {
            if let Some(name) = train_case(name.as_bytes(), &mut room) {
                api_request::add_to_table(l, table, name, value, true);
            }
        }
        if ffi::luaL_newmetatable(l, c"phasor.captured".as_ptr()) != 0 {
            ffi::register(l, &[(c"__index", header_index)]);
        }
        ffi::lua_setmetatable(l, table);
        ffi::lua_setfield(l, -2, c"header".as_ptr());
    }
}

/// `ngx.location.capture(uri, options)`.
unsafe extern "C-unwind" fn capture(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let n = ffi::lua_gettop(l);
        if n != 1 && n != 2 {
            ffi::error(l, b"expecting one or two arguments");
        }
        ffi::check_bytes(l, 1);
        api::job(l, phase::ANSWER);
        ffi::lua_settop(l, 2);
        let kind = ffi::lua_type(l, 2);
        if kind != ffi::TTABLE && kind != ffi::TNIL {
            bad_options(l, 0, kind);
        }
        ffi::lua_createtable(l, 1, 0);
        ffi::lua_createtable(l, 2, 0);
        ffi::lua_pushvalue(l, 1);
        ffi::lua_rawseti(l, -2, 1);
        ffi::lua_pushvalue(l, 2);
        ffi::lua_rawseti(l, -2, 2);
        ffi::lua_rawseti(l, -2, 1);
        ffi::lua_replace(l, ORDERS);
        ffi::lua_settop(l, ORDERS);
        capture_all(l)
    }
}

unsafe fn bad_options(l: *mut State, number: c_int, kind: c_int) -> ! {
    // SAFETY: as `fail`.
    unsafe {
        let name = type_name(l, kind);
        let text =
            format!("expecting table as the 2nd argument for subrequest {number}, but got {name}");
        drop(name);
        ffi::luaL_where(l, 1);
        ffi::push_bytes(l, text.as_bytes());
        drop(text);
        ffi::lua_concat(l, 2);
        ffi::raise(l)
    }
}

/// `ngx.location.capture_multi({ {uri, options}, … })`.
unsafe extern "C-unwind" fn capture_multi(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let n = ffi::lua_gettop(l);
        if n != 1 {
            let text = format!("only one argument is expected, but got {n}");
            ffi::luaL_where(l, 1);
            ffi::push_bytes(l, text.as_bytes());
            drop(text);
            ffi::lua_concat(l, 2);
            ffi::raise(l);
        }
        ffi::luaL_checktype(l, 1, ffi::TTABLE);
        api::job(l, phase::ANSWER);
        let count = c_int::try_from(ffi::lua_rawlen(l, 1)).unwrap_or(c_int::MAX);
        if count == 0 {
            ffi::error(l, b"at least one subrequest should be specified");
        }
        for number in 1..=count {
            ffi::lua_rawgeti(l, 1, number);
            let kind = ffi::lua_type(l, -1);
            let length = if kind == ffi::TTABLE {
                ffi::lua_rawlen(l, -1)
            } else {
                0
            };
            if !(1..=2).contains(&length) {
                bad_order(l, number - 1, kind);
            }
            ffi::lua_rawgeti(l, -1, 1);
            if !matches!(ffi::lua_type(l, -1), ffi::TSTRING | ffi::TNUMBER) {
                ffi::error(l, b"the subrequest's URI is not a string");
            }
            ffi::lua_rawgeti(l, -2, 2);
            let kind = ffi::lua_type(l, -1);
            if kind != ffi::TTABLE && kind != ffi::TNIL {
                bad_options(l, number - 1, kind);
            }
            ffi::lua_settop(l, 1);
        }
        capture_all(l)
    }
}

unsafe fn bad_order(l: *mut State, number: c_int, kind: c_int) -> ! {
    // SAFETY: as `fail`.
    unsafe {
        let text = if kind == ffi::TTABLE {
            format!("query argument {number} expecting one or two arguments")
        } else {
            let name = type_name(l, kind);
            format!("the query argument {number} is not a table, but a {name}")
        };
        ffi::luaL_where(l, 1);
        ffi::push_bytes(l, text.as_bytes());
        drop(text);
        ffi::lua_concat(l, 2);
        ffi::raise(l)
    }
}

/// Opens `ngx.location`.
pub(crate) unsafe fn open(l: *mut State) {
    // SAFETY: called while the state is opened.
    unsafe {
        ffi::push_ngx(l);
        ffi::push_library(
            l,
            &[(c"capture", capture), (c"capture_multi", capture_multi)],
        );
        ffi::lua_setfield(l, -2, c"location".as_ptr());
        ffi::pop(l, 1);
    }
}
