//! The locks of the process by table, because one that is held outlives the generation whose
//! configuration named its table.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::local::Store;
use super::{Locks, Remote};
use crate::config::model::{Lock as Config, RemoteLocks};

/// All locks of the process. Asked when a generation is built, never on the request path.
#[derive(Debug, Default)]
pub struct Registry {
    open: Mutex<HashMap<String, Open>>,
}

fn open_remote(config: &Config, locks: &RemoteLocks) -> Arc<Remote> {
    let remote = Remote::new(config, locks);
    let mut opened = OPENED.lock();
    opened.retain(|opened| opened.strong_count() > 0);
    opened.push(Arc::downgrade(&remote));
    remote
}

/// What outlives a generation of one table.
#[derive(Debug)]
struct Open {
    store: Arc<Store>,
    remote: Option<Arc<Remote>>,
}

/// Those in Redis that the process has opened, for its end.
static OPENED: Mutex<Vec<Weak<Remote>>> = Mutex::new(Vec::new());

/// The server ends: waits until what its owners have dropped is given back in Redis, or the time is over.
/// What is not given back then is over with its hold.
pub async fn settle(most: Duration) {
    let deadline = Instant::now() + most;
    let opened = std::mem::take(&mut *OPENED.lock());
    for remote in opened.iter().filter_map(Weak::upgrade) {
        let given_back = tokio::time::timeout_at(deadline, remote.all_given_back());
        if given_back.await.is_err() {
            return;
        }
    }
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
                    .unwrap_or_else(|| open_remote(config, remote))
            });
            let (store, remote) = (open.store.clone(), open.remote.clone());
            Arc::new(Locks::new(config.clone(), store, remote))
        };
        tables.iter().map(&mut open).collect()
    }
}
