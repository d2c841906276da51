//! `error-log`: a handler's own lines in the error log, with its plugin, phase and request.

use super::bindings::phasor::plugin::error_log::{Host, Level as Given};
use super::{HostState, enter};
use crate::exchange::{self, NO_EXCHANGE};
use crate::observe::error_log::{self, Context, Level};

fn level(given: Given) -> Level {
    match given {
        Given::Emerg => Level::Emerg,
        Given::Alert => Level::Alert,
        Given::Crit => Level::Crit,
        Given::Error => Level::Error,
        Given::Warn => Level::Warn,
        Given::Notice => Level::Notice,
        Given::Info => Level::Info,
        Given::Debug => Level::Debug,
    }
}

fn given(level: Level) -> Given {
    match level {
        Level::Emerg => Given::Emerg,
        Level::Alert => Given::Alert,
        Level::Crit => Given::Crit,
        Level::Error => Given::Error,
        Level::Warn => Given::Warn,
        Level::Notice => Given::Notice,
        Level::Info => Given::Info,
        Level::Debug => Given::Debug,
    }
}

impl HostState {
    /// Writes a record about the current plugin, phase and exchange.
    pub fn log(&self, level: Level, message: &str) {
        if !error_log::enabled(level) {
            return;
        }
        let context = Context {
            worker: usize::try_from(self.worker.id).ok(),
            plugin: Some(&self.plugin.name),
            phase: Some(self.phase.name()),
            ..Context::default()
        };
        if self.exchange == NO_EXCHANGE {
            error_log::write(level, &context, message);
        } else {
            exchange::log(self.exchange, level, context, message);
        }
    }
}

impl Host for HostState {
    fn write(&mut self, level_given: Given, message: String) -> wasmtime::Result<()> {
        enter!(self, "error-log.write");
        self.log(level(level_given), &message);
        Ok(())
    }

    fn max_level(&mut self) -> wasmtime::Result<Given> {
        enter!(self, "error-log.max-level");
        Ok(given(error_log::max_level()))
    }
}
