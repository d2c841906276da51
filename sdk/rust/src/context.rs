//! Values that the plugins of one exchange hand on to each other, from phase to phase.

use alloc::vec::Vec;

use crate::bindings::phasor::plugin::context as host;

/// The exchange's values.
#[derive(Debug)]
pub struct Context(pub(crate) ());

impl Context {
    /// The value under a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        host::get(name)
    }

    /// Sets a value.
    pub fn set(&mut self, name: &str, value: impl AsRef<[u8]>) {
        host::set(name, Some(value.as_ref()));
    }

    /// Takes a value away.
    pub fn remove(&mut self, name: &str) {
        host::set(name, None);
    }
}
