//! The first level of a cache: Lua values as they were decoded or made, with the stamps that tell
//! whether they are still what the cache holds. A hit costs two look-ups in a Lua table and one call
//! of the host, which copies nothing.
//!
//! The values lie in a Lua table (the userdata's), so that the collector sees them: the key's text
//! names a place, place `n` has its value at `2n - 1` and its key at `2n`. The places form a ring in
//! the order of their use.
#![expect(unsafe_code, reason = "C functions for Lua")]

use crate::bindings::phasor::plugin::cache;
use crate::ffi::{self, State};
use std::ffi::{c_int, c_void};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI32, AtomicPtr};

/// The metatable, and where the registry keeps it.
static METATABLE: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
static METATABLE_AT: AtomicI32 = AtomicI32::new(0);
/// Stands for nil, which a table cannot hold.
static NONE: u8 = 0;

fn none() -> *mut c_void {
    (&raw const NONE).cast_mut().cast()
}

#[derive(Clone, Copy)]
struct Place {
    slot: u32,
    version: u64,
    until: u64,
    prev: usize,
    next: usize,
}

/// Place 0 is the ring's head: behind it stands what was used last.
struct Copies {
    id: u32,
    limit: usize,
    places: Vec<Place>,
    free: Vec<usize>,
    /// All copies are good only while this slot has this version: the name space's generation.
    guard: Option<(u32, u64)>,
}

impl Copies {
    fn unlink(&mut self, at: usize) {
        let Place { prev, next, .. } = self.places[at];
        self.places[prev].next = next;
        self.places[next].prev = prev;
        self.places[at].prev = at;
        self.places[at].next = at;
    }

    fn link(&mut self, at: usize) {
        let first = self.places[0].next;
        self.places[at].prev = 0;
        self.places[at].next = first;
        self.places[first].prev = at;
        self.places[0].next = at;
    }

    fn guarded(&self) -> bool {
        self.guard
            .is_none_or(|(slot, version)| cache::unchanged(self.id, slot, version))
    }
}

fn index(at: usize) -> c_int {
    c_int::try_from(at * 2).unwrap_or(c_int::MAX)
}

/// `copies(id, limit)`
pub(crate) unsafe extern "C-unwind" fn new(l: *mut State) -> c_int {
    // SAFETY: called by Lua; the memory is written before use.
    unsafe {
        let id = u32::try_from(ffi::luaL_checkinteger(l, 1)).unwrap_or(0);
        let limit = usize::try_from(ffi::luaL_checkinteger(l, 2)).unwrap_or(0);
        let place: *mut Copies = ffi::lua_newuserdata(l, size_of::<Copies>()).cast();
        place.write(Copies {
            id,
            limit,
            places: Vec::new(),
            free: Vec::new(),
            guard: None,
        });
        ffi::push_reference(l, METATABLE_AT.load(Relaxed));
        ffi::lua_setmetatable(l, -2);
        ffi::lua_createtable(l, 0, 0);
        ffi::lua_setuservalue(l, -2);
        empty(&mut *place);
    }
    1
}

fn empty(copies: &mut Copies) {
    copies.places.clear();
    copies.free.clear();
    copies.places.push(Place {
        slot: 0,
        version: 0,
        until: 0,
        prev: 0,
        next: 0,
    });
}

unsafe extern "C-unwind" fn collect(l: *mut State) -> c_int {
    // SAFETY: called by Lua's collector with a userdata of this type, once; it is empty afterwards.
    unsafe {
        let copies: *mut Copies = ffi::lua_touserdata(l, 1).cast();
        (*copies).places = Vec::new();
        (*copies).free = Vec::new();
    }
    0
}

unsafe fn this<'a>(l: *mut State) -> &'a mut Copies {
    // SAFETY: called by Lua; the metatable is that of copies only.
    unsafe {
        let place: *mut Copies = ffi::phasor_self(l, METATABLE.load(Relaxed)).cast();
        if place.is_null() {
            ffi::arg_error(l, 1, c"no copies")
        }
        &mut *place
    }
}

/// Makes the metatable.
pub(crate) unsafe fn open(l: *mut State) {
    // SAFETY: called while the libraries are opened.
    unsafe {
        ffi::lua_createtable(l, 0, 1);
        ffi::register(l, &[(c"__gc", collect)]);
        METATABLE.store(ffi::lua_topointer(l, -1).cast_mut(), Relaxed);
        METATABLE_AT.store(ffi::reference(l), Relaxed);
    }
}

/// Whose copies are argument 1.
pub(crate) unsafe fn cache_of(l: *mut State) -> u32 {
    // SAFETY: as `this`.
    unsafe { this(l).id }
}

/// The place of the key at index 2; the table of values is left on the top.
unsafe fn find(l: *mut State) -> Option<usize> {
    // SAFETY: as `this`.
    unsafe {
        ffi::lua_getuservalue(l, 1);
        ffi::lua_pushvalue(l, 2);
        ffi::lua_rawget(l, -2);
        let mut known = 0;
        let at = ffi::lua_tointegerx(l, -1, &raw mut known);
        ffi::pop(l, 1);
        if known == 0 {
            return None;
        }
        usize::try_from(at).ok()
    }
}

/// `lookup(copies, key)`: whether there is a good copy, and its value.
pub(crate) unsafe extern "C-unwind" fn lookup(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        ffi::check_bytes(l, 2);
        ffi::lua_settop(l, 2);
        ffi::lua_pushboolean(l, 1);
        if push_copy(l) {
            return 2;
        }
        ffi::lua_pushboolean(l, 0);
    }
    1
}

/// Pushes the copy of the key at index 2; false, and nothing, when there is no good one.
pub(crate) unsafe fn push_copy(l: *mut State) -> bool {
    // SAFETY: called by Lua.
    unsafe {
        let copies = this(l);
        let top = ffi::lua_gettop(l);
        if let Some(at) = find(l)
            && let Some(&Place {
                slot,
                version,
                until,
                ..
            }) = copies.places.get(at)
            && copies.guarded()
        {
            if cache::fresh(copies.id, slot, version, until) {
                if copies.places[0].next != at {
                    copies.unlink(at);
                    copies.link(at);
                }
                ffi::lua_rawgeti(l, -1, index(at) - 1);
                if ffi::lua_type(l, -1) == ffi::TLIGHTUSERDATA
                    && ffi::lua_touserdata(l, -1) == none()
                {
                    ffi::pop(l, 1);
                    ffi::lua_pushnil(l);
                }
                ffi::lua_replace(l, top + 1);
                return true;
            }
            drop_place(l, copies, at);
        }
        ffi::lua_settop(l, top);
        false
    }
}

/// Takes a place out of the ring and the table of values, which is on the top.
unsafe fn drop_place(l: *mut State, copies: &mut Copies, at: usize) {
    // SAFETY: keys are there already, so nothing is allocated.
    unsafe {
        copies.unlink(at);
        copies.places[at].until = 0;
        copies.free.push(at);
        ffi::lua_rawgeti(l, -1, index(at));
        ffi::lua_pushnil(l);
        ffi::lua_rawset(l, -3);
        for field in [index(at) - 1, index(at)] {
            ffi::lua_pushboolean(l, 0);
            ffi::lua_rawseti(l, -2, field);
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers that the host gave; for ever saturates to itself"
)]
unsafe fn stamp(l: *mut State, at: c_int) -> (u32, u64, u64) {
    // SAFETY: called by Lua.
    unsafe {
        (
            ffi::opt_number(l, at, 0.0) as u32,
            ffi::opt_number(l, at + 1, 0.0) as u64,
            ffi::opt_number(l, at + 2, 0.0) as u64,
        )
    }
}

/// `keep(copies, key, value, slot, version, until)`: without a stamp, or with one that must not be
/// kept, it forgets.
pub(crate) unsafe extern "C-unwind" fn keep(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        ffi::check_bytes(l, 2);
        let (slot, version, until) = stamp(l, 4);
        keep_value(l, 3, slot, version, until);
    }
    0
}

/// Keeps the value at an index, or forgets.
pub(crate) unsafe fn keep_value(l: *mut State, value: c_int, slot: u32, version: u64, until: u64) {
    // SAFETY: called by Lua with copies and a key as the first arguments.
    unsafe {
        let copies = this(l);
        let forgets = until == 0 || copies.limit == 0;
        if forgets && copies.places.len() <= 1 {
            return;
        }
        let top = ffi::lua_gettop(l);
        let known = find(l);
        if forgets {
            if let Some(at) = known {
                drop_place(l, copies, at);
            }
            ffi::lua_settop(l, top);
            return;
        }
        let at = match known {
            Some(at) => at,
            None => claim(l, copies),
        };
        // Should Lua raise, the place has no copy that could pass for a good one.
        copies.places[at].until = 0;
        if ffi::lua_type(l, value) <= ffi::TNIL {
            ffi::lua_pushlightuserdata(l, none());
        } else {
            ffi::lua_pushvalue(l, value);
        }
        ffi::lua_rawseti(l, -2, index(at) - 1);
        copies.unlink(at);
        copies.link(at);
        let place = &mut copies.places[at];
        (place.slot, place.version, place.until) = (slot, version, until);
        ffi::lua_settop(l, top);
    }
}

/// A place for the key at index 2, out of the ring: a free one, a new one, or that of what was used
/// longest ago. The table of values is on the top.
unsafe fn claim(l: *mut State, copies: &mut Copies) -> usize {
    // SAFETY: called by Lua; should there be no memory, the place is free still.
    unsafe {
        if copies.free.is_empty() {
            if copies.places.len() > copies.limit {
                let oldest = copies.places[0].prev;
                drop_place(l, copies, oldest);
            } else {
                crate::alloc::demand(l, size_of::<Place>() * copies.places.len());
                let at = copies.places.len();
                copies.places.push(Place {
                    slot: 0,
                    version: 0,
                    until: 0,
                    prev: at,
                    next: at,
                });
                copies.free.push(at);
            }
        }
        let at = copies.free.last().copied().unwrap_or(0);
        ffi::lua_pushvalue(l, 2);
        ffi::lua_rawseti(l, -2, index(at));
        ffi::lua_pushvalue(l, 2);
        ffi::lua_pushinteger(l, isize::try_from(at).unwrap_or(0));
        ffi::lua_rawset(l, -3);
        copies.free.pop();
        at
    }
}

/// `clear(copies, slot, version)`: forgets all; from now on the copies are good while the slot has
/// this version, if one is given.
pub(crate) unsafe extern "C-unwind" fn clear(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let copies = this(l);
        empty(copies);
        ffi::lua_createtable(l, 0, 0);
        ffi::lua_setuservalue(l, 1);
    }
    // SAFETY: as above.
    unsafe { guard(l) }
}

/// `guard(copies, slot, version)`: as `clear`, and keeps the copies.
pub(crate) unsafe extern "C-unwind" fn guard(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let copies = this(l);
        let given = ffi::lua_type(l, 2) == ffi::TNUMBER;
        let (slot, version, _) = stamp(l, 2);
        copies.guard = given.then_some((slot, version));
    }
    0
}

/// `guarded(copies)`: whether nothing has changed that all copies depend on.
pub(crate) unsafe extern "C-unwind" fn guarded(l: *mut State) -> c_int {
    // SAFETY: called by Lua.
    unsafe {
        let copies = this(l);
        ffi::lua_pushboolean(l, c_int::from(copies.guard.is_some() && copies.guarded()));
    }
    1
}
