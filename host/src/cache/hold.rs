//! A key is held while it changes in the levels behind memory, because a change there takes time, and
//! two at once could end in one order here and in the other there.
//!
//! Who holds a key is alone with it: the next change waits, and so does who misses it in memory. What
//! memory has serves until the change is over. A hold that is dropped halfway leaves nothing in memory,
//! for nobody knows what the levels behind have then.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::entry::{Entry, Stamp};
use super::flight::{Flying, Landing};
use super::store::{Place, Store};

/// The right to change a key.
#[derive(Debug)]
pub(super) struct Hold {
    store: Arc<Store>,
    key: Box<[u8]>,
    place: Place,
    id: u64,
    published: bool,
    over: bool,
}

/// How a change ended.
#[derive(Debug)]
pub(super) struct Done {
    /// Whether the value has room in memory.
    pub(super) fits: bool,
    /// For a copy in the guest; `None` where another node has changed the key meanwhile.
    pub(super) stamp: Option<Stamp>,
}

impl Hold {
    pub(super) fn new(store: &Arc<Store>, key: &[u8], place: Place, id: u64) -> Self {
        Self {
            store: store.clone(),
            key: key.into(),
            place,
            id,
            published: false,
            over: false,
        }
    }

    /// Takes a key, and its flight if there is one: what that brings was asked for before this change.
    ///
    /// # Errors
    /// Where another holds it: tells when to ask again.
    pub(super) fn take(store: &Arc<Store>, key: &[u8]) -> Result<Self, oneshot::Receiver<Landing>> {
        let place = store.place(key);
        let id = store.next_flight();
        let mut board = store.board(place);
        let flying = board
            .entry(key.into())
            .or_insert_with(|| Flying::new(id, store.epoch()));
        if flying.held {
            return Err(flying.wait());
        }
        flying.id = id;
        flying.held = true;
        drop(board);
        Ok(Self::new(store, key, place, id))
    }

    /// Gives the value to all before the levels behind have it.
    pub(super) fn publish(&mut self, entry: &Arc<Entry>) -> bool {
        let mut board = self.store.board(self.place);
        let flying = board
            .get_mut(&self.key)
            .filter(|flying| flying.id == self.id && !flying.overtaken);
        let Some(flying) = flying else {
            return true;
        };
        let fits = self.store.write(&self.key, entry.clone());
        self.store.changed(self.place.slot);
        let stamp = Some(self.store.stamp(self.place.slot));
        let waiters = flying.waiters();
        drop(board);
        self.published = true;
        waiters.land(|| landing(Some(entry), fits, stamp));
        fits
    }

    /// The levels behind have the change: now memory has it, too, and all are told.
    pub(super) fn finish(mut self, entry: Option<&Arc<Entry>>) -> Done {
        self.over = true;
        let mut board = self.store.board(self.place);
        let flying = self.leave(&mut board);
        let mine = flying.as_ref().is_some_and(|flying| !flying.overtaken);
        let fits = match (entry, self.published) {
            (Some(_), true) => true,
            (Some(entry), false) if mine => self.store.write(&self.key, entry.clone()),
            (Some(_), false) | (None, _) => {
                self.store.remove(&self.key);
                true
            }
        };
        if !(self.published && entry.is_some()) {
            self.store.changed(self.place.slot);
        }
        let stamp = mine.then(|| self.store.stamp(self.place.slot));
        drop(board);
        if let Some(flying) = flying {
            flying.land(|| match mine {
                true => landing(entry, fits, stamp),
                false => Landing::Again,
            });
        }
        Done { fits, stamp }
    }

    fn leave(&self, board: &mut super::store::Board) -> Option<Flying> {
        match board.get(&self.key) {
            Some(flying) if flying.id == self.id => board.remove(&self.key),
            _ => None,
        }
    }
}

fn landing(entry: Option<&Arc<Entry>>, fits: bool, stamp: Option<Stamp>) -> Landing {
    match entry {
        Some(entry) if fits => Landing::Stored(entry.clone(), stamp),
        Some(entry) => Landing::Passed(entry.value.clone()),
        None => Landing::Again,
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut board = self.store.board(self.place);
        if !self.published {
            self.store.remove(&self.key);
            self.store.changed(self.place.slot);
        }
        let flying = self.leave(&mut board);
        drop(board);
        if let Some(flying) = flying {
            flying.land(|| Landing::Again);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Hold, Landing, Store};
    use crate::cache::entry::{Entry, FOR_EVER};
    use crate::cache::maps::Sizes;

    fn sizes() -> Sizes {
        Sizes {
            values: 1 << 20,
            newest: 1 << 17,
            negatives: 1 << 17,
        }
    }

    fn entry(store: &Store) -> Arc<Entry> {
        Arc::new(Entry {
            value: None,
            until: FOR_EVER,
            due: FOR_EVER,
            ended: FOR_EVER,
            keep: FOR_EVER,
            epoch: store.epoch(),
            written: store.written(),
            trust: store.trust(),
        })
    }

    #[test]
    fn one_holds_a_key_and_the_next_hears_of_its_end() {
        let store = Arc::new(Store::new(sizes()));
        let hold = Hold::take(&store, b"k").unwrap();
        let mut next = Hold::take(&store, b"k").unwrap_err();
        assert!(Hold::take(&store, b"other").is_ok());
        assert!(next.try_recv().is_err());
        let entry = entry(&store);
        let done = hold.finish(Some(&entry));
        assert!(done.fits && done.stamp.is_some());
        assert!(matches!(next.try_recv(), Ok(Landing::Stored(..))));
        assert!(store.read(b"k").is_some());
        assert!(Hold::take(&store, b"k").is_ok());
    }

    #[test]
    fn a_hold_given_up_halfway_leaves_nothing() {
        let store = Arc::new(Store::new(sizes()));
        Hold::take(&store, b"k")
            .unwrap()
            .finish(Some(&entry(&store)));
        let before = store.stamp(store.place(b"k").slot);
        let hold = Hold::take(&store, b"k").unwrap();
        let mut next = Hold::take(&store, b"k").unwrap_err();
        drop(hold);
        assert!(store.read(b"k").is_none());
        assert_ne!(before, store.stamp(store.place(b"k").slot));
        assert!(matches!(next.try_recv(), Ok(Landing::Again)));
    }
}
