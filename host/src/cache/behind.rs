//! The levels behind memory, in the order in which they are asked, because what a process forgets when
//! it ends, or what another server has found already, need not be asked of the source again.
//!
//! A level is added as a field of [`Behind`]: opened in [`Behind::open`], asked in [`Behind::load`]
//! (nearest first), written in [`Behind::store`], [`Behind::change`] and [`Behind::purge`]. It keeps
//! four promises, from which those of the cache follow:
//!
//! - What fails in it is a miss with a line in the log, never an error, and takes a bounded time.
//! - For one key, `store` and `change` come one after the other (a [`Hold`](super::hold::Hold) sees to
//!   that); when one has returned, `load` gives nothing older. Between `load` and the promotion of what it
//!   gave a change may come: then the flight is lost, and nothing is promoted.
//! - After `purge(epoch)` has returned, `load` gives nothing of an older [`Entry::epoch`], after a restart
//!   neither. Epochs are milliseconds since 1970, so they grow over restarts. A level that knows purges
//!   another way (a generation in Redis) sets the entry's epoch to the one it is given.
//! - Entries keep their times: they are absolute, so a promoted value has what was left of its ttl. What is
//!   past its `keep` is not given.
//!
//! A future that is dropped halfway may have written or not.

use std::sync::Arc;

use tokio::time::Instant;

use super::disk::{Disk, Held, Slot};
use super::entry::{Entry, Level};
use super::purges::{Known, Record};
use super::remote::{self, Answer, Claim, Remote};
use super::store::Store;
use crate::config::model::{Cache as Config, DiskLevel};
use crate::time_cache;

/// The levels behind memory.
#[derive(Debug, Default)]
pub(super) struct Behind {
    on_disk: Option<OnDisk>,
    remote: Option<Arc<Remote>>,
    /// For the times of what is shared.
    store: Option<Arc<Store>>,
}

/// The level on disk, and how this configuration wants it.
#[derive(Debug)]
struct OnDisk {
    slot: Slot,
    level: DiskLevel,
    /// The longest value that memory takes.
    most: u64,
}

/// What a level behind said of a key when it was asked, to be shown to it when a value comes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    remote: Option<remote::Seen>,
}

/// What the level that servers share says of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Shared {
    /// Nothing: there is none, or it is away, or it was not asked.
    #[default]
    Unknown,
    /// There is no value.
    Absent,
    /// There is one.
    Found,
}

/// Another server asked the source, and took longer than the caller would wait.
#[derive(Debug)]
pub(super) struct TooLate;

/// What the levels behind have.
#[derive(Debug, Default)]
pub(super) struct Sought {
    /// A value, in time or past it.
    pub(super) found: Option<(Entry, Level)>,
    /// For [`Behind::store`].
    pub(super) seen: Seen,
    /// Whether what memory has can be what all servers have.
    pub(super) shared: Shared,
}

/// When a look-up began: what it finds is of then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Era {
    /// After which emptying.
    pub(super) epoch: u64,
    /// Since when changes of other servers are heard.
    pub(super) trust: u64,
}

impl Era {
    /// An entry that was found then.
    fn of(self, entry: &Entry) -> Entry {
        Entry {
            epoch: self.epoch,
            trust: self.trust,
            ..entry.clone()
        }
    }
}

/// The level on disk that is open.
#[derive(Clone, Copy)]
struct OpenDisk<'b> {
    disk: &'b Disk,
    level: &'b DiskLevel,
    most: u64,
}

impl OpenDisk<'_> {
    async fn load(&self, key: &[u8]) -> Option<Held> {
        self.disk.load(key, self.level.timeout, self.most).await
    }
}

impl Sought {
    /// Takes in what the level in Redis says.
    fn hear(&mut self, answer: Answer, era: Era) {
        match answer {
            Answer::Away => {}
            Answer::Absent(seen) => {
                self.seen.remote = seen;
                self.shared = Shared::Absent;
            }
            Answer::Found(entry, seen) => {
                self.seen.remote = seen;
                self.shared = Shared::Found;
                self.found = Some((era.of(&entry), Level::Remote));
            }
        }
    }
}

impl Behind {
    /// The levels that a configuration names; those of `before` that stay as they were go on.
    pub(super) fn open(
        config: &Config,
        store: &Arc<Store>,
        slot: Option<Slot>,
        before: Option<&Self>,
    ) -> Arc<Self> {
        let remote = config.l3.as_ref().map(|level| {
            let before = before.and_then(|before| before.remote.as_ref());
            match before {
                Some(remote) if remote.serves(level, store, slot.as_ref()) => remote.clone(),
                before => {
                    let before = before.map(|remote| &**remote);
                    Remote::new(config, level, (store, slot.clone()), before)
                }
            }
        });
        let on_disk = slot.zip(config.disk.clone()).map(|(slot, level)| {
            if let Some(disk) = slot.get() {
                store.common.purges.inherit(&disk.known);
            }
            OnDisk {
                slot,
                level,
                most: store.sizes().values,
            }
        });
        Arc::new(Self {
            on_disk,
            remote,
            store: Some(store.clone()),
        })
    }

    /// Whether its level on disk is this one.
    pub(super) fn is_on(&self, slot: Option<&Slot>) -> bool {
        self.on_disk.as_ref().map(|own| &own.slot) == slot
    }

    /// Whether what other servers change is heard by both in the same way.
    pub(super) fn hears_as(&self, other: &Self) -> bool {
        let remote = |behind: &Self| behind.remote.as_ref().map(Arc::as_ptr);
        remote(self) == remote(other)
    }

    fn disk(&self) -> Option<OpenDisk<'_>> {
        let OnDisk { slot, level, most } = self.on_disk.as_ref()?;
        let disk = slot.get()?;
        Some(OpenDisk {
            disk,
            level,
            most: *most,
        })
    }

    /// It takes the place of others behind a memory that has values: those of other servers are heard from
    /// now on, and none serves that was not compared.
    pub(super) fn follow(&self) {
        if let (Some(remote), Some(store)) = (&self.remote, &self.store) {
            store.distrust(false);
            remote.follow();
        }
    }

    /// Whether there is none: then nothing has to wait.
    pub(super) fn is_empty(&self) -> bool {
        self.remote.is_none() && self.on_disk.is_none()
    }

    /// Looks for a key, nearest level first. `skip`: its value is not wanted, only what
    /// [`store`](Self::store) has to know.
    pub(super) async fn load(&self, key: &[u8], era: Era, skip: bool) -> Sought {
        let mut sought = Sought::default();
        let turn = self.disk().map(|on| on.disk.turn());
        let held = match self.disk() {
            Some(on) if !skip => on.load(key).await,
            _ => None,
        };
        if let (Some(on), Some(found)) = (self.disk(), &held)
            && (self.remote.is_none() || on.disk.trusts(key, found, era.trust))
            && (self.remote.is_none() || found.entry.due > time_cache::clock_ms())
        {
            sought.found = Some((era.of(&found.entry), Level::Disk));
            return sought;
        }
        if let Some(remote) = &self.remote {
            sought.hear(remote.load(key, skip).await, era);
            if skip {
                // Its value was not asked for.
                sought.shared = Shared::Unknown;
                return sought;
            }
        }
        self.compare(key, held, &mut sought, (era, turn));
        sought
    }

    /// What is on disk may be older than what other servers have done since: it serves where Redis does
    /// not answer, or was emptied while this server listened. What Redis has goes to disk.
    fn compare(
        &self,
        key: &[u8],
        held: Option<Held>,
        sought: &mut Sought,
        (era, turn): (Era, Option<u64>),
    ) {
        let (Some(on), Some(turn)) = (self.disk(), turn) else {
            return;
        };
        match (sought.shared, &sought.found, held) {
            (Shared::Found, Some((entry, _)), _) => {
                on.disk.overtake_before(key, turn);
                on.disk.store(key, &Arc::new(entry.clone()), turn, on.level);
            }
            (Shared::Absent, _, Some(held)) => {
                let emptied = self.store.as_ref().is_some_and(|store| {
                    on.disk.is_own(&held) && store.emptied_since(held.entry.trust)
                });
                if emptied {
                    sought.found = Some((era.of(&held.entry), Level::Disk));
                } else {
                    on.disk.overtake_before(key, turn);
                }
            }
            (Shared::Unknown, None, Some(held)) => {
                sought.found = Some((era.of(&held.entry), Level::Disk));
            }
            _ => {}
        }
    }

    /// Whether one server at a time asks the source of a key.
    pub(super) fn claims(&self) -> bool {
        let remote = self.remote.as_ref();
        remote.is_some_and(|remote| remote.config.cluster)
    }

    /// Waits until this server may ask the source, and looks once more: another may have asked. `None`:
    /// each server is on its own now.
    pub(super) async fn claim(
        &self,
        key: &[u8],
        era: Era,
        deadline: Instant,
    ) -> Result<Option<(Claim, Sought)>, TooLate> {
        let Some(remote) = &self.remote else {
            return Ok(None);
        };
        let turn = self.disk().map(|on| on.disk.turn());
        let Some((claim, answer)) = remote.claim(key, deadline).await? else {
            return Ok(None);
        };
        let mut sought = Sought::default();
        sought.hear(answer, era);
        self.compare(key, None, &mut sought, (era, turn));
        Ok(Some((claim, sought)))
    }

    /// Writes what a flight brought to all levels. False: another server has changed the key since, and
    /// the value must not be kept.
    pub(super) async fn store(
        &self,
        key: &[u8],
        entry: &Arc<Entry>,
        seen: Seen,
        claim: Option<&Claim>,
    ) -> bool {
        // The turn is of before: what another server changes meanwhile comes after it.
        let turn = self.disk().map(|on| on.disk.overtake(key, false));
        let stored = match &self.remote {
            Some(remote) => remote.fill(key, entry, seen.remote, claim).await,
            None => true,
        };
        if let (Some(on), Some(turn), true) = (self.disk(), turn, stored) {
            on.disk.store(key, entry, turn, on.level);
        }
        stored
    }

    /// Changes a key in all levels.
    pub(super) async fn change(&self, key: &[u8], entry: Option<&Arc<Entry>>) {
        let turn = self.disk().map(|on| on.disk.overtake(key, true));
        if let Some(remote) = &self.remote {
            remote.change(key, entry).await;
        }
        let (Some(on), Some(turn)) = (self.disk(), turn) else {
            return;
        };
        match entry {
            Some(entry) => on.disk.store(key, entry, turn, on.level),
            None => on.disk.remove(key, turn, on.level),
        }
        on.disk.keep(on.level.timeout).await;
    }

    /// Keeps a purge of answers, and tells other servers; `known` are all with it.
    pub(super) async fn purge_answers(&self, record: Record<'_>, known: Arc<Known>) {
        if let Some(on) = self.disk() {
            on.disk.purge_answers(record, known).await;
        }
        if let Some(remote) = &self.remote {
            remote.purge_answers(record).await;
        }
    }

    /// Empties all levels of what is older than this epoch.
    pub(super) async fn purge(&self, epoch: u64) {
        if let Some(on) = self.disk() {
            on.disk.purge(epoch).await;
        }
        if let Some(remote) = &self.remote {
            remote.purge(epoch).await;
        }
    }

    /// What they hold now, by name.
    pub(super) fn filled(&self, all: &mut Vec<(&'static str, u64)>) {
        if let Some(on) = self.disk() {
            on.disk.counted(all);
        }
        if let Some(remote) = &self.remote {
            all.push(("l3_waiting", remote.waiting()));
        }
    }
}
