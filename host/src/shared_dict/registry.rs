//! The dicts of the process by name, because a dict outlives the generation that named it: a reload
//! finds the one that is there, with its contents. A generation holds the dicts that it names for as
//! long as it serves, also when the next one no longer names them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::SharedDict;

/// The dicts of one generation.
#[derive(Debug, Default)]
pub struct Dicts(HashMap<String, Arc<SharedDict>>);

impl Dicts {
    /// The dict of that name, if the configuration names it.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<SharedDict>> {
        self.0.get(name).cloned()
    }
}

/// What a configuration wants of a dict.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// `ngx.shared.NAME`.
    pub name: &'a str,
    /// Its bytes.
    pub capacity: usize,
    /// How many may wait at it.
    pub waiters: usize,
}

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

    /// The dicts of a generation that is being built. Those that are there stay as they are, and new
    /// ones are the generation's own: if it is never served, nothing has changed.
    pub fn open(&self, wanted: &[Wanted<'_>]) -> Arc<Dicts> {
        let dicts = self.dicts.lock();
        let open = |wanted: &Wanted<'_>| {
            let dict = dicts.get(wanted.name).cloned();
            let dict = dict.unwrap_or_else(|| Arc::new(SharedDict::new(wanted.capacity)));
            (wanted.name.to_owned(), dict)
        };
        Arc::new(Dicts(wanted.iter().map(open).collect()))
    }

    /// The generation is built: its dicts are the process's from now on, in the size that it wants,
    /// and those that it does not name are forgotten. Requests that still hold one keep it.
    pub fn settle(&self, built: &Dicts, wanted: &[Wanted<'_>]) {
        for wanted in wanted {
            if let Some(dict) = built.0.get(wanted.name) {
                dict.resize(wanted.capacity);
                dict.limit_waiters(wanted.waiters);
            }
        }
        self.dicts.lock().clone_from(&built.0);
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
