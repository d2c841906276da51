//! The locks of the process by table, because one that is held outlives the generation whose
//! configuration named its table.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::local::Store;
use super::{Locks, Remote};
use crate::config::model::Lock as Config;

/// All locks of the process. Asked when a generation is built, never on the request path.
#[derive(Debug, Default)]
pub struct Registry {
    open: Mutex<HashMap<String, Open>>,
}

/// What outlives a generation of one table.
#[derive(Debug)]
struct Open {
    store: Arc<Store>,
    remote: Option<Arc<Remote>>,
}

impl Registry {
    /// The locks of a configuration. What is held stays so.
    pub fn open_all(&self, tables: &[Config]) -> Vec<Arc<Locks>> {
        let mut known = self.open.lock();
        let mut open = |config: &Config| {
            let open = known.entry(config.name.clone()).or_insert_with(|| Open {
                store: Arc::new(Store::new()),
                remote: None,
            });
            let before = open.remote.take();
            open.remote = config.remote.as_ref().map(|remote| {
                before
                    .filter(|before| before.serves(config, remote))
                    .unwrap_or_else(|| Remote::new(config, remote))
            });
            let (store, remote) = (open.store.clone(), open.remote.clone());
            Arc::new(Locks::new(config.clone(), store, remote))
        };
        tables.iter().map(&mut open).collect()
    }
}
