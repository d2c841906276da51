//! Lua's allocator: counts, so that Lua gets an error it can handle before the instance's memory
//! is gone, and keeps a reserve for what must not fail (output, error messages).
#![expect(unsafe_code, reason = "an allocator")]

use crate::job::NONE;
use std::ffi::c_void;

unsafe extern "C" {
    fn realloc(p: *mut c_void, n: usize) -> *mut c_void;
    fn free(p: *mut c_void);
}

/// What Lua holds, and what it may hold while a task runs.
struct Account {
    used: usize,
    limit: usize,
}

static mut ACCOUNT: Account = Account {
    used: 0,
    limit: usize::MAX,
};

/// Sets how much of the instance's memory Lua may have: an eighth stays for the rest.
pub(crate) fn set_limit(memory: usize) {
    // SAFETY: an instance has one thread.
    unsafe { ACCOUNT.limit = memory - memory / 8 }
}

/// For `lua_newstate`.
pub(crate) unsafe extern "C" fn allocate(
    _: *mut c_void,
    p: *mut c_void,
    old: usize,
    new: usize,
) -> *mut c_void {
    // SAFETY: `p` is one of ours, of `old` bytes (for a new block `old` is a type, not a size).
    unsafe {
        let old = if p.is_null() { 0 } else { old };
        if new == 0 {
            ACCOUNT.used -= old;
            free(p);
            return std::ptr::null_mut();
        }
        let used = ACCOUNT.used - old + new;
        if new > old && used > ACCOUNT.limit && running() {
            return std::ptr::null_mut();
        }
        let q = realloc(p, new);
        if !q.is_null() {
            ACCOUNT.used = used;
        }
        q
    }
}

/// Outside of tasks an error has nobody to catch it, so the reserve may be used.
fn running() -> bool {
    crate::vm::is_set() && crate::vm::vm().task != NONE
}
