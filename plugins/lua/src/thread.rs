//! Light threads: `ngx.thread.spawn wait kill`. Each is a task of its own that shares exchange,
//! globals and CPU budget with the entry task which it belongs to; a handler has ended when its
//! entry task and all its threads have.
#![expect(unsafe_code, reason = "drives Lua threads")]

use crate::api;
use crate::bindings::phasor::plugin::error_log;
use crate::coroutine::Mark;
use crate::ffi::{self, State};
use crate::job::NONE;
use crate::phase;
use crate::task::{self, Dying, Kind, Progress, Task};
use crate::vm::vm;
use crate::wait;
use std::ffi::c_int;

/// What a light thread is to the coroutine that made it.
pub(crate) struct Child {
    parent: *mut State,
    /// The task that made it; `NONE` of a task that is no light thread.
    maker: u32,
    /// Keeps a parent that is no task's coroutine; 0: none.
    reference: c_int,
    /// The task that waits for it, in its parent; `NONE`: nobody.
    waiter: u32,
    zombie: bool,
    failed: bool,
}

impl Default for Child {
    fn default() -> Self {
        Self {
            parent: std::ptr::null_mut(),
            maker: NONE,
            reference: 0,
            waiter: NONE,
            zombie: false,
            failed: false,
        }
    }
}

impl Child {
    /// The task that made it; `NONE` of a task that is no light thread.
    pub(crate) fn maker(&self) -> u32 {
        self.maker
    }
}

/// A task by its number.
fn task_of(number: u32) -> Option<&'static mut Task> {
    let &task = vm().tasks.get(number as usize)?;
    // SAFETY: tasks are boxed and never freed.
    Some(unsafe { &mut *task })
}

unsafe extern "C-unwind" fn spawn(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let n = ffi::lua_gettop(l);
        if ffi::lua_type(l, 1) != ffi::TFUNCTION || ffi::lua_iscfunction(l, 1) != 0 {
            ffi::arg_error(l, 1, c"Lua function expected");
        }
        api::check_phase(l, phase::WAIT);
        let Some(root) = vm().current_root() else {
            ffi::error(l, b"no request found")
        };
        let most = vm().program.config.threads();
        if root.running >= most {
            ffi::luaL_where(l, 1);
            ffi::push_bytes(l, b"too many light threads: max_threads of the plugin is ");
            #[expect(clippy::cast_precision_loss, reason = "a small number")]
            ffi::lua_pushnumber(l, most as f64);
            ffi::lua_concat(l, 3);
            ffi::raise(l);
        }
        let co = ffi::lua_newthread(l);
        ffi::lua_insert(l, 1);
        ffi::luaL_checkstack(co, n + 1, c"too many arguments".as_ptr());
        ffi::lua_xmove(l, co, n);
        ffi::lua_pushvalue(l, 1);
        let reference = ffi::reference(l);
        let kept = keep_parent(l);
        let token = begin(l, co, reference, kept, n - 1);
        if !wait::can_wait(l) {
            vm().queue.push_back(token);
            return 1;
        }
        // The thread runs at once, its parent when those before it have had their turn.
        vm().queue.push_front(token);
        let own = wait::home_token();
        vm().queue.push_back(own);
        wait::suspend(l, 0, Some(spawned))
    }
}

/// Keeps the running coroutine if no task does.
unsafe fn keep_parent(l: *mut State) -> c_int {
    if vm().current().is_some_and(|t| t.thread == l) {
        return 0;
    }
    // SAFETY: `l` is the running coroutine.
    unsafe {
        ffi::lua_pushthread(l);
        ffi::reference(l)
    }
}

/// Makes the task of a new light thread; gives the token that starts it.
pub(crate) unsafe fn begin(
    l: *mut State,
    co: *mut State,
    reference: c_int,
    kept: c_int,
    arguments: c_int,
) -> u32 {
    let vm = vm();
    let (Some(root), Some(current)) = (vm.current_root(), vm.current()) else {
        return NONE;
    };
    let child = task::take_bare(Kind::Thread, current.phase, root.job);
    child.thread = co;
    child.reference = reference;
    child.globals = root.globals;
    child.root = root.number;
    child.blocks = root.blocks;
    child.leaf = co;
    child.leaf_results = arguments;
    child.child = Child {
        parent: l,
        maker: current.number,
        reference: kept,
        ..Child::default()
    };
    // SAFETY: the coroutine is new.
    unsafe { ffi::phasor_setmark(co, Mark::OWN) };
    root.threads.push(child.number);
    root.running += 1;
    child.token = vm.waits.take_home(wait::Waiter::Task(child.number));
    child.token
}

unsafe extern "C-unwind" fn spawned(l: *mut State) -> c_int {
    // SAFETY: called by Lua as the continuation of `spawn`.
    unsafe { ffi::lua_pushvalue(l, 1) };
    1
}

/// A light thread of the running handler, by its coroutine.
fn find(root: &Task, co: *mut State) -> Option<&'static mut Task> {
    root.threads
        .iter()
        .filter_map(|number| task_of(*number))
        .find(|t| t.thread == co)
}

unsafe extern "C-unwind" fn wait(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        api::check_phase(l, phase::WAIT);
        let Some(root) = vm().current_root() else {
            ffi::error(l, b"no request found")
        };
        let n = ffi::lua_gettop(l);
        if n == 0 {
            ffi::error(l, b"at least one coroutine should be specified");
        }
        let mut any = false;
        for i in 1..=n {
            let co = ffi::lua_tothread(l, i);
            if co.is_null() {
                ffi::arg_error(l, i, c"lua thread expected");
            }
            let Some(thread) = find(root, co) else {
                match ffi::phasor_mark(co) {
                    Mark::DEAD if i < n || any => continue,
                    Mark::DEAD => return ffi::nil_error(l, b"already waited or killed"),
                    _ => ffi::error(
                        l,
                        b"attempt to wait on a coroutine that is not a user thread",
                    ),
                }
            };
            if thread.child.parent != l {
                ffi::error(l, b"only the parent coroutine can wait on the thread");
            }
            if thread.child.zombie {
                forget_waits(root, l);
                let results = collect(thread, l);
                remove(root, thread);
                return results;
            }
            thread.child.waiter = vm().task;
            any = true;
        }
        if !wait::can_wait(l) {
            forget_waits(root, l);
            ffi::error(l, b"attempt to yield across C-call boundary");
        }
        wait::home_token();
        wait::suspend(l, 0, None)
    }
}

/// The parent waits for none of its threads any more.
fn forget_waits(root: &Task, parent: *mut State) {
    for thread in root.threads.iter().filter_map(|number| task_of(*number)) {
        if thread.child.parent == parent {
            thread.child.waiter = NONE;
        }
    }
}

/// Moves the outcome of an ended thread to its parent's stack; gives how many values.
unsafe fn collect(thread: &mut Task, l: *mut State) -> c_int {
    let co = thread.thread;
    // SAFETY: both are live; the thread has ended, its results lie on its stack.
    unsafe {
        let n = if thread.child.failed {
            1
        } else {
            ffi::lua_gettop(co)
        };
        if ffi::lua_checkstack(l, n + 1) == 0 {
            ffi::lua_pushboolean(l, 0);
            ffi::push_bytes(l, b"too many results");
            return 2;
        }
        ffi::lua_pushboolean(l, c_int::from(!thread.child.failed));
        ffi::lua_xmove(co, l, n);
        n + 1
    }
}

/// Takes a thread out of its group and frees its slot.
unsafe fn remove(root: &mut Task, thread: &mut Task) {
    let vm = vm();
    root.threads.retain(|number| *number != thread.number);
    // SAFETY: it has ended, or waits and is left to the collector.
    unsafe {
        if thread.child.reference != 0 {
            ffi::unreference(vm.main, thread.child.reference);
        }
        vm.waits.forget(thread.token);
        thread.abandon();
    }
    root.running -= usize::from(!thread.child.zombie);
    thread.child = Child::default();
    thread.live = false;
    thread.job = std::ptr::null_mut();
    vm.bare_tasks.push(thread.number);
}

unsafe extern "C-unwind" fn kill(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let co = ffi::lua_tothread(l, 1);
        if co.is_null() {
            ffi::arg_error(l, 1, c"lua thread expected");
        }
        api::check_phase(l, phase::WAIT);
        let Some(root) = vm().current_root() else {
            ffi::error(l, b"no request found")
        };
        let Some(thread) = find(root, co) else {
            return match ffi::phasor_mark(co) {
                Mark::DEAD => ffi::nil_error(l, b"already waited or killed"),
                _ => ffi::nil_error(l, b"not user thread"),
            };
        };
        if thread.child.parent != l {
            return ffi::nil_error(l, b"killer not parent");
        }
        let zombie = thread.child.zombie;
        remove(root, thread);
        if zombie {
            return ffi::nil_error(l, b"already terminated");
        }
        ffi::lua_pushnumber(l, 1.0);
    }
    1
}

/// Ends all threads of a task.
pub(crate) unsafe fn kill_all(root: &mut Task) {
    while let Some(thread) = root.threads.last().and_then(|number| task_of(*number)) {
        // SAFETY: no thread of this task runs.
        unsafe { remove(root, thread) };
    }
}

/// What the end of an entry task's coroutine means while it has threads: by itself it waits for
/// them, by `ngx.exit` or an error it ends them.
pub(crate) unsafe fn settle(root: &mut Task, progress: Progress) -> Progress {
    if progress == Progress::Waits {
        return progress;
    }
    if progress == Progress::Done && root.dying != Dying::Exit && root.running > 0 {
        root.ended = true;
        root.token = NONE;
        return Progress::Waits;
    }
    // SAFETY: none of the threads runs.
    unsafe { kill_all(root) };
    progress
}

/// Whether the coroutine that made a thread can still wait for it.
unsafe fn parent_alive(root: &Task, parent: *mut State) -> bool {
    if parent == root.thread {
        return !root.ended;
    }
    if let Some(thread) = find(root, parent) {
        return !thread.child.zombie;
    }
    // SAFETY: `Child::reference` keeps it.
    unsafe { ffi::lua_status(parent) == ffi::YIELD }
}

/// A light thread has ended. Gives its entry task and how that has ended, if it has with it.
pub(crate) unsafe fn ended(
    thread: &mut Task,
    progress: Progress,
) -> Option<(&'static mut Task, Progress)> {
    let root = task_of(thread.root)?;
    // SAFETY: no task of this handler runs.
    unsafe {
        if thread.dying == Dying::Exit {
            root.dying = Dying::Exit;
            root.cancel();
            return Some((root, Progress::Done));
        }
        thread.child.failed = progress == Progress::Failed;
        if thread.child.failed {
            report(thread);
        }
        let parent = thread.child.parent;
        if let Some(waiter) = task_of(thread.child.waiter) {
            waiter.leaf = parent;
            waiter.leaf_results = collect(thread, parent);
            vm().queue.push_front(waiter.token);
            forget_waits(root, parent);
            remove(root, thread);
        } else if parent_alive(root, parent) {
            root.running -= 1;
            thread.child.zombie = true;
            ffi::phasor_setmark(thread.thread, Mark::ZOMBIE);
        } else {
            remove(root, thread);
        }
        if root.ended && root.running == 0 {
            kill_all(root);
            return Some((root, Progress::Done));
        }
    }
    None
}

/// A thread's error is a line in the error log, whoever waits for it.
fn report(thread: &mut Task) {
    let vm = vm();
    let outer = std::mem::replace(&mut vm.task, thread.number);
    vm.select();
    vm.task = outer;
    let text = format!(
        "lua user thread aborted: runtime error: {}",
        String::from_utf8_lossy(&thread.message)
    );
    error_log::write(error_log::Level::Error, &text);
}

/// Opens `ngx.thread`.
pub(crate) unsafe fn open(l: *mut State) {
    // SAFETY: called while the state is opened.
    unsafe {
        ffi::push_ngx(l);
        ffi::push_library(l, &[(c"spawn", spawn), (c"wait", wait), (c"kill", kill)]);
        ffi::lua_setfield(l, -2, c"thread".as_ptr());
        ffi::pop(l, 1);
    }
}
