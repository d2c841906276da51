//! The caches of the process by name, because values outlive the generation whose configuration named
//! their cache.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Cache;
use super::behind::Behind;
use super::store::Store;
use crate::config::model::Cache as Config;

/// All caches of the process. Asked when a generation is built, never on the request path.
#[derive(Debug, Default)]
pub struct Registry {
    open: Mutex<HashMap<String, Open>>,
}

/// What outlives a generation of one cache.
#[derive(Debug)]
struct Open {
    config: Config,
    store: Arc<Store>,
    behind: Arc<Behind>,
}

impl Registry {
    /// The caches of a configuration. One whose memory's size is as it was keeps its values, and one
    /// whose configuration is as it was keeps all.
    pub fn open_all(&self, caches: &[Config]) -> Vec<Arc<Cache>> {
        let mut known = self.open.lock();
        let mut open = |config: &Config| {
            let before = known.remove(&config.name);
            let store = match &before {
                Some(open) if open.store.size == config.size => open.store.clone(),
                _ => Arc::new(Store::new(config.size)),
            };
            let behind = match &before {
                Some(open) if open.config == *config => open.behind.clone(),
                open => Behind::open(config, &store, open.as_ref().map(|open| &*open.behind)),
            };
            let open = Open {
                config: config.clone(),
                store: store.clone(),
                behind: behind.clone(),
            };
            known.insert(config.name.clone(), open);
            Arc::new(Cache::new(config.clone(), store, behind))
        };
        caches.iter().map(&mut open).collect()
    }
}
