//! One configuration, compiled and immutable (nginx: a cycle). The only module that sees all others
//! below it: the configuration becomes components, programs, plans and a router here.

use std::collections::HashMap;
use std::sync::Arc;

use crate::access_log::{AccessLog, Format};
use crate::config::Config;
use crate::engine::Plan;
use crate::plugin::Plugin;
use crate::router::Router;

mod build;
mod plans;
mod program;
pub mod swap;

pub use build::{BuildError, Builder};
pub use swap::Served;

/// A configuration that can serve.
pub struct Generation {
    /// Counts from 1.
    pub number: u64,
    /// What it was built from.
    pub config: Config,
    router: Router,
    plans: Vec<Arc<Plan>>,
    named: HashMap<String, usize>,
    fallback: Arc<Plan>,
    /// In the configuration's order.
    pub plugins: Vec<Arc<Plugin>>,
    /// Where requests are written down; `None` is off.
    pub access: Option<(Arc<AccessLog>, Format)>,
    /// What of its caches takes the place of older ones when it serves.
    pub caches: crate::cache::Opened,
}
