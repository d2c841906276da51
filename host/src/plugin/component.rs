//! What a component offers and wants, found out when it is loaded, so that a wrong one is refused
//! before anything serves.

use anyhow::{Context as _, bail};
use wasmtime::Store;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, ComponentExportIndex, Instance, InstancePre};

use super::runtime::{Kind, Runtime};
use crate::api::HostState;
use crate::phase::{Phase, PhaseSet, rules};

/// The contract's package.
const PACKAGE: &str = "phasor:plugin/";
/// The contract's version.
const VERSION: &str = "@0.1.0";

/// A component that can be instantiated.
#[derive(Clone)]
pub struct Loaded {
    /// Linked.
    pub pre: InstancePre<HostState>,
    /// Which engine runs it.
    pub kind: Kind,
    /// The phases that it exports.
    pub phases: PhaseSet,
    /// `handle` of each.
    pub handlers: [Option<ComponentExportIndex>; Phase::COUNT],
    /// `prepare` and `run` of a language runtime.
    pub pump: Option<(ComponentExportIndex, ComponentExportIndex)>,
    /// `call` of a language runtime.
    pub call: Option<ComponentExportIndex>,
    /// Its instances start from no heap image, and call `prepare` themselves.
    pub prepares: bool,
}

/// What a component exports, before it is linked.
pub struct Exports {
    phases: PhaseSet,
    handlers: [Option<ComponentExportIndex>; Phase::COUNT],
    pump: Option<(ComponentExportIndex, ComponentExportIndex)>,
    call: Option<ComponentExportIndex>,
}

/// Says what is wrong with bytes that are no component.
///
/// # Errors
/// Always when they are not one; the text says what they are.
pub fn check_magic(bytes: &[u8]) -> anyhow::Result<()> {
    match bytes {
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => Ok(()),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => {
            bail!(
                "this is a core Wasm module, not a component: build it for wasm32-wasip2, or wrap it with `wasm-tools component new`"
            )
        }
        [0, b'a', b's', b'm', ..] => {
            bail!("this is a component of another version of the binary format")
        }
        _ => bail!("this is not a Wasm component"),
    }
}

fn function(
    component: &Component,
    interface: &ComponentExportIndex,
    name: &str,
) -> Option<ComponentExportIndex> {
    component.get_export_index(Some(interface), name)
}

fn exports(component: &Component) -> Exports {
    let mut found = Exports {
        phases: PhaseSet::EMPTY,
        handlers: [const { None }; Phase::COUNT],
        pump: None,
        call: None,
    };
    for phase in Phase::ALL {
        let name = format!("{PACKAGE}{}{VERSION}", phase.interface());
        let handler = component
            .get_export_index(None, &name)
            .and_then(|interface| function(component, &interface, "handle"));
        if handler.is_some() {
            found.phases.insert(phase);
        }
        found.handlers[phase.number() as usize] = handler;
    }
    if let Some(pump) = component.get_export_index(None, format!("{PACKAGE}pump{VERSION}")) {
        found.pump = function(component, &pump, "prepare").zip(function(component, &pump, "run"));
        found.call = function(component, &pump, "call");
    }
    found
}

/// Looks at the imports: what the host does not have, and what no exported phase may call.
fn check_imports(component: &Component, exports: &Exports) -> anyhow::Result<()> {
    let engine = component.engine();
    for (name, item) in component.component_type().imports(engine) {
        let Some(interface) = name.strip_prefix(PACKAGE) else {
            continue;
        };
        let (interface, version) = interface.split_once('@').unwrap_or((interface, ""));
        if format!("@{version}") != VERSION {
            bail!(
                "it imports `{name}`: this server offers version {}",
                &VERSION[1..]
            );
        }
        let ComponentItem::ComponentInstance(instance) = item.ty else {
            continue;
        };
        if exports.pump.is_some() {
            continue;
        }
        for (function, _) in instance.exports(engine) {
            check_function(&format!("{interface}.{function}"), exports.phases)?;
        }
    }
    Ok(())
}

fn check_function(function: &str, phases: PhaseSet) -> anyhow::Result<()> {
    let Some((_, allowed)) = rules::RULES.iter().find(|(name, _)| *name == function) else {
        return Ok(());
    };
    if !phases.is_empty() && allowed.intersection(phases).is_empty() {
        let names: Vec<_> = phases.iter().map(Phase::name).collect();
        bail!(
            "it imports `{function}`, which none of its phases may call ({})",
            names.join(", ")
        );
    }
    Ok(())
}

impl Loaded {
    /// Compiles, inspects and links.
    ///
    /// # Errors
    /// When it is no component, exports nothing that the host knows, or wants what the host lacks.
    pub fn new(runtime: &Runtime, bytes: &[u8], bundled: bool) -> anyhow::Result<Self> {
        check_magic(bytes)?;
        // Whether it is a runtime is known only when it is compiled; only our own runs without epochs.
        let kind = if bundled {
            Kind::Reactor
        } else {
            Kind::Ordinary
        };
        let component = runtime
            .compile(kind, bytes)
            .map_err(anyhow::Error::from)
            .context("compile the component")?;
        let exports = exports(&component);
        if exports.phases.is_empty() && exports.pump.is_none() {
            bail!(
                "it exports no phase of `phasor:plugin{VERSION}`: export one of {}",
                phase_names()
            );
        }
        check_imports(&component, &exports)?;
        let pre = runtime
            .linker(kind)
            .instantiate_pre(&component)
            .map_err(anyhow::Error::from)
            .context("link the component")?;
        Ok(Self {
            pre,
            kind,
            phases: exports.phases,
            handlers: exports.handlers,
            pump: exports.pump,
            call: exports.call,
            prepares: false,
        })
    }

    /// An instance as it is before it serves.
    ///
    /// # Errors
    /// When it traps, or `prepare` says why it cannot serve.
    pub async fn instantiate(&self, store: &mut Store<HostState>) -> wasmtime::Result<Instance> {
        store.data_mut().phase = Phase::Init;
        let instance = self.pre.instantiate_async(&mut *store).await?;
        if self.prepares
            && let Some((prepare, _)) = &self.pump
        {
            let call =
                instance.get_typed_func::<(), (Result<(), String>,)>(&mut *store, prepare)?;
            let (result,) = call.call_async(&mut *store, ()).await?;
            result.map_err(wasmtime::Error::msg)?;
        }
        Ok(instance)
    }
}

fn phase_names() -> String {
    Phase::ALL.map(Phase::interface).join(", ")
}
