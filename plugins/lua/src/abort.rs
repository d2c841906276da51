//! `ngx.on_abort`: a client that leaves ends its handler, unless that has said what is to run then.
#![expect(unsafe_code, reason = "drives Lua threads")]

use crate::api;
use crate::bindings::phasor::plugin::reactor;
use crate::ffi::{self, State};
use crate::job::{Job, NONE};
use crate::phase;
use crate::vm::vm;
use std::ffi::c_int;

/// `ngx.on_abort(callback)`.
unsafe extern "C-unwind" fn on_abort(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let job = api::job(l, phase::ANSWER);
        if ffi::lua_type(l, 1) != ffi::TFUNCTION || ffi::lua_iscfunction(l, 1) != 0 {
            ffi::arg_error(l, 1, c"Lua function expected");
        }
        if !vm().program.config.checks_abort() {
            return ffi::nil_error(l, b"lua_check_client_abort is off");
        }
        if job.on_abort != 0 {
            return ffi::nil_error(l, b"duplicate call");
        }
        ffi::lua_pushvalue(l, 1);
        job.on_abort = ffi::reference(l);
        vm().select();
        reactor::keep_on(true);
        ffi::lua_pushnumber(l, 1.0);
    }
    1
}

/// The client has left: the callback runs as one more light thread of the handler.
pub(crate) unsafe fn left(job: &mut Job) {
    let vm = vm();
    let Some(&root) = vm.tasks.get(job.task as usize) else {
        return;
    };
    if job.on_abort == 0 || job.task == NONE {
        return;
    }
    // SAFETY: tasks are never freed; the handler waits, so its coroutine is suspended or has ended.
    unsafe {
        let parent = (*root).thread;
        if parent.is_null() {
            return;
        }
        let co = ffi::lua_newthread(vm.main);
        let reference = ffi::reference(vm.main);
        ffi::push_reference(co, job.on_abort);
        forget(job);
        let outer = std::mem::replace(&mut vm.task, (*root).number);
        let token = crate::thread::begin(parent, co, reference, 0, 0);
        vm.task = outer;
        vm.queue.push_back(token);
    }
}

/// The handler has ended: nothing is called any more.
pub(crate) fn forget(job: &mut Job) {
    if job.on_abort != 0 {
        // SAFETY: `on_abort` kept it.
        unsafe { ffi::unreference(vm().main, job.on_abort) };
        job.on_abort = 0;
    }
}

/// Opens `ngx.on_abort`.
pub(crate) unsafe fn open(l: *mut State) {
    // SAFETY: called while the state is opened.
    unsafe {
        ffi::push_ngx(l);
        ffi::register(l, &[(c"on_abort", on_abort)]);
        ffi::pop(l, 1);
    }
}
