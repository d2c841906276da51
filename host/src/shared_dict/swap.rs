//! Compare-and-swap, because two workers that read, decide and write must not undo each other.

use super::shard::{ENTRY_COST, Stored};
use super::{DictError, STORE_ATTEMPTS, SharedDict, Value, expiry};

impl SharedDict {
    /// Stores `new` if the live value equals `old`, under one hold of the lock; `Nil` is "nothing
    /// there", so a swap from it adds and a swap to it deletes. False when something else is there,
    /// which is then left as it is, its place in the order of use too.
    pub fn compare_and_swap(
        &self,
        key: &[u8],
        (old, new): (&Value, Value),
        (ttl, flags): (u64, u32),
        now: u64,
    ) -> Result<bool, DictError> {
        let (lane, hash) = self.lane(key)?;
        let stored = Stored::Plain(new);
        let cost = ENTRY_COST + key.len() + stored.cost();
        for _ in 0..STORE_ATTEMPTS {
            let mut held = lane.lock();
            let found = held.shard.find(hash, key);
            let live = found.filter(|&index| held.shard.is_live(index, now));
            let same = match live.map(|index| &held.shard.entry(index).stored) {
                Some(Stored::List(_)) => return Err(DictError::IsAList),
                Some(Stored::Plain(value)) => value == old,
                None => *old == Value::Nil,
            };
            if !same {
                return Ok(false);
            }
            if matches!(&stored, Stored::Plain(Value::Nil)) {
                let gone = live.map(|index| held.shard.remove(index));
                drop(held);
                self.release(gone.as_ref().map_or(0, super::shard::Entry::cost));
                self.waiters.changed(key);
                return Ok(true);
            }
            let former = found.map_or(0, |index| held.shard.entry(index).cost());
            if self.reserve(cost, former) {
                let (index, gone) = held.shard.place(found, (hash, key), stored, now);
                held.shard.entry_mut(index).flags = flags;
                held.shard.set_expiry(index, expiry(ttl, now));
                drop(held);
                drop(gone);
                self.waiters.changed(key);
                return Ok(true);
            }
            drop(held);
            self.make_room(cost.saturating_sub(former), key, false, now)?;
        }
        Err(self.refuse())
    }
}
