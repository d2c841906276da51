//! nginx's variables, by name and meaning, without the `$`.

use alloc::vec::Vec;

use crate::bindings::phasor::plugin::variable as host;

pub use host::VariableError;

/// The exchange's variables.
#[derive(Debug)]
pub struct Variables(pub(crate) ());

impl Variables {
    /// A variable's value; `None` when it is unset or unknown.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        host::get(name)
    }

    /// Several in one host call, in the same order.
    #[must_use]
    pub fn get_many(&self, names: &[&str]) -> Vec<Option<Vec<u8>>> {
        host::get_many(names)
    }

    /// Sets a variable that the route declares with `set`, or one of those that nginx lets be set.
    pub fn set(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<(), VariableError> {
        host::set(name, value.as_ref())
    }
}
