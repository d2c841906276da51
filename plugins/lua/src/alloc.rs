//! Lua's allocator, and Rust's: both count, so that a handler that takes memory without end gets an
//! error of Lua long before the instance's memory is gone.
//!
//! Two bounds hold while a task runs: three eighths of the memory for what one handler has taken since
//! it began (net, its light threads included), and three quarters for the whole VM. A handler that has
//! taken next to nothing may reach into the reserve: it does not pay for its neighbours. The rest is
//! for what must not fail, as the text of an error.
#![expect(unsafe_code, reason = "an allocator")]

use crate::ffi::{self, State};
use crate::job::NONE;
use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::c_void;

unsafe extern "C" {
    fn realloc(p: *mut c_void, n: usize) -> *mut c_void;
    fn free(p: *mut c_void);
}

/// What a handler may have taken and still be none of those that filled the memory.
const SMALL: isize = 256 << 10;

/// What the VM holds, and what it may hold while a task runs.
struct Account {
    used: usize,
    limit: usize,
    /// The limit of a handler that has taken next to nothing.
    reserve: usize,
    /// What the running handler has taken and not given back; the collector's work in its time counts
    /// for it.
    charged: isize,
    /// The last request for memory was refused: the collector runs, then it comes again.
    pressed: bool,
}

static mut ACCOUNT: Account = Account {
    used: 0,
    limit: usize::MAX,
    reserve: usize::MAX,
    charged: 0,
    pressed: false,
};

/// Sets how much memory the instance has: a quarter of it stays for what must not fail, and for the
/// holes between blocks.
pub(crate) fn set_limit(memory: usize) {
    // SAFETY: an instance has one thread.
    unsafe {
        ACCOUNT.limit = memory - memory / 4;
        ACCOUNT.reserve = memory - memory / 8;
    }
}

/// Another handler runs from now on, which has taken `charged`; gives what the last one has taken.
pub(crate) fn charge(charged: isize) -> isize {
    // SAFETY: as above.
    unsafe {
        let last = ACCOUNT.charged;
        ACCOUNT.charged = charged;
        last
    }
}

impl Account {
    /// Whether `more` bytes are too many. After the collector has run for it, a request must leave
    /// some room: else the collector would run for each of the next ones, too.
    fn refuses(&mut self, more: usize) -> bool {
        let again = std::mem::take(&mut self.pressed);
        let margin = if again { self.limit / 16 } else { 0 };
        let used = self.used.saturating_add(more);
        let charged = self
            .charged
            .saturating_add(isize::try_from(more).unwrap_or(isize::MAX));
        let whole = if charged <= SMALL {
            self.reserve
        } else {
            self.limit - margin
        };
        let own = isize::try_from(self.limit / 2 - margin / 2).unwrap_or(isize::MAX);
        let refused = used > whole || charged > own;
        self.pressed = refused && !again;
        refused
    }

    /// Blocks count with what the C library adds to them.
    fn add(&mut self, old: usize, new: usize) {
        let cost = |size: usize| if size == 0 { 0 } else { (size + 19) & !15 };
        let (old, new) = (cost(old), cost(new));
        self.used = self.used.wrapping_sub(old).wrapping_add(new);
        self.charged = self
            .charged
            .wrapping_sub_unsigned(old)
            .wrapping_add_unsigned(new);
    }
}

/// The one account; an instance has one thread, and nobody keeps the reference.
unsafe fn account() -> &'static mut Account {
    let account = &raw mut ACCOUNT;
    // SAFETY: as above.
    unsafe { &mut *account }
}

/// For `lua_newstate`.
pub(crate) unsafe extern "C" fn allocate(
    _: *mut c_void,
    p: *mut c_void,
    old: usize,
    new: usize,
) -> *mut c_void {
    // SAFETY: `p` is one of ours, of `old` bytes (for a new block `old` is a type, not a size); an
    // instance has one thread.
    unsafe {
        let account = account();
        let old = if p.is_null() { 0 } else { old };
        if new == 0 {
            account.add(old, 0);
            free(p);
            return std::ptr::null_mut();
        }
        if new > old && running() && account.refuses(new - old) {
            return std::ptr::null_mut();
        }
        let q = realloc(p, new);
        if !q.is_null() {
            account.add(old, new);
        }
        q
    }
}

/// Counts what a C library holds in a block of its own.
pub(crate) fn foreign(old: usize, new: usize) {
    // SAFETY: an instance has one thread.
    unsafe { account().add(old, new) };
}

/// Raises, after the collector has run, when there is no room for `more` bytes outside of Lua: what
/// Rust cannot get ends the whole VM, so that who gathers a guest's bytes asks before.
pub(crate) unsafe fn demand(l: *mut State, more: usize) {
    // SAFETY: an instance has one thread; `l` is the running coroutine.
    unsafe {
        let account = &raw mut ACCOUNT;
        if !running() || !(*account).refuses(more) {
            return;
        }
        ffi::lua_gc(l, ffi::GCCOLLECT, 0);
        if (*account).refuses(more) {
            ffi::error(l, b"not enough memory");
        }
    }
}

/// As `demand`, for bytes that will be appended to a buffer, which makes room for them.
pub(crate) unsafe fn demand_in(l: *mut State, buffer: &mut Vec<u8>, more: usize) {
    if buffer.capacity() - buffer.len() < more {
        let grown = (buffer.capacity() * 2).max(buffer.len() + more);
        // SAFETY: `l` is the running coroutine.
        unsafe {
            demand(l, grown);
            if buffer.try_reserve(more).is_err() {
                ffi::error(l, b"not enough memory");
            }
        }
    }
}

/// Makes room in a buffer for bytes that will be appended; false when there is none. For who must let
/// go of the buffer before he raises.
pub(crate) fn make_room(buffer: &mut Vec<u8>, more: usize) -> bool {
    if buffer.capacity() - buffer.len() >= more {
        return true;
    }
    let grown = (buffer.capacity() * 2).max(buffer.len() + more);
    // SAFETY: an instance has one thread.
    let refused = running() && unsafe { account().refuses(grown) };
    !refused && buffer.try_reserve(more).is_ok()
}

/// Outside of tasks an error has nobody to catch it, so the reserve may be used.
fn running() -> bool {
    crate::vm::is_set() && crate::vm::vm().task != NONE
}

/// The system's allocator, which counts.
struct Counting;

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises; an instance has one thread.
        unsafe {
            account().add(0, layout.size());
            System.alloc(layout)
        }
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe {
            account().add(layout.size(), 0);
            System.dealloc(p, layout);
        }
    }

    unsafe fn realloc(&self, p: *mut u8, layout: Layout, new: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe {
            account().add(layout.size(), new);
            System.realloc(p, layout, new)
        }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
