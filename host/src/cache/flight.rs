//! The flight of a key: one caller brings the value, the others wait in line for what it brings.
//!
//! Whoever has the [`Ticket`] has the flight. Dropping it (a trap, a client that left) hands it to the
//! next in line; when its lease is over, the next who asks takes it away, and the late value is refused.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::behind::Seen;
use super::entry::{CacheError, Entry, Options, Stamp};
use super::hold::Hold;
use super::remote::Claim;
use super::store::{Board, Place, Store};

/// What a waiter gets.
#[derive(Debug)]
pub(super) enum Landing {
    /// A value was stored, with the stamp that its copies have had since.
    Stored(Arc<Entry>, Option<Stamp>),
    /// A value that is not kept.
    Passed(Option<Bytes>),
    /// The source failed.
    Failed(Arc<str>),
    /// The flight is the waiter's now. Boxed: the others are a fraction of its size, and each waiter has
    /// room for one.
    Turn(Box<Ticket>),
    /// The key was taken away: ask again.
    Again,
}

/// A flight on the board.
#[derive(Debug)]
pub(super) struct Flying {
    pub(super) id: u64,
    epoch: u64,
    since: Instant,
    /// The key is being changed in the levels behind: nobody takes this away but who does that.
    pub(super) held: bool,
    /// While it was held, another node changed the key, too.
    pub(super) overtaken: bool,
    waiters: VecDeque<oneshot::Sender<Landing>>,
}

impl Flying {
    pub(super) fn new(id: u64, epoch: u64) -> Self {
        Self {
            id,
            epoch,
            since: Instant::now(),
            held: false,
            overtaken: false,
            waiters: VecDeque::new(),
        }
    }

    /// Until when nobody else may take it; `None` is as long as it takes.
    pub(super) fn lease(&self, lease: Duration) -> Option<Instant> {
        (!self.held).then(|| self.since + lease)
    }

    /// Whether it began before the cache was emptied, and so would bring what was emptied.
    pub(super) fn is_late(&self, epoch: u64) -> bool {
        !self.held && self.epoch != epoch
    }

    pub(super) fn wait(&mut self) -> oneshot::Receiver<Landing> {
        let (sender, receiver) = oneshot::channel();
        self.waiters.push_back(sender);
        receiver
    }

    /// Those who wait, to be told when the board's lock is not held any more.
    pub(super) fn waiters(&mut self) -> Waiters {
        Waiters(std::mem::take(&mut self.waiters))
    }

    /// Tells all who wait; the board's lock is not held.
    pub(super) fn land(mut self, landing: impl Fn() -> Landing) {
        self.waiters().land(landing);
    }
}

/// Those who waited.
#[must_use]
pub(super) struct Waiters(VecDeque<oneshot::Sender<Landing>>);

impl Waiters {
    pub(super) fn land(self, landing: impl Fn() -> Landing) {
        for waiter in self.0 {
            // Whoever has left needs nothing.
            let _heard = waiter.send(landing()).is_ok();
        }
    }
}

/// The right to bring a value.
#[derive(Debug)]
pub struct Ticket {
    pub(super) store: Arc<Store>,
    pub(super) key: Box<[u8]>,
    pub(super) place: Place,
    /// What its caller wants.
    pub(super) options: Options,
    /// What is there still.
    pub(super) old: Option<Arc<Entry>>,
    /// When it began.
    pub(super) since: Instant,
    /// What the levels behind said when they were asked.
    pub(super) seen: Seen,
    /// The right to ask the source, where one server at a time has it.
    pub(super) claim: Option<Claim>,
    id: u64,
    over: bool,
}

impl Ticket {
    /// A new flight on the board; one whose lease is over goes on under another number, with those
    /// who wait.
    pub(super) fn issue(
        store: &Arc<Store>,
        board: &mut Board,
        key: &[u8],
        place: Place,
        old: Option<Arc<Entry>>,
    ) -> Self {
        let id = store.next_flight();
        let (since, epoch) = (Instant::now(), store.epoch());
        let flying = board
            .entry(key.into())
            .or_insert_with(|| Flying::new(id, epoch));
        flying.id = id;
        flying.since = since;
        flying.waiters.retain(|waiter| !waiter.is_closed());
        Self {
            store: store.clone(),
            key: key.into(),
            place,
            options: Options::default(),
            old,
            since,
            seen: Seen::default(),
            claim: None,
            id,
            over: false,
        }
    }

    fn is_mine(&self, board: &Board) -> bool {
        board.get(&self.key).is_some_and(|flying| {
            flying.id == self.id && !flying.is_late(self.store.epoch()) && !self.over
        })
    }

    /// Holds the key while the value goes to the levels behind, if the flight is this ticket's still.
    pub(super) fn hold(&mut self) -> Result<Hold, CacheError> {
        let mut board = self.store.board(self.place);
        if !self.is_mine(&board) {
            drop(board);
            self.give_up();
            return Err(CacheError::Lost);
        }
        if let Some(flying) = board.get_mut(&self.key) {
            flying.held = true;
        }
        drop(board);
        self.over = true;
        Ok(Hold::new(&self.store, &self.key, self.place, self.id))
    }

    /// What memory has is not what all servers have.
    pub(super) fn forget_old(&mut self) {
        self.old = None;
        let board = self.store.board(self.place);
        if self.is_mine(&board) {
            self.store.remove(&self.key);
            self.store.changed(self.place.slot);
        }
    }

    /// What the levels behind had is past its time, and serves those who may have that.
    pub(super) fn found_old(&mut self, entry: &Arc<Entry>, serves: bool) {
        let mut board = self.store.board(self.place);
        if !self.is_mine(&board) {
            return;
        }
        self.store.write(&self.key, entry.clone());
        self.store.changed(self.place.slot);
        self.old = Some(entry.clone());
        let waiters = match board.get_mut(&self.key) {
            Some(flying) if serves => Some(flying.waiters()),
            _ => None,
        };
        drop(board);
        if let Some(waiters) = waiters {
            waiters.land(|| Landing::Again);
        }
    }

    /// Ends the flight: `store` runs under the key's lock if the flight is this ticket's still, and
    /// says what those who wait get.
    pub(super) fn end<T>(
        &mut self,
        store: impl FnOnce(&Store) -> T,
        landing: impl Fn(&T) -> Landing,
    ) -> Result<T, CacheError> {
        let mut board = self.store.board(self.place);
        if !self.is_mine(&board) {
            drop(board);
            // Those who wait on it since before a purge ask again.
            self.give_up();
            return Err(CacheError::Lost);
        }
        let flying = board.remove(&self.key);
        let done = store(&self.store);
        drop(board);
        self.over = true;
        self.claim = None;
        if let Some(flying) = flying {
            flying.land(|| landing(&done));
        }
        Ok(done)
    }

    /// Begins the lease anew.
    pub(super) fn renew(&mut self) -> bool {
        let mut board = self.store.board(self.place);
        let mine = self.is_mine(&board);
        if mine && let Some(flying) = board.get_mut(&self.key) {
            flying.since = Instant::now();
        }
        mine
    }

    fn give_up(&mut self) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        let mut board = self.store.board(self.place);
        let Some(flying) = board.get_mut(&self.key) else {
            return;
        };
        if flying.id != self.id {
            return;
        }
        let next = loop {
            match flying.waiters.pop_front() {
                Some(waiter) if waiter.is_closed() => {}
                next => break next,
            }
        };
        match next {
            None => {
                board.remove(&self.key);
            }
            Some(next) => {
                flying.epoch = self.store.epoch();
                let old = self.old.take();
                let ticket = Self::issue(&self.store, &mut board, &self.key, self.place, old);
                drop(board);
                // Who left just now drops it, and so hands it on.
                let _heard = next.send(Landing::Turn(Box::new(ticket))).is_ok();
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.give_up();
    }
}
