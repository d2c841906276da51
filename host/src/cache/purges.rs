//! Purges of many answers at once, by the beginning of their keys or by a tag: nobody looks for what
//! they hit. A purge is remembered with its moment, and an answer from before it is refused when it is
//! found. A look-up costs one number that all workers read, and nothing is locked until it changes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Cache;
use super::counters::Counter;
use crate::time_cache;

/// So many are remembered; of more, the older half becomes one purge of all that is older.
pub(super) const MOST: usize = 4096;

/// Copies of a thread; those of caches that are gone go with all others.
const COPIES_MOST: usize = 64;

/// What was purged, and when (milliseconds since the epoch).
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    all: u64,
    prefixes: Vec<(Box<[u8]>, u64)>,
    tags: HashMap<Box<[u8]>, u64>,
}

/// One purge with its moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record<'r> {
    /// All until then.
    All(u64),
    /// Keys that begin so.
    Prefix(&'r [u8], u64),
    /// Answers with this tag.
    Tag(&'r [u8], u64),
}

impl<'r> Record<'r> {
    /// One of a kind, as [`kind`](Self::kind) writes it.
    pub(super) fn new(kind: u8, text: &'r [u8], at: u64) -> Option<Self> {
        Some(match kind {
            b'a' => Self::All(at),
            b'p' => Self::Prefix(text, at),
            b't' => Self::Tag(text, at),
            _ => return None,
        })
    }

    /// The purge that a member of the record in Redis names.
    pub(super) fn of_member(member: &'r [u8], at: u64) -> Option<Self> {
        let (kind, text) = member.split_first()?;
        Self::new(*kind, text, at)
    }

    /// It without its moment: its kind, then its text.
    pub(super) fn member(self) -> Vec<u8> {
        [&[self.kind()][..], self.text()].concat()
    }

    /// Its kind as a byte.
    pub(super) fn kind(self) -> u8 {
        match self {
            Self::All(_) => b'a',
            Self::Prefix(..) => b'p',
            Self::Tag(..) => b't',
        }
    }

    /// What keys begin with, or the tag.
    pub(super) fn text(self) -> &'r [u8] {
        match self {
            Self::All(_) => &[],
            Self::Prefix(text, _) | Self::Tag(text, _) => text,
        }
    }

    /// Its moment.
    pub(super) fn at(self) -> u64 {
        match self {
            Self::All(at) | Self::Prefix(_, at) | Self::Tag(_, at) => at,
        }
    }

    /// Clocks differ: what this server asked for before it hears of a purge was asked for before it.
    pub(super) fn heard(self, now: u64) -> Self {
        match self {
            Self::All(at) => Self::All(at),
            Self::Prefix(text, at) => Self::Prefix(text, at.max(now)),
            Self::Tag(text, at) => Self::Tag(text, at.max(now)),
        }
    }
}

impl Known {
    /// Takes one in.
    pub(super) fn add(&mut self, record: Record<'_>) {
        match record {
            Record::All(at) => self.all = self.all.max(at),
            Record::Prefix(prefix, at) => {
                if self.has(record) {
                    return;
                }
                // A longer one is a part of this, unless it is newer: another server's may come late.
                self.prefixes
                    .retain(|(own, then)| *then > at || !own.starts_with(prefix));
                self.prefixes.push((prefix.into(), at));
            }
            Record::Tag(tag, at) => {
                let own = self.tags.entry(tag.into()).or_default();
                *own = at.max(*own);
            }
        }
        self.shorten();
    }

    /// Whether all that this one hits is hit already.
    pub(super) fn has(&self, record: Record<'_>) -> bool {
        match record {
            Record::All(at) => self.all >= at,
            Record::Prefix(prefix, at) => {
                let part = |(own, then): &(Box<[u8]>, u64)| *then >= at && prefix.starts_with(own);
                self.all >= at || self.prefixes.iter().any(part)
            }
            Record::Tag(tag, at) => {
                self.all >= at || self.tags.get(tag).is_some_and(|then| *then >= at)
            }
        }
    }

    /// All that are remembered.
    pub(super) fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let all = (self.all > 0).then_some(Record::All(self.all));
        let prefixes = self.prefixes.iter();
        let prefixes = prefixes.map(|(prefix, at)| Record::Prefix(prefix, *at));
        let tags = self.tags.iter().map(|(tag, at)| Record::Tag(tag, *at));
        all.into_iter().chain(prefixes).chain(tags)
    }

    /// Forgets the older half.
    fn shorten(&mut self) {
        if self.prefixes.len() + self.tags.len() <= MOST {
            return;
        }
        let of_tags = self.tags.values();
        let mut times: Vec<u64> = self.prefixes.iter().map(|(_, at)| *at).collect();
        times.extend(of_tags);
        times.sort_unstable();
        let until = times[times.len() / 2];
        self.all = self.all.max(until);
        self.prefixes.retain(|(_, at)| *at > until);
        self.tags.retain(|_, at| *at > until);
    }
}

/// The purges of one cache.
#[derive(Debug)]
pub(super) struct Purges {
    /// Tells this cache's purges from others' in a thread's copies.
    id: u64,
    version: AtomicU64,
    known: Mutex<Arc<Known>>,
}

impl Default for Purges {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            version: AtomicU64::new(0),
            known: Mutex::default(),
        }
    }
}

/// A thread's copy: of which cache, of which version.
type Copy = (u64, u64, Arc<Known>);

thread_local!(static COPIES: RefCell<Vec<Copy>> = const { RefCell::new(Vec::new()) });

/// What an answer is purged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purge<'p> {
    /// Keys that begin so.
    Prefix(&'p [u8]),
    /// Answers with this tag.
    Tag(&'p [u8]),
}

impl Cache {
    /// From now on answers from before do not serve that this hits, after a restart neither; gives the
    /// moment, in milliseconds, up to which an answer was asked for before.
    pub async fn purge_answers(&self, purge: Purge<'_>) -> u64 {
        let now = time_cache::clock_ms();
        let known = self.store.common.purges.add(purge.record(now));
        self.store.counters.count(Counter::Purges);
        self.behind.purge_answers(purge.record(now), known).await;
        now
    }

    /// Whether an answer under this key and with these tags, asked for then, has been purged since.
    #[must_use]
    pub fn is_purged<'t>(
        &self,
        key: &[u8],
        tags: impl Iterator<Item = &'t [u8]>,
        begun: u64,
    ) -> bool {
        self.store.common.purges.hit(key, tags, begun)
    }
}

impl<'p> Purge<'p> {
    fn record(self, at: u64) -> Record<'p> {
        match self {
            Self::Prefix(prefix) => Record::Prefix(prefix, at),
            Self::Tag(tag) => Record::Tag(tag, at),
        }
    }
}

impl Purges {
    /// Takes one in; gives all there are with it.
    pub(super) fn add(&self, record: Record<'_>) -> Arc<Known> {
        let mut known = self.known.lock();
        let mut next = Known::clone(&known);
        next.add(record);
        let next = Arc::new(next);
        *known = next.clone();
        self.version.fetch_add(1, Ordering::SeqCst);
        next
    }

    /// Takes in those of elsewhere: of a file, of what this comes after, of other servers. Gives all there
    /// are with them.
    pub(super) fn inherit(&self, before: &Known) -> Arc<Known> {
        let mut known = self.known.lock();
        let mut next = Known::clone(&known);
        for record in before.records() {
            next.add(record);
        }
        let next = Arc::new(next);
        *known = next.clone();
        self.version.fetch_add(1, Ordering::SeqCst);
        next
    }

    /// All there are.
    pub(super) fn known(&self) -> Arc<Known> {
        self.known.lock().clone()
    }

    /// Whether an answer that was asked for then has been purged since.
    pub(super) fn hit<'t>(
        &self,
        key: &[u8],
        mut tags: impl Iterator<Item = &'t [u8]>,
        begun: u64,
    ) -> bool {
        let version = self.version.load(Ordering::SeqCst);
        if version == 0 {
            return false;
        }
        COPIES.with_borrow_mut(|copies| {
            let place = match copies.iter().position(|(id, ..)| *id == self.id) {
                Some(place) => place,
                None => {
                    if copies.len() >= COPIES_MOST {
                        copies.clear();
                    }
                    copies.push((self.id, 0, Arc::default()));
                    copies.len() - 1
                }
            };
            let (_, own, known) = &mut copies[place];
            if *own != version {
                *known = self.known.lock().clone();
                *own = version;
            }
            let late = |at: &u64| begun <= *at;
            late(&known.all)
                || known
                    .prefixes
                    .iter()
                    .any(|(prefix, at)| late(at) && key.starts_with(prefix))
                || tags.any(|tag| known.tags.get(tag).is_some_and(late))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST, Purges, Record};

    fn hit(purges: &Purges, key: &str, tags: &[&str], begun: u64) -> bool {
        purges.hit(key.as_bytes(), tags.iter().map(|tag| tag.as_bytes()), begun)
    }

    #[test]
    fn what_is_older_is_hit() {
        let purges = Purges::default();
        assert!(!hit(&purges, "/a/b", &["x"], 0));
        purges.add(Record::Prefix(b"/a/", 10));
        purges.add(Record::Tag(b"x", 20));
        for (key, tags, begun, expected) in [
            ("/a/b", &[][..], 10, true),
            ("/a/b", &[], 11, false),
            ("/b", &[], 1, false),
            ("/b", &["y", "x"], 20, true),
            ("/b", &["y"], 20, false),
            ("/b", &["x"], 21, false),
        ] {
            assert_eq!(hit(&purges, key, tags, begun), expected, "{key} {begun}");
        }
        let other = Purges::default();
        assert!(!hit(&other, "/a/b", &["x"], 0));
    }

    #[test]
    fn one_that_comes_late_takes_nothing_back() {
        let purges = Purges::default();
        for record in [
            Record::Prefix(b"/a/b", 20),
            Record::Prefix(b"/a/", 10),
            Record::Prefix(b"/a/b/c", 15),
            Record::Tag(b"x", 20),
            Record::Tag(b"x", 10),
        ] {
            purges.add(record);
        }
        assert!(hit(&purges, "/a/b", &[], 20));
        assert!(hit(&purges, "/a/c", &[], 10));
        assert!(!hit(&purges, "/a/c", &[], 11));
        assert!(hit(&purges, "/", &["x"], 20));
        assert_eq!(purges.known().prefixes.len(), 2);
    }

    #[test]
    fn there_is_a_bound_and_nothing_purged_comes_back() {
        let purges = Purges::default();
        for at in 0..MOST as u64 * 2 {
            purges.add(Record::Tag(at.to_string().as_bytes(), at + 1));
        }
        let known = purges.known.lock().clone();
        assert!(known.tags.len() <= MOST);
        for at in [0, 17, MOST as u64 * 2 - 1] {
            assert!(hit(&purges, "/", &[&at.to_string()], at + 1), "{at}");
        }
        assert!(!hit(&purges, "/", &["other"], MOST as u64 * 2 + 1));
    }
}
