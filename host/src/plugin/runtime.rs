//! The engines that compile and run components, made once per process.
//!
//! There are two: ordinary components are interrupted by epochs; the bundled Lua runtime polices
//! itself and is compiled without epoch checks, which would cost it a fifth of its speed
//! (`docs/adr/006-no-epochs-for-lua.md`).

use std::sync::Arc;

use anyhow::Context as _;
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::code_cache::CodeCache;
use super::{limits, watchdog};
use crate::api::{self, HostState};

/// Instances of ordinary components in the whole process: an address range of 4 GiB each is reserved,
/// 47 bits hold 16 times as many.
const INSTANCES: u32 = 2048;
/// Instances of runtimes: workers × plugins × generations.
const RUNTIMES: u32 = 512;
/// A component of Rust or Go consists of up to four core modules.
const CORE_PER_COMPONENT: u32 = 4;
/// The most that `limits.memory` can grant.
pub const MAX_MEMORY: usize = 4 << 30;
/// Bytes of a memory that stay resident between two users, so that a fresh instance takes no faults.
const KEEP_RESIDENT: usize = 1 << 20;
/// Stack of a fiber; the guest may use half.
const FIBER_STACK: usize = 1 << 20;

/// Engines, linkers, the cache of compiled code.
pub struct Runtime {
    ordinary: Engine,
    reactor: Engine,
    ordinary_linker: Linker<HostState>,
    reactor_linker: Linker<HostState>,
    cache: Option<CodeCache>,
}

/// For which of the two engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Interrupted by epochs.
    Ordinary,
    /// Polices itself.
    Reactor,
}

fn engine(kind: Kind) -> wasmtime::Result<Engine> {
    let mut pool = PoolingAllocationConfig::new();
    let instances = if kind == Kind::Ordinary {
        INSTANCES
    } else {
        RUNTIMES
    };
    pool.total_component_instances(instances)
        .total_core_instances(instances * CORE_PER_COMPONENT)
        .total_memories(instances)
        .total_tables(instances * CORE_PER_COMPONENT)
        .total_stacks(instances)
        .max_memory_size(MAX_MEMORY)
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(1 << 16)
        .max_unused_warm_slots(64);
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .wasm_exceptions(true)
        .concurrency_support(false)
        .memory_init_cow(true)
        .async_stack_size(FIBER_STACK)
        .max_wasm_stack(FIBER_STACK / 2)
        .epoch_interruption(kind == Kind::Ordinary)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
}

fn linker(engine: &Engine) -> wasmtime::Result<Linker<HostState>> {
    let mut linker = Linker::new(engine);
    api::link(&mut linker)?;
    Ok(linker)
}

impl Runtime {
    /// Makes the engines and starts the ticker.
    ///
    /// # Errors
    /// When the machine cannot run compiled Wasm, or reserves no address space for it.
    pub fn new(cache: Option<CodeCache>) -> anyhow::Result<Arc<Self>> {
        let (ordinary, reactor) = (engine(Kind::Ordinary)?, engine(Kind::Reactor)?);
        let runtime = Self {
            ordinary_linker: linker(&ordinary)?,
            reactor_linker: linker(&reactor)?,
            ordinary,
            reactor,
            cache,
        };
        start_ticker(&runtime.ordinary).context("start the ticker of the CPU budgets")?;
        Ok(Arc::new(runtime))
    }

    /// The engine of a kind.
    #[must_use]
    pub fn engine(&self, kind: Kind) -> &Engine {
        match kind {
            Kind::Ordinary => &self.ordinary,
            Kind::Reactor => &self.reactor,
        }
    }

    /// The linker of a kind.
    #[must_use]
    pub fn linker(&self, kind: Kind) -> &Linker<HostState> {
        match kind {
            Kind::Ordinary => &self.ordinary_linker,
            Kind::Reactor => &self.reactor_linker,
        }
    }

    /// Compiles a component, or takes its code from the cache.
    ///
    /// # Errors
    /// When the bytes are no valid component.
    pub fn compile(&self, kind: Kind, bytes: &[u8]) -> wasmtime::Result<Component> {
        let engine = self.engine(kind);
        let Some(cache) = &self.cache else {
            return Component::new(engine, bytes);
        };
        let file = cache.file(engine, bytes);
        if let Some(component) = cache.load(engine, &file) {
            return Ok(component);
        }
        // Who starts at the same time waits for this and finds it done.
        let _alone = cache.alone();
        if let Some(component) = cache.load(engine, &file) {
            return Ok(component);
        }
        let code = engine.precompile_component(bytes)?;
        if let Err(error) = cache.store(&file, &code) {
            let message = format!("compiled code is not kept: {}: {error}", file.display());
            crate::observe::error_log::write(
                crate::observe::error_log::Level::Warn,
                &Default::default(),
                message,
            );
            return Component::new(engine, bytes);
        }
        match cache.load(engine, &file) {
            Some(component) => Ok(component),
            None => Component::new(engine, bytes),
        }
    }
}

fn start_ticker(engine: &Engine) -> std::io::Result<()> {
    let engine = engine.weak();
    std::thread::Builder::new()
        .name("ticker".to_owned())
        .spawn(move || {
            while let Some(engine) = engine.upgrade() {
                limits::tick();
                watchdog::look();
                engine.increment_epoch();
                drop(engine);
                #[expect(
                    clippy::disallowed_methods,
                    reason = "the ticker's own thread; no worker waits here"
                )]
                std::thread::sleep(limits::TICK);
            }
        })?;
    Ok(())
}
