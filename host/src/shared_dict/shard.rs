//! One shard of a shared dict, because a dict is only as fast as its locks are short: the entries,
//! the table that finds them and the list that orders them by use, all behind one mutex that the
//! dict holds. No accounting of bytes and no locking here.

use std::collections::VecDeque;

use bytes::Bytes;
use hashbrown::HashTable;
use slab::Slab;

use super::Value;

/// What one entry costs beside its key and its value: the slab's slot, the table's slot at its
/// usual load, and the allocator's two headers. Fixed, so that a dict of a given size holds the
/// same number of entries on every machine.
pub(super) const ENTRY_COST: usize = 160;
/// What one element of a list costs beside its bytes.
pub(super) const ITEM_COST: usize = 48;
const _: () = assert!(size_of::<Entry>() + 32 <= ENTRY_COST);

/// The end of the list of use; no slab is that large.
const NONE: usize = usize::MAX;

/// A list with its bytes counted, so that dropping one is not a walk.
#[derive(Debug, Default)]
pub(super) struct List {
    items: VecDeque<Value>,
    cost: usize,
}

#[derive(Debug)]
pub(super) enum Stored {
    /// Never `Nil`.
    Plain(Value),
    /// Boxed: lists are rare, and entries should stay small.
    List(Box<List>),
}

impl Value {
    pub(super) fn cost(&self) -> usize {
        match self {
            Self::Nil | Self::Boolean(_) | Self::Number(_) => 0,
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

impl List {
    pub(super) fn push(&mut self, item: Value, left: bool) {
        self.cost += ITEM_COST + item.cost();
        if left {
            self.items.push_front(item);
        } else {
            self.items.push_back(item);
        }
    }

    pub(super) fn pop(&mut self, left: bool) -> Option<Value> {
        let item = if left {
            self.items.pop_front()
        } else {
            self.items.pop_back()
        }?;
        self.cost -= ITEM_COST + item.cost();
        Some(item)
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }
}

impl Stored {
    pub(super) fn cost(&self) -> usize {
        match self {
            Self::Plain(value) => value.cost(),
            Self::List(list) => list.cost,
        }
    }
}

/// One entry; `expires` is 0 for ever.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Box<[u8]>,
    pub(super) stored: Stored,
    pub(super) expires: u64,
    pub(super) flags: u32,
    /// The shard's `generation` when this was stored: `flush_all` is a step of that number.
    generation: u32,
    hash: u64,
    used_at: u64,
    newer: usize,
    older: usize,
}

impl Entry {
    pub(super) fn cost(&self) -> usize {
        ENTRY_COST + self.key.len() + self.stored.cost()
    }
}

/// Where a sweep for expired entries stands, between two holds of the lock.
#[derive(Debug)]
pub(super) struct Sweep {
    position: usize,
    earliest: u64,
    stores: u64,
}

/// The entries of one shard.
#[derive(Debug)]
pub(super) struct Shard {
    entries: Slab<Entry>,
    table: HashTable<usize>,
    newest: usize,
    oldest: usize,
    generation: u32,
    cursor: usize,
    /// No entry expires before this moment: a sweep before it would find nothing.
    earliest: u64,
    /// How often an expiry was set, so that a sweep knows whether `earliest` is still its own.
    expiring_stores: u64,
}

impl Shard {
    pub(super) fn new() -> Self {
        Self {
            entries: Slab::new(),
            table: HashTable::new(),
            newest: NONE,
            oldest: NONE,
            generation: 0,
            cursor: 0,
            earliest: u64::MAX,
            expiring_stores: 0,
        }
    }

    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<usize> {
        let same = |&index: &usize| {
            self.entries
                .get(index)
                .is_some_and(|entry| *entry.key == *key)
        };
        self.table.find(hash, same).copied()
    }

    /// The entry if it is there and has not expired.
    pub(super) fn find_live(&self, hash: u64, key: &[u8], now: u64) -> Option<usize> {
        self.find(hash, key)
            .filter(|&index| self.is_live(index, now))
    }

    pub(super) fn entry(&self, index: usize) -> &Entry {
        &self.entries[index]
    }

    pub(super) fn entry_mut(&mut self, index: usize) -> &mut Entry {
        &mut self.entries[index]
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_live(&self, index: usize, now: u64) -> bool {
        live(&self.entries[index], self.generation, now)
    }

    /// When the entry that was not used for longest was last used; `u64::MAX` without entries.
    pub(super) fn oldest_use(&self) -> u64 {
        self.entries
            .get(self.oldest)
            .map_or(u64::MAX, |entry| entry.used_at)
    }

    fn insert(&mut self, hash: u64, key: &[u8], stored: Stored, now: u64) -> usize {
        let index = self.entries.insert(Entry {
            key: key.into(),
            stored,
            expires: 0,
            flags: 0,
            generation: self.generation,
            hash,
            used_at: now,
            newer: NONE,
            older: NONE,
        });
        let Self { entries, table, .. } = self;
        table.insert_unique(hash, index, |&other| entries[other].hash);
        self.link_newest(index);
        index
    }

    /// Stores over `found`, or as a new entry. Gives the old value back, so that it is freed when
    /// the lock is no longer held.
    pub(super) fn place(
        &mut self,
        found: Option<usize>,
        (hash, key): (u64, &[u8]),
        stored: Stored,
        now: u64,
    ) -> (usize, Option<Stored>) {
        let Some(index) = found else {
            return (self.insert(hash, key, stored, now), None);
        };
        let generation = self.generation;
        let entry = &mut self.entries[index];
        entry.generation = generation;
        let old = std::mem::replace(&mut entry.stored, stored);
        self.touch(index, now);
        (index, Some(old))
    }

    pub(super) fn set_expiry(&mut self, index: usize, expires: u64) {
        self.entries[index].expires = expires;
        if expires != 0 {
            self.earliest = self.earliest.min(expires);
            self.expiring_stores += 1;
        }
    }

    pub(super) fn remove(&mut self, index: usize) -> Entry {
        self.unlink(index);
        let entry = self.entries.remove(index);
        if let Ok(found) = self.table.find_entry(entry.hash, |&other| other == index) {
            found.remove();
        }
        entry
    }

    /// Marks an entry as the one used last.
    pub(super) fn touch(&mut self, index: usize, now: u64) {
        if self.newest != index {
            self.unlink(index);
            self.link_newest(index);
        }
        self.entries[index].used_at = now;
    }

    /// Expires everything that is stored now, in one step.
    pub(super) fn flush(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.earliest = 0;
    }

    /// Takes out an expired entry if one is among the next few slots, else the entry that was not
    /// used for longest, but never `keep`. True says that the entry was live.
    pub(super) fn evict(&mut self, keep: Option<usize>, now: u64) -> Option<(Entry, bool)> {
        /// A short look only: this runs under the lock, for each entry that must go.
        const LOOK: usize = 8;
        if self.earliest <= now {
            for _ in 0..LOOK.min(self.entries.len()) {
                self.cursor = if self.cursor + 1 < self.entries.capacity() {
                    self.cursor + 1
                } else {
                    0
                };
                let cursor = self.cursor;
                let expired = self.entries.contains(cursor) && !self.is_live(cursor, now);
                if expired && keep != Some(cursor) {
                    return Some((self.remove(cursor), false));
                }
            }
        }
        let mut victim = self.oldest;
        if Some(victim) == keep {
            victim = self.entries[victim].newer;
        }
        if victim == NONE {
            return None;
        }
        let was_live = self.is_live(victim, now);
        Some((self.remove(victim), was_live))
    }

    /// Begins a search of the whole shard, or `None` when nothing can have expired.
    pub(super) fn begin_sweep(&self, now: u64) -> Option<Sweep> {
        (self.earliest <= now).then_some(Sweep {
            position: 0,
            earliest: u64::MAX,
            stores: self.expiring_stores,
        })
    }

    /// Moves expired entries of the next slots to `out` until it holds `max`; true when the shard
    /// is done.
    pub(super) fn sweep(
        &mut self,
        sweep: &mut Sweep,
        max: usize,
        now: u64,
        out: &mut Vec<Entry>,
    ) -> bool {
        let end = (sweep.position + SLOTS_PER_HOLD).min(self.entries.capacity());
        while sweep.position < end {
            if out.len() >= max {
                return false;
            }
            let index = sweep.position;
            sweep.position += 1;
            let Some(entry) = self.entries.get(index) else {
                continue;
            };
            if live(entry, self.generation, now) {
                if entry.expires != 0 {
                    sweep.earliest = sweep.earliest.min(entry.expires);
                }
            } else {
                out.push(self.remove(index));
            }
        }
        let done = sweep.position >= self.entries.capacity();
        if done && sweep.stores == self.expiring_stores {
            self.earliest = sweep.earliest;
        }
        done
    }

    /// Copies live keys of the next slots to `out` until it holds `max`; gives where to go on.
    pub(super) fn keys_from(
        &self,
        start: usize,
        max: usize,
        now: u64,
        out: &mut Vec<Bytes>,
    ) -> Option<usize> {
        let end = (start + SLOTS_PER_HOLD).min(self.entries.capacity());
        for index in start..end {
            if out.len() >= max {
                return None;
            }
            if let Some(entry) = self.entries.get(index)
                && live(entry, self.generation, now)
            {
                out.push(Bytes::copy_from_slice(&entry.key));
            }
        }
        (end < self.entries.capacity()).then_some(end)
    }

    fn link_newest(&mut self, index: usize) {
        let former = self.newest;
        self.entries[index].older = former;
        self.entries[index].newer = NONE;
        match self.entries.get_mut(former) {
            Some(entry) => entry.newer = index,
            None => self.oldest = index,
        }
        self.newest = index;
    }

    fn unlink(&mut self, index: usize) {
        let Entry { newer, older, .. } = self.entries[index];
        match self.entries.get_mut(newer) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
        match self.entries.get_mut(older) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
    }
}

/// How many slots a walk over a shard looks at before it lets the lock go: some 20 µs.
const SLOTS_PER_HOLD: usize = 1024;

/// At its very millisecond an entry has expired, so that a `ttl` of 0 can only mean "for ever".
fn live(entry: &Entry, generation: u32, now: u64) -> bool {
    entry.generation == generation && (entry.expires == 0 || entry.expires > now)
}
