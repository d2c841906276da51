//! The dicts of the process by name, because a dict outlives the generation that named it: a reload
//! finds the one that is there, with its contents.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::SharedDict;

/// All dicts of the process. Asked when a generation is built, never on the request path.
#[derive(Debug, Default)]
pub struct Registry {
    dicts: Mutex<HashMap<String, Arc<SharedDict>>>,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The dict of that name; made when it is not there, resized (with its contents) when
    /// `capacity` is another than before.
    pub fn open(&self, name: &str, capacity: usize) -> Arc<SharedDict> {
        let mut dicts = self.dicts.lock();
        if let Some(dict) = dicts.get(name) {
            dict.resize(capacity);
            return Arc::clone(dict);
        }
        let dict = Arc::new(SharedDict::new(capacity));
        dicts.insert(name.to_owned(), Arc::clone(&dict));
        dict
    }

    /// The dict of that name, if there is one.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<SharedDict>> {
        self.dicts.lock().get(name).cloned()
    }

    /// Forgets the dicts that the configuration no longer names. Requests that still hold one keep it.
    pub fn retain(&self, is_named: impl Fn(&str) -> bool) {
        self.dicts.lock().retain(|name, _| is_named(name));
    }

    /// All dicts with their names, sorted, for the operator's views.
    #[must_use]
    pub fn all(&self) -> Vec<(String, Arc<SharedDict>)> {
        let mut all: Vec<_> = self
            .dicts
            .lock()
            .iter()
            .map(|(name, dict)| (name.clone(), Arc::clone(dict)))
            .collect();
        all.sort_by(|left, right| left.0.cmp(&right.0));
        all
    }
}
