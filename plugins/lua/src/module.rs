//! Who loads which module: `require` may wait while it loads, and then another request must wait for
//! that load instead of beginning a second one. The rest of `require` is Lua, in the prelude.
//!
//! A load belongs to a task. It ends with it, whatever ended it: a client that leaves while its
//! request loads a module must not keep the others from loading it.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::ffi::{self, State};
use crate::job::NONE;
use crate::vm::vm;
use crate::wait;
use std::ffi::{CStr, c_int};

/// The registry's table of the names that are being loaded; the prelude has it, too.
const NAMES: &CStr = c"phasor.loading";

/// A module that is being loaded.
struct Load {
    name: Vec<u8>,
    /// The name as a Lua string in the registry: the end of a load must not need memory.
    reference: c_int,
    /// Who loads it; `NONE` in `init`.
    task: u32,
    /// The tokens of those who wait for its end, and their tasks.
    waiting: Vec<(u32, u32)>,
}

/// The modules that are being loaded now.
#[derive(Default)]
pub(crate) struct Loads(Vec<Load>);

impl Loads {
    fn find(&mut self, name: &[u8]) -> Option<&mut Load> {
        self.0.iter_mut().find(|load| load.name == name)
    }

    /// Whether waiting for this load would be waiting for oneself: the task, or one that made it,
    /// loads it, or its loader waits for a load of which that is true.
    fn is_loop(&self, name: &[u8], task: u32) -> bool {
        let mut name = name;
        for _ in 0..=self.0.len() {
            let Some(load) = self.0.iter().find(|load| load.name == name) else {
                return false;
            };
            if load.task == task || made(load.task, task) {
                return true;
            }
            let waits_for = |load: &&Load, task| load.waiting.iter().any(|(_, t)| *t == task);
            match self.0.iter().find(|other| waits_for(other, load.task)) {
                Some(other) => name = &other.name,
                None => return false,
            }
        }
        true
    }
}

/// Whether `task` is a light thread of `ancestor`, or of one of its threads.
fn made(ancestor: u32, task: u32) -> bool {
    let vm = vm();
    let mut at = task;
    while let Some(&t) = vm.tasks.get(at as usize) {
        // SAFETY: tasks are boxed and never freed.
        let maker = unsafe { (*t).child.maker() };
        if maker == NONE || maker == at {
            return false;
        }
        if maker == ancestor {
            return true;
        }
        at = maker;
    }
    false
}

/// `claim_module(name)`: true when the load is the caller's from now on, false when it is already
/// (a loop); nil, after the end of somebody else's, when one must look again.
unsafe extern "C-unwind" fn claim(l: *mut State) -> c_int {
    // SAFETY: called by the prelude with a string; nothing with a destructor is alive at a raise.
    unsafe {
        let name = ffi::to_bytes(l, 1).unwrap_or_default();
        let vm = vm();
        let task = vm.task;
        if vm.loads.find(name).is_none() {
            ffi::lua_getfield(l, ffi::REGISTRY, NAMES.as_ptr());
            ffi::lua_pushvalue(l, 1);
            let reference = ffi::reference(l);
            ffi::lua_pushvalue(l, 1);
            ffi::lua_pushboolean(l, 1);
            ffi::lua_rawset(l, -3);
            vm.loads.0.push(Load {
                name: name.to_vec(),
                reference,
                task,
                waiting: Vec::new(),
            });
            if let Some(task) = vm.current() {
                task.loads += 1;
            }
            ffi::lua_pushboolean(l, 1);
            return 1;
        }
        if vm.loads.is_loop(name, task) {
            ffi::lua_pushboolean(l, 0);
            return 1;
        }
        if !wait::can_wait(l) {
            ffi::error(
                l,
                b"another request loads this module, and this call cannot wait for it",
            );
        }
        let token = wait::home_token();
        if let Some(load) = vm.loads.find(name) {
            load.waiting.push((token, task));
        }
        wait::suspend(l, 0, None)
    }
}

/// `end_module(name)`: it has been loaded, or has failed; those who wait look again.
unsafe extern "C-unwind" fn end(l: *mut State) -> c_int {
    // SAFETY: called by the prelude with a string.
    unsafe {
        let name = ffi::to_bytes(l, 1).unwrap_or_default();
        let vm = vm();
        let Some(at) = vm.loads.0.iter().position(|load| load.name == name) else {
            return 0;
        };
        finish(l, at);
        if let Some(task) = vm.current() {
            task.loads = task.loads.saturating_sub(1);
        }
    }
    0
}

/// The loads of a task that has ended, or is left behind, end with it.
pub(crate) unsafe fn leave(task: u32) {
    let vm = vm();
    while let Some(at) = vm.loads.0.iter().position(|load| load.task == task) {
        // SAFETY: the main thread is live and has room.
        unsafe { finish(vm.main, at) };
    }
}

unsafe fn finish(l: *mut State, at: usize) {
    let vm = vm();
    let load = vm.loads.0.swap_remove(at);
    for (token, _) in load.waiting {
        if vm.waits.awaited(token) {
            vm.queue.push_back(token);
        }
    }
    // SAFETY: the name is in the table already, so that nothing is allocated and nothing raises.
    unsafe {
        ffi::lua_getfield(l, ffi::REGISTRY, NAMES.as_ptr());
        ffi::push_reference(l, load.reference);
        ffi::lua_pushnil(l);
        ffi::lua_rawset(l, -3);
        ffi::pop(l, 1);
        ffi::unreference(l, load.reference);
    }
}

/// Hands the functions to the prelude.
pub(crate) unsafe fn open(l: *mut State) {
    // SAFETY: called while the state is opened.
    unsafe {
        ffi::lua_createtable(l, 0, 0);
        ffi::lua_pushvalue(l, -1);
        ffi::lua_setfield(l, ffi::REGISTRY, NAMES.as_ptr());
        ffi::lua_setglobal(l, c"loading_modules".as_ptr());
        ffi::lua_pushcclosure(l, claim, 0);
        ffi::lua_setglobal(l, c"claim_module".as_ptr());
        ffi::lua_pushcclosure(l, end, 0);
        ffi::lua_setglobal(l, c"end_module".as_ptr());
    }
}
