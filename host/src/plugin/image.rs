//! The heap image: `init` runs once when a generation is built, and what it leaves in memory becomes
//! the component's initial memory. Every instance starts from it, copy-on-write. A language runtime
//! whose program has no `init` needs none: its instances are few and prepare themselves, and a changed
//! program is no reason to compile the runtime anew.
//!
//! wasmtime-wizer rewrites the component with the memory, globals and tables that it finds after the
//! call; the result is compiled like any other, and found in the cache when `init` did the same again.
//! So that it does, a runtime that starts draws its hash seeds from the machine's secret, and sees a
//! clock that only counts looks; what `init` itself draws is random.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use wasmtime::component::{Component, Instance};
use wasmtime::{Store, Trap};
use wasmtime_wizer::{WasmtimeWizerComponent, Wizer};

use super::component::{Loaded, check_magic};
use super::limits;
use super::runtime::{Kind, Runtime};
use crate::api::{HostState, PluginInfo, WorkerInfo};
use crate::phase::Phase;

/// Runs `init` (or a language runtime's `prepare`), with so much memory and for so long at most, and
/// gives the component that starts from there. The secret is the machine's: see [`HostState::for_image`].
///
/// # Errors
/// What `init` says, or that it trapped.
pub async fn snapshot(
    runtime: &Runtime,
    bytes: &[u8],
    plugin: Arc<PluginInfo>,
    (memory, most): (usize, Duration),
    (bundled, secret): (bool, u64),
) -> anyhow::Result<Vec<u8>> {
    check_magic(bytes)?;
    let kind = if bundled {
        Kind::Reactor
    } else {
        Kind::Ordinary
    };
    let wizer = Wizer::new();
    let (context, instrumented) = wizer
        .instrument_component(bytes)
        .map_err(anyhow::Error::from)
        .context("prepare the heap image")?;
    let component = runtime
        .compile(kind, &instrumented)
        .map_err(anyhow::Error::from)
        .context("compile the component for its init phase")?;
    let (state, starting) = HostState::for_image(plugin, memory, (secret, bytes));
    let mut store = Store::new(runtime.engine(kind), state);
    store.limiter(|state| &mut state.memory);
    if kind == Kind::Ordinary {
        store.set_epoch_deadline(limits::ticks(most));
    }
    let pre = runtime.linker(kind).instantiate_pre(&component)?;
    let instance = pre
        .instantiate_async(&mut store)
        .await
        .map_err(anyhow::Error::from)
        .context("instantiate the component for its init phase")?;
    store.data_mut().started(&starting);
    init(&mut store, &component, &instance)
        .await
        .map_err(|error| match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => {
                error.context(format!("it has run for {most:?} (limits.watchdog)"))
            }
            _ => error,
        })
        .context("phase init")?;
    let mut state = WasmtimeWizerComponent {
        store: &mut store,
        instance,
    };
    let image = wizer
        .snapshot_component(&context, &mut state)
        .await
        .map_err(|e| anyhow!("{e:#}"))
        .context("take the heap image")?;
    Ok(image)
}

async fn init(
    store: &mut Store<HostState>,
    component: &Component,
    instance: &Instance,
) -> anyhow::Result<()> {
    store.data_mut().phase = Phase::Init;
    for (interface, function) in [("init", "handle"), ("pump", "prepare")] {
        let Some(index) = component
            .get_export_index(None, format!("phasor:plugin/{interface}@0.1.0"))
            .and_then(|interface| component.get_export_index(Some(&interface), function))
        else {
            continue;
        };
        let call = instance.get_typed_func::<(), (Result<(), String>,)>(&mut *store, &index)?;
        let (result,) =
            call.call_async(&mut *store, ())
                .await
                .map_err(|e| match e.downcast_ref::<Trap>() {
                    Some(Trap::Interrupt) => anyhow::Error::new(Trap::Interrupt),
                    _ => anyhow!("{e:?}"),
                })?;
        result.map_err(|text| anyhow!(text))?;
    }
    Ok(())
}

/// Prepares one instance, to see that it can be, and drops it.
///
/// # Errors
/// What the runtime says of its program, or that it trapped.
pub async fn rehearse(
    loaded: &Loaded,
    plugin: Arc<PluginInfo>,
    memory: usize,
) -> anyhow::Result<()> {
    let state = HostState::new(plugin, WorkerInfo::default(), memory);
    let mut store = Store::new(loaded.pre.engine(), state);
    store.limiter(|state| &mut state.memory);
    if loaded.kind == Kind::Ordinary {
        store.set_epoch_deadline(u64::MAX / 2);
    }
    loaded.instantiate(&mut store).await?;
    Ok(())
}
