//! The host functions that a guest imports: one file per WIT interface, and the only `bindgen!`.
//!
//! A [`HostState`] is what a store carries. It must be able to move between threads (wasmtime demands
//! it), so it holds no exchange but the number of the current one; see `exchange`.

use std::sync::Arc;

use wasmtime::component::{Linker, ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::config::model::Allow;
use crate::exchange::{ExchangeId, NO_EXCHANGE};
use crate::phase::{Phase, PhaseSet};
use crate::reactor::ReactorId;
use crate::shared_dict::Dicts;

pub mod cache;
mod config;
mod context;
mod cosocket;
mod downstream;
mod error_log;
mod exchange;
pub mod http_client;
mod lock;
pub mod operation;
mod reactor;
pub mod redis;
mod request;
mod response;
mod shared_dict;
pub mod subrequest;
mod time;
pub mod timers;
mod variable;
pub mod wasi;
mod worker;

pub use operation::Operation;
pub use shared_dict::Dict;
pub use timers::{Started, Timer};
pub use worker::WorkerInfo;

pub(crate) mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "host",
        imports: {
            "phasor:plugin/timers.sleep": async | trappable,
            "phasor:plugin/timers.end-sleep": async | trappable,
            "phasor:plugin/operation.wait-any": async | trappable,
            "phasor:plugin/request.read-body": async | trappable,
            "phasor:plugin/request.end-read-body": async | trappable,
            "phasor:plugin/request.read": async | trappable,
            "phasor:plugin/request.end-read": async | trappable,
            "phasor:plugin/request.discard-body": async | trappable,
            "phasor:plugin/response.write": async | trappable,
            "phasor:plugin/response.end-write": async | trappable,
            "phasor:plugin/http-client.fetch": async | trappable,
            "phasor:plugin/http-client.end-fetch": async | trappable,
            "phasor:plugin/http-client.open": async | trappable,
            "phasor:plugin/http-client.end-open": async | trappable,
            "phasor:plugin/http-client.[method]body.read": async | trappable,
            "phasor:plugin/http-client.[static]body.end-read": async | trappable,
            "phasor:plugin/http-client.[method]upload.write": async | trappable,
            "phasor:plugin/http-client.[static]upload.end-write": async | trappable,
            "phasor:plugin/http-client.[method]upload.finish": async | trappable,
            "phasor:plugin/http-client.[static]upload.end-finish": async | trappable,
            "phasor:plugin/cache.get": async | trappable,
            "phasor:plugin/cache.end-get": async | trappable,
            "phasor:plugin/cache.renew": async | trappable,
            "phasor:plugin/cache.set": async | trappable,
            "phasor:plugin/cache.delete": async | trappable,
            "phasor:plugin/cache.purge": async | trappable,
            "phasor:plugin/cache.purge-answers": async | trappable,
            "phasor:plugin/cache.end-change": async | trappable,
            "phasor:plugin/cache.[method]flight.fill": async | trappable,
            "phasor:plugin/cache.[static]flight.end-fill": async | trappable,
            "phasor:plugin/redis.command": async | trappable,
            "phasor:plugin/redis.end-command": async | trappable,
            "phasor:plugin/redis.pipeline": async | trappable,
            "phasor:plugin/redis.end-pipeline": async | trappable,
            "phasor:plugin/redis.transaction": async | trappable,
            "phasor:plugin/redis.eval": async | trappable,
            "phasor:plugin/redis.[static]subscription.subscribe": async | trappable,
            "phasor:plugin/redis.[static]subscription.end-subscribe": async | trappable,
            "phasor:plugin/redis.[method]subscription.next": async | trappable,
            "phasor:plugin/redis.[static]subscription.end-next": async | trappable,
            "phasor:plugin/shared-dict.wait": async | trappable,
            "phasor:plugin/shared-dict.add-in-turn": async | trappable,
            "phasor:plugin/shared-dict.end-wait": async | trappable,
            "phasor:plugin/subrequest.capture": async | trappable,
            "phasor:plugin/subrequest.end-capture": async | trappable,
            "phasor:plugin/reactor.next": async | trappable,
            "phasor:plugin/reactor.end-call": async | trappable,
            "phasor:plugin/lock.acquire": async | trappable,
            "phasor:plugin/lock.end-acquire": async | trappable,
            "phasor:plugin/lock.[method]guard.renew": async | trappable,
            "phasor:plugin/lock.[static]guard.release": async | trappable,
            "phasor:plugin/lock.[static]guard.end-change": async | trappable,
            "phasor:plugin/downstream.take": async | trappable,
            "phasor:plugin/downstream.end-take": async | trappable,
            "phasor:plugin/cosocket.[static]stream.connect": async | trappable,
            "phasor:plugin/cosocket.[static]stream.end-connect": async | trappable,
            "phasor:plugin/cosocket.[method]stream.handshake": async | trappable,
            "phasor:plugin/cosocket.[static]stream.end-handshake": async | trappable,
            "phasor:plugin/cosocket.[static]datagram.connect": async | trappable,
            "phasor:plugin/cosocket.[static]datagram.end-connect": async | trappable,
            "phasor:plugin/cosocket.[method]datagram.receive": async | trappable,
            "phasor:plugin/cosocket.[static]datagram.end-receive": async | trappable,
            "phasor:plugin/cosocket.[method]stream.send": async | trappable,
            "phasor:plugin/cosocket.[static]stream.end-send": async | trappable,
            "phasor:plugin/cosocket.[method]stream.receive": async | trappable,
            "phasor:plugin/cosocket.[static]stream.end-receive": async | trappable,
            default: trappable,
        },
        with: {
            "phasor:plugin/operation.operation": super::Operation,
            "phasor:plugin/shared-dict.dict": super::Dict,
            "phasor:plugin/http-client.body": super::http_client::AnswerBody,
            "phasor:plugin/http-client.upload": super::http_client::Upload,
            "phasor:plugin/cache.flight": super::cache::Flight,
            "phasor:plugin/lock.guard": crate::lock::Guard,
            "phasor:plugin/redis.subscription": super::redis::Subscription,
            "phasor:plugin/cosocket.stream": crate::cosocket::Stream,
            "phasor:plugin/cosocket.datagram": crate::cosocket::Datagrams,
            "phasor:plugin/cosocket.tls-session": crate::cosocket::Session,
        },
    });
}

/// What all instances of a plugin have in common.
#[derive(Debug, Default)]
pub struct PluginInfo {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Its `config` table as JSON.
    pub config: String,
    /// What it may do.
    pub allow: Allow,
    /// The reactor's program as JSON; empty for an ordinary component.
    pub program: String,
    /// The generation's shared dicts.
    pub dicts: Arc<Dicts>,
    /// The configuration's caches.
    pub caches: Vec<Arc<crate::cache::Cache>>,
    /// The configuration's locks.
    pub locks: Vec<Arc<crate::lock::Locks>>,
    /// The configuration's Redis servers.
    pub redis: Vec<Arc<crate::config::model::Redis>>,
    /// The pool of connections to HTTP services.
    pub http_client: crate::http_client::Settings,
    /// What its sockets believe and show, and how many it may keep.
    pub cosocket: crate::cosocket::Settings,
    /// The folder of the configuration file.
    pub prefix: String,
    /// Where a language runtime finds modules: templates with `?`, separated by `;`.
    pub module_path: String,
    /// Runs calls of a language runtime on threads of their own.
    pub elsewhere: std::sync::OnceLock<Box<dyn Elsewhere>>,
}

/// Calls into other instances of a plugin, away from the worker's thread.
pub trait Elsewhere: std::fmt::Debug + Send + Sync {
    /// Queues a call in a pool; the result comes when a thread has run it.
    ///
    /// # Errors
    /// When too many wait, or no thread starts.
    fn call(&self, pool: &Threads, payload: Vec<u8>) -> Result<CallResult, String>;
}

/// Where the result of a call comes in.
pub type CallResult = tokio::sync::oneshot::Receiver<Result<Vec<u8>, String>>;

/// A pool of threads.
#[derive(Debug, Clone)]
pub struct Threads {
    /// Its name.
    pub name: String,
    /// At most so many threads.
    pub threads: u32,
    /// At most so many calls that wait.
    pub queue: u32,
}

/// What a store carries.
pub struct HostState {
    /// Whose instance it is.
    pub plugin: Arc<PluginInfo>,
    /// The exchange that the calls speak of.
    pub exchange: ExchangeId,
    /// The phase that runs.
    pub phase: Phase,
    /// Of a language runtime.
    pub reactor: Option<ReactorId>,
    /// Memory, and whether it was refused.
    pub memory: MemoryLimit,
    /// What is known of the worker.
    pub worker: WorkerInfo,
    /// Operations, dicts and WASI's own.
    pub table: ResourceTable,
    /// Caches that it has opened; the place is the guest's number.
    pub caches: Vec<Arc<crate::cache::Cache>>,
    /// Timers that the plugin started; the worker takes them out.
    pub timers: Started,
    /// Whether the component has a handler for them.
    pub timed: bool,
    wasi: WasiCtx,
}

/// A runtime that starts in an instance whose memory becomes a heap image.
pub struct Starting(wasi::Steady);

impl HostState {
    /// The state of a new instance.
    #[must_use]
    pub fn new(plugin: Arc<PluginInfo>, worker: WorkerInfo, memory: usize) -> Self {
        let wasi = wasi::context(&plugin);
        Self {
            plugin,
            exchange: NO_EXCHANGE,
            phase: Phase::Init,
            reactor: None,
            memory: MemoryLimit {
                bytes: memory,
                refused: false,
            },
            worker,
            table: ResourceTable::new(),
            caches: Vec::new(),
            timers: Started::default(),
            timed: false,
            wasi,
        }
    }

    /// The most bytes that a language runtime is handed at once, an eighth of its memory: what that
    /// cannot take would end all its requests. With any other component it costs the one request.
    #[must_use]
    pub fn most_at_once(&self) -> usize {
        match self.reactor {
            Some(_) => self.memory.bytes / 8,
            None => usize::MAX,
        }
    }

    /// The state of an instance whose memory becomes a heap image. While its runtime starts it draws the
    /// same numbers each time, made of the machine's `secret`.
    #[must_use]
    pub fn for_image(
        plugin: Arc<PluginInfo>,
        memory: usize,
        (secret, component): (u64, &[u8]),
    ) -> (Self, Starting) {
        let steady = wasi::Steady::new(secret, component);
        let mut state = Self::new(plugin, WorkerInfo::default(), memory);
        state.wasi = wasi::image(&state.plugin, &steady, true);
        (state, Starting(steady))
    }

    /// The runtime has started: what it draws from now on is random.
    pub fn started(&mut self, starting: &Starting) {
        self.wasi = wasi::image(&self.plugin, &starting.0, false);
    }

    /// The current exchange, if the function may be called in this phase.
    ///
    /// # Errors
    /// A trap that names both: SDKs do not offer such a call, so it is a fault of the plugin.
    fn enter(&self, function: &'static str, phases: PhaseSet) -> wasmtime::Result<ExchangeId> {
        if phases.contains(self.phase) {
            Ok(self.exchange)
        } else {
            Err(wasmtime::format_err!(
                "`{function}` cannot be called in phase `{}`",
                self.phase.name()
            ))
        }
    }
}

/// `enter` with the function's own row of the table, looked up at compile time.
macro_rules! enter {
    ($state:expr, $function:literal) => {{
        const PHASES: crate::phase::PhaseSet = crate::phase::rules::of($function);
        $state.enter($function, PHASES)?
    }};
}
use enter;

/// The cap on an instance's linear memory.
#[derive(Debug, Clone, Copy)]
pub struct MemoryLimit {
    /// Bytes.
    pub bytes: usize,
    /// A growth was refused: what follows is that fault's consequence.
    pub refused: bool,
}

/// Elements of a table that a guest may have: indirect calls need one each, no guest comes near.
const TABLE_LIMIT: usize = 100_000;

impl wasmtime::ResourceLimiter for MemoryLimit {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let allowed = desired <= self.bytes;
        self.refused |= !allowed;
        Ok(allowed)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_LIMIT)
    }
}

impl WasiView for HostState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl wasmtime::component::HasData for HostState {
    type Data<'a> = &'a mut Self;
}

/// Everything that a component may import.
///
/// # Errors
/// When two definitions collide: a mistake of ours.
pub fn link(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    bindings::Host_::add_to_linker::<_, HostState>(linker, |state| state)?;
    Ok(())
}

impl bindings::phasor::plugin::types::Host for HostState {}
