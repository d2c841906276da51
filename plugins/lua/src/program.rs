//! What the host wants run: the JSON document of `reactor.program`, checked and with numbers for
//! phases, so that the hot path compares no strings.

use crate::phase::{self, Phase};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The document as written.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    config: Option<Config>,
    #[serde(default)]
    root: String,
    #[serde(default)]
    seed: Option<f64>,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    cosocket: Cosocket,
    handlers: Vec<RawHandler>,
    #[serde(default)]
    init: Vec<u16>,
    #[serde(default)]
    segments: Vec<Segment>,
    #[serde(default)]
    shared: Vec<String>,
}

/// The part of `[plugin.lua] config` that matters here; handlers are listed elsewhere. (No map: its
/// random seed would make the heap image differ from run to run.)
#[derive(Deserialize, Default)]
pub(crate) struct Config {
    /// Templates for `require`, separated by semicolons.
    pub(crate) path: Option<String>,
    max_threads: Option<usize>,
    max_pending_timers: Option<usize>,
    max_running_timers: Option<usize>,
    /// Whether a client that leaves ends its handlers.
    lua_check_client_abort: Option<bool>,
    #[serde(default)]
    thread_pool: BTreeMap<String, ThreadPool>,
}

/// nginx's `thread_pool NAME threads=N max_queue=N`.
#[derive(Deserialize)]
struct ThreadPool {
    threads: Option<u32>,
    max_queue: Option<u32>,
}

impl Config {
    /// Light threads that one handler may have at a time.
    pub(crate) fn threads(&self) -> usize {
        self.max_threads.unwrap_or(1000)
    }

    /// Whether a client that leaves ends its handlers.
    pub(crate) fn checks_abort(&self) -> bool {
        self.lua_check_client_abort.unwrap_or(true)
    }

    /// Threads and queue of a pool; `default` is always there, with nginx's numbers.
    pub(crate) fn thread_pool(&self, name: &str) -> Option<(u32, u32)> {
        match self.thread_pool.get(name) {
            Some(pool) => Some((pool.threads.unwrap_or(32), pool.max_queue.unwrap_or(65_536))),
            None => (name == "default").then_some((32, 65_536)),
        }
    }

    /// Timers that may be set (`lua_max_pending_timers`).
    pub(crate) fn pending_timers(&self) -> usize {
        self.max_pending_timers.unwrap_or(1024)
    }

    /// Timers whose callbacks may run at a time (`lua_max_running_timers`).
    pub(crate) fn running_timers(&self) -> usize {
        self.max_running_timers.unwrap_or(256)
    }
}

/// The bounds of this instance.
#[derive(Deserialize, Clone, Copy)]
#[serde(default)]
pub(crate) struct Limits {
    /// CPU time of one handler, in milliseconds.
    pub(crate) cpu_ms: u64,
    /// Memory of the instance in bytes.
    pub(crate) memory: usize,
    /// How much output may be unsent.
    pub(crate) window: usize,
    /// How long a handler may take, in milliseconds.
    pub(crate) deadline_ms: u64,
    /// How long `init` may take, in milliseconds.
    pub(crate) init_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu_ms: 50,
            memory: 256 << 20,
            window: 64 << 10,
            deadline_ms: 60_000,
            init_ms: 10_000,
        }
    }
}

/// What sockets take when a handler says nothing; times in milliseconds.
#[derive(Deserialize, Clone, Copy)]
#[serde(default)]
pub(crate) struct Cosocket {
    pub(crate) connect_ms: u32,
    pub(crate) send_ms: u32,
    pub(crate) read_ms: u32,
    pub(crate) keepalive_ms: u32,
    /// The most that one `receive` gathers.
    pub(crate) receive: usize,
}

impl Default for Cosocket {
    fn default() -> Self {
        Self {
            connect_ms: 60_000,
            send_ms: 60_000,
            read_ms: 60_000,
            keepalive_ms: 60_000,
            receive: 16 << 20,
        }
    }
}

#[derive(Deserialize)]
struct RawHandler {
    phase: String,
    #[serde(default)]
    variable: Option<String>,
    chunk: String,
    #[serde(default)]
    line: u32,
    source: String,
}

/// One piece of Lua.
pub(crate) struct Handler {
    pub(crate) phase: Phase,
    pub(crate) variable: String,
    pub(crate) chunk: String,
    pub(crate) line: u32,
    pub(crate) source: String,
    /// The compiled function, in the registry.
    pub(crate) function: i32,
}

/// A run of neighbouring steps.
#[derive(Deserialize, Default)]
pub(crate) struct Segment {
    #[serde(default)]
    pub(crate) steps: Vec<u16>,
    #[serde(default)]
    pub(crate) header_filter: Vec<u16>,
    #[serde(default)]
    pub(crate) body_filter: Vec<u16>,
    #[serde(default)]
    pub(crate) log: Vec<u16>,
    #[serde(default)]
    pub(crate) last: bool,
}

impl Segment {
    /// Whether it serves answers that were made elsewhere, after they have left.
    pub(crate) const fn is_log_only(&self) -> bool {
        self.steps.is_empty()
            && self.header_filter.is_empty()
            && self.body_filter.is_empty()
            && !self.log.is_empty()
    }
}

/// The document as meant.
pub(crate) struct Program {
    pub(crate) config: Config,
    pub(crate) root: String,
    pub(crate) seed: u32,
    pub(crate) limits: Limits,
    pub(crate) cosocket: Cosocket,
    pub(crate) handlers: Vec<Handler>,
    pub(crate) init: Vec<u16>,
    pub(crate) segments: Vec<Segment>,
    /// The names of the shared dicts that this plugin may use.
    pub(crate) shared: Vec<String>,
}

impl Program {
    /// Parses the document.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let d: Document =
            serde_json::from_str(text).map_err(|e| format!("reactor.program: {e}"))?;
        let mut handlers = Vec::with_capacity(d.handlers.len());
        for h in d.handlers {
            let phase = phase::parse(&h.phase)
                .ok_or_else(|| format!("{}:{}: unknown phase {}", h.chunk, h.line, h.phase))?;
            handlers.push(Handler {
                phase,
                variable: h.variable.unwrap_or_default(),
                chunk: h.chunk,
                line: h.line,
                source: h.source,
                function: 0,
            });
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "any 32 bits do as a seed"
        )]
        let seed = d.seed.unwrap_or(0.0) as u64 as u32;
        let program = Self {
            config: d.config.unwrap_or_default(),
            root: d.root,
            seed,
            limits: d.limits,
            cosocket: d.cosocket,
            handlers,
            init: d.init,
            segments: d.segments,
            shared: d.shared,
        };
        program.check()?;
        Ok(program)
    }

    /// Every handler number names a handler: nothing later checks again.
    fn check(&self) -> Result<(), String> {
        let lists = self
            .segments
            .iter()
            .flat_map(|s| [&s.steps, &s.header_filter, &s.body_filter, &s.log]);
        for &number in lists.flatten().chain(&self.init) {
            if usize::from(number) >= self.handlers.len() {
                return Err(format!("reactor.program: there is no handler {number}"));
            }
        }
        Ok(())
    }
}
