//! `worker`: the worker that runs an instance, and the process around it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::bindings::phasor::plugin::worker::Host;
use super::{HostState, enter};

/// What a plugin may know of its worker.
#[derive(Debug, Clone, Default)]
pub struct WorkerInfo {
    /// From 0.
    pub id: u32,
    /// How many there are.
    pub count: u32,
    /// Set when this generation or the worker drains.
    pub exiting: Arc<AtomicBool>,
}

impl Host for HostState {
    fn id(&mut self) -> wasmtime::Result<u32> {
        enter!(self, "worker.id");
        Ok(self.worker.id)
    }

    fn count(&mut self) -> wasmtime::Result<u32> {
        enter!(self, "worker.count");
        Ok(self.worker.count)
    }

    fn pid(&mut self) -> wasmtime::Result<u32> {
        enter!(self, "worker.pid");
        Ok(std::process::id())
    }

    fn exiting(&mut self) -> wasmtime::Result<bool> {
        enter!(self, "worker.exiting");
        Ok(self.worker.exiting.load(Ordering::Relaxed))
    }

    fn random(&mut self) -> wasmtime::Result<u64> {
        use std::hash::{BuildHasher, RandomState};
        enter!(self, "worker.random");
        Ok(RandomState::new().hash_one(self.worker.id))
    }

    fn prefix(&mut self) -> wasmtime::Result<String> {
        enter!(self, "worker.prefix");
        Ok(self.plugin.prefix.clone())
    }
}
