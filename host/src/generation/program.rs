//! What a language runtime is to run: its handlers and the segments of all plans that name it, as the
//! JSON document of `docs/reactor.md`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::config::model::{Config, LuaHandler};
use crate::exchange::output::WINDOW;
use crate::phase::Phase;
use crate::plugin::WorkerHandlers;

/// A program in the making.
#[derive(Default)]
pub(super) struct Program {
    handlers: Vec<Value>,
    segments: Vec<Value>,
    init: Vec<u16>,
    /// Handlers that run when a worker starts and leaves.
    pub(super) worker: WorkerHandlers,
}

/// A segment's handlers, by number.
#[derive(Debug, Clone, Default)]
pub(super) struct SegmentHandlers {
    pub(super) steps: Vec<u16>,
    pub(super) header_filter: Vec<u16>,
    pub(super) body_filter: Vec<u16>,
    pub(super) log: Vec<u16>,
    pub(super) last: bool,
}

fn number(place: usize) -> anyhow::Result<u16> {
    u16::try_from(place)
        .map_err(|_| anyhow::anyhow!("more than 65,535 handlers or segments in one Lua plugin"))
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The contract's `milliseconds` have 32 bits: fifty days are as good as for ever.
fn short(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

impl Program {
    /// Whether anything is to run before it serves.
    pub(super) fn has_init(&self) -> bool {
        !self.init.is_empty()
    }

    /// Adds a handler; `variable` for the phase `set`.
    pub(super) fn handler(
        &mut self,
        handler: &LuaHandler,
        variable: Option<&str>,
    ) -> anyhow::Result<u16> {
        let source = &handler.source;
        let mut value = json!({
            "phase": handler.phase.name(),
            "chunk": source.chunk,
            "line": source.line,
            "source": source.source,
        });
        if let Some(variable) = variable {
            value["variable"] = json!(variable);
        }
        // The same code in the same place is one handler, however many routes it stands on.
        let place = match self.handlers.iter().position(|known| *known == value) {
            Some(place) => place,
            None => {
                self.handlers.push(value);
                self.handlers.len() - 1
            }
        };
        let number = number(place)?;
        match handler.phase {
            Phase::Init => self.init.push(number),
            Phase::InitWorker => self.worker.init.push(number),
            Phase::ExitWorker => self.worker.exit.push(number),
            _ => {}
        }
        Ok(number)
    }

    /// Adds a segment.
    pub(super) fn segment(&mut self, segment: &SegmentHandlers) -> anyhow::Result<u16> {
        let value = json!({
            "steps": segment.steps,
            "header_filter": segment.header_filter,
            "body_filter": segment.body_filter,
            "log": segment.log,
            "last": segment.last,
        });
        let place = match self.segments.iter().position(|known| *known == value) {
            Some(place) => place,
            None => {
                self.segments.push(value);
                self.segments.len() - 1
            }
        };
        number(place)
    }

    /// The document.
    pub(super) fn json(&self, config: &Config, plugin: usize, seed: u64) -> String {
        let plugin = &config.plugins[plugin];
        let shared: Vec<_> = config
            .shared_dicts
            .iter()
            .map(|dict| &dict.name)
            .filter(|name| plugin.allow.shared.allows(|allowed| allowed == *name))
            .collect();
        let root = std::path::absolute(&config.root).unwrap_or_else(|_| config.root.clone());
        json!({
            "plugin": plugin.name,
            "config": plugin.config,
            "root": root,
            "seed": seed,
            "limits": {
                "cpu_ms": milliseconds(plugin.limits.cpu),
                "deadline_ms": milliseconds(plugin.limits.deadline),
                "init_ms": milliseconds(plugin.limits.watchdog),
                "memory": plugin.limits.memory(true),
                "window": WINDOW,
            },
            "cosocket": {
                "connect_ms": short(plugin.cosocket.connect_timeout),
                "send_ms": short(plugin.cosocket.send_timeout),
                "read_ms": short(plugin.cosocket.read_timeout),
                "keepalive_ms": short(plugin.cosocket.keepalive_timeout),
                "receive": plugin.cosocket.receive_limit,
            },
            "handlers": self.handlers,
            "init": self.init,
            "init_worker": self.worker.init,
            "exit_worker": self.worker.exit,
            "segments": self.segments,
            "shared": shared,
        })
        .to_string()
    }
}
