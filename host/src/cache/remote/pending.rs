//! Changes that Redis has not heard of, because it was away: they are sent when it is back, and until
//! then this server believes them and not what Redis has.
//!
//! The newest change of a key counts. When there is no room for one more, all are forgotten and the cache
//! is to be emptied in Redis instead: that costs more, and is never wrong.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::super::entry::Entry;

/// A change that waits.
#[derive(Debug, Clone)]
pub(super) struct Change {
    /// What is to be stored; none: the key is to be taken away.
    pub(super) entry: Option<Arc<Entry>>,
    /// When it was made.
    pub(super) written: u64,
}

/// What this server believes of a key.
#[derive(Debug)]
pub(super) enum Believed {
    /// Ask Redis.
    Unknown,
    /// Nothing, whatever Redis has.
    Absent,
    /// This.
    Found(Arc<Entry>),
}

#[derive(Debug, Default)]
struct Waiting {
    changes: HashMap<Box<[u8]>, Change>,
    bytes: u64,
    /// The cache is to be emptied before anything is read.
    purge: Option<u64>,
}

/// The changes of one cache that wait.
#[derive(Debug)]
pub(super) struct Pending {
    most: u64,
    any: AtomicBool,
    waiting: Mutex<Waiting>,
}

fn weight(key: &[u8], change: &Change) -> u64 {
    /// What the map needs for one.
    const OVERHEAD: u64 = 128;
    let own = change.entry.as_ref().map_or(0, |entry| entry.weight(key));
    own + OVERHEAD + key.len() as u64
}

impl Pending {
    pub(super) fn new(most: u64) -> Self {
        Self {
            most,
            any: AtomicBool::new(false),
            waiting: Mutex::default(),
        }
    }

    /// Whether any wait: next to free while Redis is there.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::SeqCst)
    }

    pub(super) fn believed(&self, key: &[u8]) -> Believed {
        if !self.any() {
            return Believed::Unknown;
        }
        let waiting = self.waiting.lock();
        match waiting.changes.get(key) {
            Some(Change {
                entry: Some(entry), ..
            }) => Believed::Found(entry.clone()),
            Some(Change { entry: None, .. }) => Believed::Absent,
            None if waiting.purge.is_some() => Believed::Absent,
            None => Believed::Unknown,
        }
    }

    /// Whether a change of this key, or an emptying, waits: then a newer one has to wait behind it.
    pub(super) fn has(&self, key: &[u8]) -> bool {
        !matches!(self.believed(key), Believed::Unknown)
    }

    /// One more; false: there was no room, and the cache is to be emptied instead.
    pub(super) fn add(&self, key: &[u8], change: Change) -> bool {
        let mut waiting = self.waiting.lock();
        let waiting = &mut *waiting;
        let added = weight(key, &change);
        if let Some(before) = waiting.changes.remove(key) {
            waiting.bytes -= weight(key, &before);
        }
        self.any.store(true, Ordering::SeqCst);
        if waiting.bytes + added > self.most {
            waiting.changes.clear();
            waiting.bytes = 0;
            waiting.purge = Some(change.written.max(waiting.purge.unwrap_or(0)));
            return false;
        }
        waiting.bytes += added;
        waiting.changes.insert(key.into(), change);
        true
    }

    /// The cache is to be emptied: what waits is of before.
    pub(super) fn purge(&self, epoch: u64) {
        let mut waiting = self.waiting.lock();
        waiting.changes.clear();
        waiting.bytes = 0;
        waiting.purge = Some(epoch.max(waiting.purge.unwrap_or(0)));
        self.any.store(true, Ordering::SeqCst);
    }

    /// The emptying that waits: it comes before all changes.
    pub(super) fn next_purge(&self) -> Option<u64> {
        self.waiting.lock().purge
    }

    /// Some that wait; they stay until [`sent`](Self::sent).
    pub(super) fn next(&self, count: usize) -> Vec<(Box<[u8]>, Change)> {
        let waiting = self.waiting.lock();
        let all = waiting.changes.iter().take(count);
        all.map(|(key, change)| (key.clone(), change.clone()))
            .collect()
    }

    /// Redis has them; one that was changed again meanwhile stays.
    pub(super) fn sent(&self, purge: Option<u64>, changes: &[(Box<[u8]>, Change)]) {
        let mut waiting = self.waiting.lock();
        let waiting = &mut *waiting;
        for (key, change) in changes {
            let same = |now: &Change| now.written == change.written;
            if waiting.changes.get(key).is_some_and(same)
                && let Some(gone) = waiting.changes.remove(key)
            {
                waiting.bytes -= weight(key, &gone);
            }
        }
        if purge.is_some() && waiting.purge == purge {
            waiting.purge = None;
        }
        if waiting.changes.is_empty() && waiting.purge.is_none() {
            self.any.store(false, Ordering::SeqCst);
        }
    }

    /// How many wait.
    pub(super) fn count(&self) -> u64 {
        match self.any() {
            true => self.waiting.lock().changes.len() as u64,
            false => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Believed, Change, Pending};

    fn gone(written: u64) -> Change {
        Change {
            entry: None,
            written,
        }
    }

    #[test]
    fn the_newest_change_of_a_key_counts_until_it_is_sent() {
        let pending = Pending::new(10_000);
        assert!(matches!(pending.believed(b"k"), Believed::Unknown));
        assert!(pending.add(b"k", gone(1)));
        let first = pending.next(10);
        assert!(pending.add(b"k", gone(2)));
        pending.sent(None, &first);
        assert!(matches!(pending.believed(b"k"), Believed::Absent));
        assert!(matches!(pending.believed(b"other"), Believed::Unknown));
        let second = pending.next(10);
        pending.sent(None, &second);
        assert!(!pending.any());
    }

    #[test]
    fn too_many_changes_become_an_emptying() {
        let pending = Pending::new(1000);
        let kept = (0..100_u8)
            .take_while(|n| pending.add(&[*n], gone(1)))
            .count();
        assert!((2..10).contains(&kept), "{kept}");
        assert!(matches!(pending.believed(b"other"), Believed::Absent));
        assert_eq!(pending.count(), 0);
        pending.sent(pending.next_purge(), &[]);
        assert!(!pending.any());
    }
}
