//! The bytes of a shared dict, because room is the one thing that all its shards have in common:
//! reserving, giving back, and whose entries go when there is none.

use std::sync::atomic::Ordering;

use super::shard::Entry;
use super::{DictError, EVICTIONS_PER_HOLD, Lane, Mode, SharedDict};

/// What [`SharedDict::evict`] did.
struct Evicted {
    /// Live entries were among them.
    live: bool,
    /// There was nothing that could go.
    none: bool,
}

impl SharedDict {
    /// Takes `cost` bytes and gives back `former`, in one step; false when that does not fit.
    pub(super) fn reserve(&self, cost: usize, former: usize) -> bool {
        let capacity = self.capacity();
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                let after = used.saturating_sub(former).saturating_add(cost);
                // What shrinks is always let in: the dict may have been resized below its contents.
                (after <= capacity || cost <= former).then_some(after)
            })
            .is_ok()
    }

    pub(super) fn release(&self, cost: usize) {
        if cost != 0 {
            self.used.fetch_sub(cost, Ordering::Relaxed);
        }
    }

    pub(super) fn refuse(&self) -> DictError {
        self.no_memory.fetch_add(1, Ordering::Relaxed);
        DictError::NoMemory
    }

    /// A value that cannot be stored takes the former one with it, as in OpenResty: nobody reads what
    /// its writer meant to replace. What `add` finds is another's, or has expired.
    pub(super) fn forget<T>(
        &self,
        key: &[u8],
        mode: Mode,
        error: DictError,
    ) -> Result<T, DictError> {
        match mode {
            Mode::Set | Mode::SafeSet | Mode::Replace => self.delete(key)?,
            Mode::Add | Mode::SafeAdd => {}
        }
        Err(error)
    }

    fn has_room(&self, need: usize) -> bool {
        self.used.load(Ordering::Relaxed).saturating_add(need) <= self.capacity()
    }

    /// Frees entries until `need` bytes fit: only expired ones when `safe`, else those that were not
    /// used for longest, but never that of `keep`. True when live ones
    /// went. Called without any lock.
    pub(super) fn make_room(
        &self,
        need: usize,
        keep: &[u8],
        safe: bool,
        now: u64,
    ) -> Result<bool, DictError> {
        if need > self.capacity() {
            return Err(self.refuse());
        }
        if safe {
            for lane in &self.lanes {
                if self.has_room(need) {
                    break;
                }
                self.sweep(lane, usize::MAX, now);
            }
            return if self.has_room(need) {
                Ok(false)
            } else {
                Err(self.refuse())
            };
        }
        let kept = self.lane(keep)?;
        let mut forcible = false;
        let mut without_victim: Option<&Lane> = None;
        while !self.has_room(need) {
            let oldest = |lane: &&Lane| lane.oldest_use.load(Ordering::Relaxed);
            let others = self
                .lanes
                .iter()
                .filter(|lane| without_victim.is_none_or(|bare| !std::ptr::eq(bare, *lane)));
            let Some((lane, next)) = two_oldest(others.map(|lane| (lane, oldest(&lane)))) else {
                return Err(self.refuse());
            };
            let keep = std::ptr::eq(lane, kept.0).then_some((kept.1, keep));
            let evicted = self.evict(lane, (need, next), keep, now);
            forcible |= evicted.live;
            if evicted.none {
                // Only the kept entry is in there, or another thread emptied it meanwhile.
                without_victim = keep.map(|_| lane);
            }
        }
        Ok(forcible)
    }

    /// Evicts from one shard until `need` fits or what is left was used after `next`, the oldest use
    /// in any other; at most a hold's worth.
    fn evict(
        &self,
        lane: &Lane,
        (need, next): (usize, u64),
        keep: Option<(u64, &[u8])>,
        now: u64,
    ) -> Evicted {
        let mut live = false;
        let mut gone = Vec::new();
        let mut held = lane.lock();
        let keep = keep.and_then(|(hash, key)| held.shard.find(hash, key));
        while gone.len() < EVICTIONS_PER_HOLD && !self.has_room(need) {
            let Some((entry, was_live)) = held.shard.evict(keep, now) else {
                break;
            };
            self.release(entry.cost());
            if was_live {
                live = true;
                lane.evictions.fetch_add(1, Ordering::Relaxed);
            }
            gone.push(entry);
            if held.shard.oldest_use() > next {
                break;
            }
        }
        drop(held);
        for entry in &gone {
            self.waiters.changed(&entry.key);
        }
        Evicted {
            live,
            none: gone.is_empty() && !self.has_room(need),
        }
    }

    /// Frees at most `max` expired entries of one shard, letting the lock go between pieces.
    pub(super) fn sweep(&self, lane: &Lane, max: usize, now: u64) -> usize {
        let Some(mut sweep) = lane.lock().shard.begin_sweep(now) else {
            return 0;
        };
        let mut freed = 0;
        loop {
            let mut gone = Vec::new();
            let done = lane
                .lock()
                .shard
                .sweep(&mut sweep, max - freed, now, &mut gone);
            self.release(gone.iter().map(Entry::cost).sum());
            freed += gone.len();
            if done || freed >= max {
                return freed;
            }
        }
    }
}

/// The lane with the oldest entry, and how old the next lane's is; `None` when all are empty.
fn two_oldest<'a>(lanes: impl Iterator<Item = (&'a Lane, u64)>) -> Option<(&'a Lane, u64)> {
    let mut found: Option<(&Lane, u64)> = None;
    let mut next = u64::MAX;
    for (lane, used) in lanes {
        match found {
            Some((_, oldest)) if used >= oldest => next = next.min(used),
            _ => next = found.replace((lane, used)).map_or(next, |(_, used)| used),
        }
    }
    let (lane, oldest) = found?;
    (oldest != u64::MAX).then_some((lane, next))
}
