//! The plugin's own configuration: the `config` table of its `[plugin.NAME]`.

use alloc::string::String;

use serde::de::DeserializeOwned;

use crate::bindings::phasor::plugin::config as host;

/// The table as a value of your own type. Read it once, in `init`, and keep it.
pub fn read<T: DeserializeOwned>() -> Result<T, serde_json::Error> {
    serde_json::from_str(&host::json())
}

/// The table as JSON.
#[must_use]
pub fn json() -> String {
    host::json()
}

/// The plugin's name in the configuration.
#[must_use]
pub fn plugin_name() -> String {
    host::plugin_name()
}
