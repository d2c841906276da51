//! Opens the Lua state: the standard libraries in LuaJIT's dialect, then every file of the API.
#![expect(unsafe_code, reason = "opens Lua libraries")]

use crate::ffi::{self, CFunction, State};
use crate::program::Program;
use crate::vm::vm;
use std::ffi::{CStr, CString, c_int};

/// What is written in Lua: small differences between 5.2 and LuaJIT, and what must be able to wait.
const PRELUDE: &str = include_str!("prelude.lua");

/// Makes a state without libraries.
pub(crate) unsafe fn new_state(program: &Program) -> Result<*mut State, String> {
    ffi::set_seed(program.seed);
    crate::alloc::set_limit(program.limits.memory);
    // SAFETY: the allocator has the right type.
    let l = unsafe { ffi::lua_newstate(crate::alloc::allocate, std::ptr::null_mut()) };
    if l.is_null() {
        Err("no memory for a Lua state".to_owned())
    } else {
        Ok(l)
    }
}

/// Opens everything; an error comes back as text.
pub(crate) unsafe fn open_all(l: *mut State) -> Result<(), String> {
    // SAFETY: `open` runs protected.
    unsafe {
        ffi::lua_pushcclosure(l, open, 0);
        if ffi::lua_pcallk(l, 0, 0, 0, 0, None) != ffi::OK {
            let text = ffi::to_bytes(l, -1).unwrap_or(b"(no message)");
            return Err(format!(
                "opening Lua's libraries: {}",
                String::from_utf8_lossy(text)
            ));
        }
        crate::budget::install(l);
        ffi::lua_gc(l, ffi::GCSETPAUSE, 200);
    }
    Ok(())
}

unsafe extern "C-unwind" fn open(l: *mut State) -> c_int {
    let standard: [(&CStr, CFunction); 8] = [
        (c"_G", ffi::luaopen_base),
        (c"package", ffi::luaopen_package),
        (c"table", ffi::luaopen_table),
        (c"string", ffi::luaopen_string),
        (c"math", ffi::luaopen_math),
        (c"debug", ffi::luaopen_debug),
        (c"io", ffi::luaopen_io),
        (c"os", ffi::luaopen_os),
    ];
    // SAFETY: called protected by `open_all`.
    unsafe {
        for (name, function) in standard {
            ffi::luaL_requiref(l, name.as_ptr(), function, 1);
            ffi::pop(l, 1);
        }
        crate::coroutine::open(l);
        open_ngx(l);
        crate::lib_open::open(l);
        run_prelude(l);
        make_globals_metatable(l);
        set_path(l);
    }
    0
}

unsafe fn open_ngx(l: *mut State) {
    // SAFETY: as `open`.
    unsafe {
        crate::api_constants::open(l);
        crate::api_output::open(l);
        crate::api_header::open(l);
        crate::api_request::open(l);
        crate::api_variable::open(l);
        crate::api_fields::open(l);
        crate::api_location::open(l);
        crate::api_body_read::open(l);
        crate::api_worker::open(l);
        crate::api_shared::open(l);
        crate::shared_entry::open(l);
        crate::api_redis::open(l);
        crate::lib_resp::open(l);
        crate::api_cache::open(l);
        crate::api_lock::open(l);
        crate::api_http::open(l);
        crate::api_socket::open(l);
        crate::timer::open(l);
        crate::thread::open(l);
        crate::semaphore::open(l);
        crate::worker_thread::open(l);
        crate::abort::open(l);
    }
}

/// `find_module(name, path)`: the file and its text, or nil and where it was looked for.
unsafe extern "C-unwind" fn find_module(l: *mut State) -> c_int {
    // SAFETY: called by the prelude with two strings; nothing with a destructor outlives the pushes.
    unsafe {
        let text =
            |i| String::from_utf8_lossy(ffi::to_bytes(l, i).unwrap_or_default()).into_owned();
        vm().select();
        match crate::bindings::phasor::plugin::reactor::find_module(&text(1), &text(2)) {
            Ok((file, source)) => {
                ffi::push_bytes(l, file.as_bytes());
                ffi::push_bytes(l, &source);
            }
            Err(tried) => {
                if let Some((file, source)) = crate::lib_bundle::find(&text(1)) {
                    ffi::push_bytes(l, file.as_bytes());
                    ffi::push_bytes(l, source.as_bytes());
                    return 2;
                }
                ffi::lua_pushnil(l);
                ffi::push_bytes(l, tried.as_bytes());
            }
        }
    }
    2
}

/// `read_source(file)`: the text of a file, or nil and why not.
unsafe extern "C-unwind" fn read_source(l: *mut State) -> c_int {
    // SAFETY: called by the prelude with a string; nothing with a destructor outlives the pushes.
    unsafe {
        let file = String::from_utf8_lossy(ffi::to_bytes(l, 1).unwrap_or_default()).into_owned();
        vm().select();
        match crate::bindings::phasor::plugin::reactor::read_source(&file) {
            Ok(source) => ffi::push_bytes(l, &source),
            Err(text) => return ffi::nil_error(l, text.as_bytes()),
        }
    }
    1
}

/// `new_userdata(metatable)`: an empty one. A `__gc` that its metatable gets later is not called.
unsafe extern "C-unwind" fn new_userdata(l: *mut State) -> c_int {
    // SAFETY: called by the prelude with a table or nil.
    unsafe {
        ffi::lua_newuserdata(l, 0);
        ffi::lua_pushvalue(l, 1);
        ffi::lua_setmetatable(l, -2);
    }
    1
}

unsafe fn run_prelude(l: *mut State) {
    // SAFETY: as `open`.
    unsafe {
        ffi::lua_pushcclosure(l, new_userdata, 0);
        ffi::lua_setglobal(l, c"new_userdata".as_ptr());
        ffi::lua_pushcclosure(l, find_module, 0);
        ffi::lua_setglobal(l, c"find_module".as_ptr());
        ffi::lua_pushcclosure(l, read_source, 0);
        ffi::lua_setglobal(l, c"read_source".as_ptr());
        crate::module::open(l);
        if ffi::load(l, PRELUDE.as_bytes(), c"=prelude") != ffi::OK {
            ffi::raise(l);
        }
        ffi::lua_callk(l, 0, 0, 0, None);
    }
}

/// Globals of a task find what they lack in the shared globals; `_G` there finds the task's.
unsafe fn make_globals_metatable(l: *mut State) {
    let vm = vm();
    // SAFETY: as `open`.
    unsafe {
        ffi::lua_rawgeti(l, ffi::REGISTRY, ffi::RIDX_GLOBALS);
        ffi::lua_pushnil(l);
        ffi::lua_setfield(l, -2, c"_G".as_ptr());
        ffi::lua_createtable(l, 0, 1);
        ffi::lua_pushcclosure(l, resolve_global, 0);
        ffi::lua_setfield(l, -2, c"__index".as_ptr());
        ffi::lua_setmetatable(l, -2);
        ffi::lua_createtable(l, 0, 1);
        ffi::lua_pushvalue(l, -2);
        ffi::lua_setfield(l, -2, c"__index".as_ptr());
        vm.globals_metatable = ffi::lua_topointer(l, -1);
        ffi::lua_getglobal(l, c"hide_metatable".as_ptr());
        ffi::lua_pushvalue(l, -2);
        ffi::lua_callk(l, 1, 0, 0, None);
        ffi::lua_pushnil(l);
        ffi::lua_setglobal(l, c"hide_metatable".as_ptr());
        vm.globals_metatable_ref = ffi::reference(l);
        ffi::pop(l, 1);
    }
}

/// `_G`: who asks for it may keep it, so the running task's globals are marked as handed out.
unsafe extern "C-unwind" fn resolve_global(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        if ffi::lua_type(l, 2) == ffi::TSTRING && ffi::to_bytes(l, 2) == Some(b"_G") {
            ffi::phasor_pushglobals(l);
            return 1;
        }
    }
    0
}

/// `package.path` from `config.path`; the host knows where its templates begin.
unsafe fn set_path(l: *mut State) {
    let path = vm()
        .program
        .config
        .path
        .as_deref()
        .unwrap_or("lua/?.lua;lua/?/init.lua");
    let path = CString::new(path).unwrap_or_default();
    // SAFETY: as `open`; Lua copies the string.
    unsafe {
        ffi::lua_getglobal(l, c"package".as_ptr());
        ffi::lua_pushstring(l, path.as_ptr());
        ffi::lua_setfield(l, -2, c"path".as_ptr());
        ffi::lua_pushstring(l, c"".as_ptr());
        ffi::lua_setfield(l, -2, c"cpath".as_ptr());
        ffi::pop(l, 1);
    }
    drop(path);
}

/// Seeds `math.random` anew: every instance starts from the same image.
pub(crate) unsafe fn seed_random(l: *mut State, seed: u64) {
    // SAFETY: the main thread is at its base.
    unsafe {
        ffi::lua_getglobal(l, c"math".as_ptr());
        ffi::lua_getfield(l, -1, c"randomseed".as_ptr());
        #[expect(clippy::cast_precision_loss, reason = "a seed of 32 bits")]
        ffi::lua_pushnumber(l, (seed >> 33) as f64);
        ffi::lua_pcallk(l, 1, 0, 0, 0, None);
        ffi::lua_settop(l, 0);
    }
}
