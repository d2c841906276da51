//! The lists of a shared dict, apart because they differ in every rule: they never evict, ignore
//! flags, and go when they are empty.

use super::shard::{ENTRY_COST, ITEM_COST, List, Stored};
use super::{DictError, STORE_ATTEMPTS, SharedDict, Side, Value};

impl SharedDict {
    /// `lpush`, `rpush`: gives the list's new length. Makes the list when there is none; as in
    /// OpenResty it never evicts live entries, and takes strings and numbers only.
    pub fn push(&self, side: Side, key: &[u8], value: Value, now: u64) -> Result<u32, DictError> {
        let (lane, hash) = self.lane(key)?;
        if !matches!(value, Value::Bytes(_) | Value::Number(_)) {
            return Err(DictError::BadValue);
        }
        let item_cost = ITEM_COST + value.cost();
        for _ in 0..STORE_ATTEMPTS {
            let mut held = lane.lock();
            let found = held.shard.find(hash, key);
            let live = found.filter(|&index| held.shard.is_live(index, now));
            let (cost, former) = if live.is_some() {
                (item_cost, 0)
            } else {
                let former = found.map_or(0, |index| held.shard.entry(index).cost());
                (ENTRY_COST + key.len() + item_cost, former)
            };
            if let Some(index) = live
                && !matches!(held.shard.entry(index).stored, Stored::List(_))
            {
                return Err(DictError::NotAList);
            }
            if !self.reserve(cost, former) {
                drop(held);
                self.make_room(cost.saturating_sub(former), key, true, now)?;
                continue;
            }
            let (index, old) = match live {
                Some(index) => (index, None),
                None => held.shard.place(
                    found,
                    (hash, key),
                    Stored::List(Box::<List>::default()),
                    now,
                ),
            };
            if live.is_none() {
                held.shard.entry_mut(index).flags = 0;
                held.shard.set_expiry(index, 0);
            }
            let length = match &mut held.shard.entry_mut(index).stored {
                Stored::List(list) => {
                    list.push(value, side == Side::Left);
                    list.len()
                }
                Stored::Plain(_) => return Err(DictError::NotAList),
            };
            held.shard.touch(index, now);
            drop(held);
            drop(old);
            self.waiters.changed(key);
            return Ok(u32::try_from(length).unwrap_or(u32::MAX));
        }
        Err(self.refuse())
    }

    /// `lpop`, `rpop`: `None` without a list.
    pub fn pop(&self, side: Side, key: &[u8], now: u64) -> Result<Option<Value>, DictError> {
        let (lane, hash) = self.lane(key)?;
        let mut held = lane.lock();
        let Some(index) = held.shard.find_live(hash, key, now) else {
            return Ok(None);
        };
        let before = held.shard.entry(index).cost();
        let Stored::List(list) = &mut held.shard.entry_mut(index).stored else {
            return Err(DictError::NotAList);
        };
        let value = list.pop(side == Side::Left);
        let freed = if list.len() == 0 {
            drop(held.shard.remove(index));
            before
        } else {
            let after = held.shard.entry(index).cost();
            held.shard.touch(index, now);
            before - after
        };
        drop(held);
        self.release(freed);
        self.waiters.changed(key);
        Ok(value)
    }

    /// `llen`: 0 without a list.
    pub fn list_len(&self, key: &[u8], now: u64) -> Result<u32, DictError> {
        let (lane, hash) = self.lane(key)?;
        let held = lane.lock();
        let Some(index) = held.shard.find_live(hash, key, now) else {
            return Ok(0);
        };
        match &held.shard.entry(index).stored {
            Stored::List(list) => Ok(u32::try_from(list.len()).unwrap_or(u32::MAX)),
            Stored::Plain(_) => Err(DictError::NotAList),
        }
    }
}
