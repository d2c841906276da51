//! `context`: values that the plugins of one exchange hand on to each other.

use super::bindings::phasor::plugin::context::Host;
use super::{HostState, enter};
use crate::exchange;

/// Names per exchange; a plugin that needs more wants a value with structure.
const ENTRIES: usize = 256;

impl Host for HostState {
    fn get(&mut self, name: String) -> wasmtime::Result<Option<Vec<u8>>> {
        let id = enter!(self, "context.get");
        Ok(exchange::with(id, |x| {
            x.context
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| value.clone())
        }))
    }

    fn set(&mut self, name: String, value: Option<Vec<u8>>) -> wasmtime::Result<()> {
        let id = enter!(self, "context.set");
        exchange::with(id, |x| {
            let place = x.context.iter().position(|(n, _)| *n == name);
            match (place, value) {
                (Some(place), Some(value)) => x.context[place].1 = value,
                (Some(place), None) => {
                    x.context.swap_remove(place);
                }
                (None, Some(_)) if x.context.len() >= ENTRIES => {
                    return Err(wasmtime::format_err!(
                        "`context.set`: more than {ENTRIES} names"
                    ));
                }
                (None, Some(value)) => x.context.push((name, value)),
                (None, None) => {}
            }
            Ok(())
        })
    }
}
