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
    /// Purges of answers, with their moments.
    answers: HashMap<Box<[u8]>, u64>,
    bytes: u64,
    /// The cache is to be emptied before anything is read.
    purge: Option<u64>,
}

impl Waiting {
    /// All that waits is of before an emptying.
    fn empty(&mut self, epoch: u64) {
        self.changes.clear();
        self.answers.clear();
        self.bytes = 0;
        self.purge = Some(epoch.max(self.purge.unwrap_or(0)));
    }
}

/// The changes of one cache that wait.
#[derive(Debug, Default)]
pub(super) struct Pending {
    any: AtomicBool,
    waiting: Mutex<Waiting>,
}

/// What a map needs for one.
const OVERHEAD: u64 = 128;

fn weight(key: &[u8], change: &Change) -> u64 {
    let own = change.entry.as_ref().map_or(0, |entry| entry.weight(key));
    own + OVERHEAD + key.len() as u64
}

impl Pending {
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

    /// One more, of `most` bytes at most; false: there was no room, and the cache is to be emptied instead.
    pub(super) fn add(&self, key: &[u8], change: Change, most: u64) -> bool {
        let mut waiting = self.waiting.lock();
        let waiting = &mut *waiting;
        let added = weight(key, &change);
        if let Some(before) = waiting.changes.remove(key) {
            waiting.bytes -= weight(key, &before);
        }
        self.any.store(true, Ordering::SeqCst);
        if waiting.bytes + added > most {
            waiting.empty(change.written);
            return false;
        }
        waiting.bytes += added;
        waiting.changes.insert(key.into(), change);
        true
    }

    /// The cache is to be emptied: what waits is of before.
    pub(super) fn purge(&self, epoch: u64) {
        self.waiting.lock().empty(epoch);
        self.any.store(true, Ordering::SeqCst);
    }

    /// A purge of answers waits; false: there was no room, and the cache is to be emptied instead.
    pub(super) fn add_answers(&self, member: &[u8], at: u64, most: u64) -> bool {
        let mut waiting = self.waiting.lock();
        let waiting = &mut *waiting;
        self.any.store(true, Ordering::SeqCst);
        if let Some(before) = waiting.answers.get_mut(member) {
            *before = at.max(*before);
            return true;
        }
        let added = OVERHEAD + member.len() as u64;
        if waiting.bytes + added > most {
            waiting.empty(at);
            return false;
        }
        waiting.bytes += added;
        waiting.answers.insert(member.into(), at);
        true
    }

    /// Some purges of answers that wait.
    pub(super) fn next_answers(&self, count: usize) -> Vec<(Box<[u8]>, u64)> {
        let waiting = self.waiting.lock();
        let all = waiting.answers.iter().take(count);
        all.map(|(member, at)| (member.clone(), *at)).collect()
    }

    /// Redis has this one, unless there was another since.
    pub(super) fn sent_answers(&self, member: &[u8], at: u64) {
        let mut waiting = self.waiting.lock();
        let waiting = &mut *waiting;
        if waiting.answers.get(member) == Some(&at) {
            waiting.answers.remove(member);
            waiting.bytes -= OVERHEAD + member.len() as u64;
        }
        self.settle(waiting);
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
        self.settle(waiting);
    }

    fn settle(&self, waiting: &Waiting) {
        if waiting.changes.is_empty() && waiting.answers.is_empty() && waiting.purge.is_none() {
            self.any.store(false, Ordering::SeqCst);
        }
    }

    /// How many wait.
    pub(super) fn count(&self) -> u64 {
        match self.any() {
            true => {
                let waiting = self.waiting.lock();
                (waiting.changes.len() + waiting.answers.len()) as u64
            }
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
        let pending = Pending::default();
        assert!(matches!(pending.believed(b"k"), Believed::Unknown));
        assert!(pending.add(b"k", gone(1), 10_000));
        let first = pending.next(10);
        assert!(pending.add(b"k", gone(2), 10_000));
        pending.sent(None, &first);
        assert!(matches!(pending.believed(b"k"), Believed::Absent));
        assert!(matches!(pending.believed(b"other"), Believed::Unknown));
        let second = pending.next(10);
        pending.sent(None, &second);
        assert!(!pending.any());
    }

    #[test]
    fn too_many_changes_become_an_emptying() {
        let pending = Pending::default();
        let kept = (0..100_u8)
            .take_while(|n| pending.add(&[*n], gone(1), 1000))
            .count();
        assert!((2..10).contains(&kept), "{kept}");
        assert!(matches!(pending.believed(b"other"), Believed::Absent));
        assert_eq!(pending.count(), 0);
        pending.sent(pending.next_purge(), &[]);
        assert!(!pending.any());
    }

    #[test]
    fn purges_of_answers_wait_within_the_same_bound() {
        let pending = Pending::default();
        assert!(pending.add_answers(b"tx", 1, 1000));
        let first = pending.next_answers(10);
        assert!(pending.add_answers(b"tx", 2, 1000));
        pending.sent_answers(&first[0].0, first[0].1);
        assert_eq!(pending.next_answers(10), [(b"tx"[..].into(), 2)]);
        assert!(matches!(pending.believed(b"k"), Believed::Unknown));
        let mut n = 0;
        while pending.add_answers(&[b't', n], 3, 1000) {
            n += 1;
        }
        assert!((2..10).contains(&n), "{n}");
        assert_eq!(pending.next_purge(), Some(3));
        assert_eq!(pending.next_answers(10), []);
        assert!(pending.any());
        pending.sent(pending.next_purge(), &[]);
        assert!(!pending.any());
    }
}
