//! A component: compiled, inspected, pooled, called under limits.
//!
//! An ordinary component serves one exchange at a time and is called on a fiber; a language runtime
//! (`pump`) has one instance per worker and gets its exchanges in batches.

use std::sync::Arc;

use crate::api::PluginInfo;
use crate::config::model::{Isolation, Limits};
use crate::phase::PhaseSet;

pub mod code_cache;
pub mod component;
pub mod elsewhere;
pub mod error;
pub mod image;
pub mod instance;
pub mod limits;
pub mod pool;
pub mod pump;
pub mod runtime;
pub mod watchdog;

pub use component::Loaded;
pub use error::CallError;
pub use pool::Pool;
pub use pump::Pump;
pub use runtime::Runtime;

/// A configured unit: a component with its name, its limits, its rights.
pub struct Plugin {
    /// What all its instances have in common.
    pub info: Arc<PluginInfo>,
    /// What it may use up.
    pub limits: Limits,
    /// How instances and requests go together.
    pub isolation: Isolation,
    /// The component, ready to be instantiated.
    pub loaded: Loaded,
    /// Handlers of a language runtime that run when a worker starts and leaves.
    pub worker_handlers: WorkerHandlers,
}

/// Numbers of handlers in a language runtime's program.
#[derive(Debug, Clone, Default)]
pub struct WorkerHandlers {
    /// `init_worker`.
    pub init: Vec<u16>,
    /// `exit_worker`.
    pub exit: Vec<u16>,
}

impl Plugin {
    /// The phases that its component exports.
    #[must_use]
    pub fn phases(&self) -> PhaseSet {
        self.loaded.phases
    }

    /// Whether it is a language runtime.
    #[must_use]
    pub fn is_reactor(&self) -> bool {
        self.loaded.pump.is_some()
    }
}
