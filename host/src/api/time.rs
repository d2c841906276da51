//! `time`: the worker's clock.

use super::bindings::phasor::plugin::time::Host;
use super::{HostState, enter};
use crate::time_cache;

impl Host for HostState {
    fn now(&mut self) -> wasmtime::Result<u64> {
        enter!(self, "time.now");
        Ok(time_cache::now_ms())
    }

    fn update(&mut self) -> wasmtime::Result<u64> {
        enter!(self, "time.update");
        Ok(time_cache::update())
    }

    fn monotonic(&mut self) -> wasmtime::Result<u64> {
        enter!(self, "time.monotonic");
        Ok(u64::try_from(time_cache::monotonic().as_nanos()).unwrap_or(u64::MAX))
    }

    fn cpu(&mut self) -> wasmtime::Result<u64> {
        enter!(self, "time.cpu");
        Ok(u64::try_from(time_cache::cpu().as_nanos()).unwrap_or(u64::MAX))
    }

    fn local_offset(&mut self) -> wasmtime::Result<i32> {
        enter!(self, "time.local-offset");
        Ok(time_cache::local_offset(time_cache::now_ms() / 1000))
    }
}
