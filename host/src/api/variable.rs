//! `variable`: nginx's variables.

use super::bindings::phasor::plugin::variable::{Host, VariableError};
use super::{HostState, enter};
use crate::exchange::{self, variable};

impl Host for HostState {
    fn get(&mut self, name: String) -> wasmtime::Result<Option<Vec<u8>>> {
        let id = enter!(self, "variable.get");
        Ok(exchange::with(id, |x| variable::value(x, &name)))
    }

    fn get_many(&mut self, names: Vec<String>) -> wasmtime::Result<Vec<Option<Vec<u8>>>> {
        let id = enter!(self, "variable.get-many");
        Ok(exchange::with(id, |x| {
            names.iter().map(|name| variable::value(x, name)).collect()
        }))
    }

    fn set(&mut self, name: String, value: Vec<u8>) -> wasmtime::Result<Result<(), VariableError>> {
        let id = enter!(self, "variable.set");
        Ok(exchange::with(id, |x| {
            variable::set(x, &name, value).map_err(|error| match error {
                variable::SetError::Unknown => VariableError::Unknown,
                variable::SetError::ReadOnly => VariableError::ReadOnly,
            })
        }))
    }
}
