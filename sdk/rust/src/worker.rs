//! The worker that runs this instance, and the process around it.

use alloc::string::String;

use crate::bindings::phasor::plugin::worker as host;

/// From 0.
#[must_use]
pub fn id() -> u32 {
    host::id()
}

/// How many workers there are.
#[must_use]
pub fn count() -> u32 {
    host::count()
}

/// The process.
#[must_use]
pub fn pid() -> u32 {
    host::pid()
}

/// Whether the worker, or this generation, is draining.
#[must_use]
pub fn exiting() -> bool {
    host::exiting()
}

/// Real randomness from the system.
#[must_use]
pub fn random() -> u64 {
    host::random()
}

/// The configuration file's folder.
#[must_use]
pub fn prefix() -> String {
    host::prefix()
}
