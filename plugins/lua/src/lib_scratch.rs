//! What the library files share: a reused output buffer, and running bundled Lua source.
//!
//! The buffer lives in a static, so that an error thrown by Lua while it is in use skips no
//! destructor and loses no memory.
#![expect(unsafe_code, reason = "the C API of Lua")]
#![expect(
    unsafe_op_in_unsafe_fn,
    reason = "every function works on the live state that Lua hands in"
)]

use crate::ffi;
use std::cell::UnsafeCell;
use std::ffi::{CStr, c_int};

/// A value of this plugin's single thread.
pub(crate) struct Single<T>(UnsafeCell<T>);

// SAFETY: a component runs on one thread.
unsafe impl<T> Sync for Single<T> {}

impl<T> Single<T> {
    /// Wraps `value`.
    pub(crate) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// The value. The caller holds no other reference to it.
    pub(crate) const fn get(&self) -> *mut T {
        self.0.get()
    }
}

/// More than this is given back after use: one huge answer must not pin its memory.
const KEEP: usize = 1 << 20;

static SCRATCH: Single<Vec<u8>> = Single::new(Vec::new());

/// Lets `fill` write into the reused buffer, and pushes what it wrote. `fill` must not call Lua
/// functions that can raise or that come back here.
pub(crate) unsafe fn push_built(l: *mut ffi::State, fill: impl FnOnce(&mut Vec<u8>)) {
    with_built(fill);
    ffi::push_bytes(l, &*SCRATCH.get());
}

/// Lets `work` write into the reused buffer and do with it what it will, as of `push_built`.
pub(crate) unsafe fn with_built<R>(work: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    let buffer = &mut *SCRATCH.get();
    if buffer.capacity() > KEEP {
        *buffer = Vec::new();
    }
    buffer.clear();
    work(buffer)
}

/// As `push_built`, but pushes nil when `fill` gives false.
pub(crate) unsafe fn push_built_or_nil(
    l: *mut ffi::State,
    fill: impl FnOnce(&mut Vec<u8>) -> bool,
) {
    let mut good = false;
    push_built(l, |out| good = fill(out));
    if !good {
        ffi::pop(l, 1);
        ffi::lua_pushnil(l);
    }
}

/// Makes the value at `index` a string in place, as `tostring` would.
pub(crate) unsafe fn stringify<'a>(l: *mut ffi::State, index: c_int) -> &'a [u8] {
    if ffi::lua_type(l, index) != ffi::TSTRING {
        ffi::luaL_tolstring(l, index, std::ptr::null_mut());
        ffi::lua_replace(l, index);
    }
    ffi::to_bytes(l, index).unwrap_or_default()
}

/// Runs bundled Lua source with the `arguments` uppermost values, and leaves `results` values.
pub(crate) unsafe fn run(
    l: *mut ffi::State,
    source: &str,
    name: &CStr,
    arguments: c_int,
    results: c_int,
) {
    if ffi::load(l, source.as_bytes(), name) != ffi::OK {
        ffi::raise(l);
    }
    ffi::lua_insert(l, -arguments - 1);
    ffi::lua_callk(l, arguments, results, 0, None);
}

/// A C integer of a length; lengths in a component fit.
pub(crate) fn int(n: usize) -> c_int {
    c_int::try_from(n).unwrap_or(c_int::MAX)
}

/// The number that a length or count is in Lua.
#[expect(clippy::cast_precision_loss, reason = "lengths are far below 2^53")]
pub(crate) const fn number(n: usize) -> f64 {
    n as f64
}
