//! What the host gave, while Lua copies it: an error of Lua's, as for lack of memory, skips Rust's
//! destructors, and what lay on the stack would be lost for as long as the VM lives. It lies here
//! instead, and is dropped when it has been copied, or else before the VM waits the next time.
#![expect(unsafe_code, reason = "a list that is reached from C functions")]

use crate::ffi::{self, State};
use crate::lib_scratch::Single;
use std::any::Any;
use std::marker::PhantomData;

/// Bytes are the most frequent, and need no box.
enum Value {
    Bytes(Vec<u8>),
    Other(Box<dyn Any>),
}

static HELD: Single<Vec<Value>> = Single::new(Vec::new());

/// A value that is held until this is dropped.
pub(crate) struct Held<T> {
    place: usize,
    kind: PhantomData<T>,
}

fn keep(value: Value) -> usize {
    // SAFETY: an instance has one thread, and the reference ends here.
    let held = unsafe { &mut *HELD.get() };
    held.push(value);
    held.len() - 1
}

/// Holds a value of the host's.
pub(crate) fn hold<T: 'static>(value: T) -> Held<T> {
    Held {
        place: keep(Value::Other(Box::new(value))),
        kind: PhantomData,
    }
}

impl<T: 'static> Held<T> {
    /// The value.
    pub(crate) fn value(&self) -> &T {
        // SAFETY: as in `keep`; it lies in a box of its own, which stays where it is when others are
        // held meanwhile, and is dropped with `self` or when nothing of Lua runs.
        let held = unsafe { &*HELD.get() };
        match held.get(self.place) {
            Some(Value::Other(value)) => match value.downcast_ref() {
                Some(value) => value,
                None => std::process::abort(),
            },
            _ => std::process::abort(),
        }
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        let_go(self.place);
    }
}

/// Drops what is held from this place on: what an error has left behind above it, too.
fn let_go(place: usize) {
    // SAFETY: as in `keep`.
    unsafe { (*HELD.get()).truncate(place) };
}

/// Pushes bytes of the host's.
pub(crate) unsafe fn push(l: *mut State, bytes: Vec<u8>) {
    let place = keep(Value::Bytes(bytes));
    // SAFETY: `l` is the running coroutine; the bytes are where the vector has them, which moves only
    // itself when others are held meanwhile.
    unsafe {
        let held = &*HELD.get();
        if let Some(Value::Bytes(bytes)) = held.get(place) {
            let (at, length) = (bytes.as_ptr(), bytes.len());
            ffi::push_bytes(l, std::slice::from_raw_parts(at, length));
        }
    }
    let_go(place);
}

/// Drops all: called where nothing of Lua runs.
pub(crate) fn clear() {
    let_go(0);
}
