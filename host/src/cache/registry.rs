//! The caches of the process by name, because values outlive the generation whose configuration named
//! their cache.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Cache;
use super::store::Store;
use crate::config::model::Cache as Config;

/// All caches of the process. Asked when a generation is built, never on the request path.
#[derive(Debug, Default)]
pub struct Registry {
    stores: Mutex<HashMap<String, Arc<Store>>>,
}

impl Registry {
    /// The caches of a configuration. One whose size is as it was keeps its values.
    pub fn open_all(&self, caches: &[Config]) -> Vec<Arc<Cache>> {
        let mut stores = self.stores.lock();
        let open = |config: &Config| {
            let store = match stores.get(&config.name) {
                Some(store) if store.size == config.size => store.clone(),
                _ => {
                    let store = Arc::new(Store::new(config.size));
                    stores.insert(config.name.clone(), store.clone());
                    store
                }
            };
            Arc::new(Cache::new(config.clone(), store))
        };
        caches.iter().map(open).collect()
    }
}
