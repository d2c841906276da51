//! The locks of the process by table, because one that is held outlives the generation whose
//! configuration named its table.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Locks, Store};
use crate::config::model::Lock as Config;

/// All locks of the process. Asked when a generation is built, never on the request path.
#[derive(Debug, Default)]
pub struct Registry {
    stores: Mutex<HashMap<String, Arc<Store>>>,
}

impl Registry {
    /// The locks of a configuration. What is held stays so.
    pub fn open_all(&self, tables: &[Config]) -> Vec<Arc<Locks>> {
        let mut stores = self.stores.lock();
        let open = |config: &Config| {
            let store = stores
                .entry(config.name.clone())
                .or_insert_with(|| Arc::new(Store::new()));
            Arc::new(Locks::new(config.clone(), store.clone()))
        };
        tables.iter().map(open).collect()
    }
}
