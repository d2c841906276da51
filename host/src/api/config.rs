//! `config`: a plugin's own configuration, given as it stands in the file.

use super::bindings::phasor::plugin::config::Host;
use super::{HostState, enter};

impl Host for HostState {
    fn json(&mut self) -> wasmtime::Result<String> {
        enter!(self, "config.json");
        Ok(self.plugin.config.clone())
    }

    fn plugin_name(&mut self) -> wasmtime::Result<String> {
        enter!(self, "config.plugin-name");
        Ok(self.plugin.name.to_string())
    }
}
