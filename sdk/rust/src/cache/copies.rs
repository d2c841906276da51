//! The values that an instance has decoded, with the stamps by which the host knows whether they are fresh.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;

use crate::bindings::phasor::plugin::cache as host;

pub(super) struct Kept<T> {
    hash: u32,
    key: Box<[u8]>,
    pub(super) value: Option<Rc<T>>,
    pub(super) stamp: host::Stamp,
    used: Cell<u32>,
}

/// Places for a key: small enough to be looked through.
const WAYS: usize = 4;

/// Decoded values: a table of small groups; in a full group the one used longest ago goes.
pub(super) struct Copies<T> {
    groups: Vec<Vec<Kept<T>>>,
    clock: Cell<u32>,
}

/// FNV-1a: short keys, no table.
fn hash(key: &[u8]) -> u32 {
    key.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

impl<T> Copies<T> {
    pub(super) fn new(items: u32) -> Self {
        let groups = (items as usize).div_ceil(WAYS);
        Self {
            groups: (0..groups).map(|_| Vec::new()).collect(),
            clock: Cell::new(0),
        }
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<&Kept<T>> {
        let hash = hash(key);
        let group = self.groups.get(hash as usize % self.groups.len().max(1))?;
        let kept = group
            .iter()
            .find(|kept| kept.hash == hash && *kept.key == *key)?;
        let now = self.clock.get().wrapping_add(1);
        self.clock.set(now);
        kept.used.set(now);
        Some(kept)
    }

    pub(super) fn forget(&mut self, key: &[u8]) {
        let count = self.groups.len().max(1);
        if let Some(group) = self.groups.get_mut(hash(key) as usize % count) {
            group.retain(|kept| *kept.key != *key);
        }
    }

    pub(super) fn keep(&mut self, key: &[u8], value: Option<Rc<T>>, stamp: host::Stamp) {
        self.forget(key);
        if stamp.until == 0 {
            return;
        }
        let (hash, now) = (hash(key), self.clock.get());
        let count = self.groups.len().max(1);
        let Some(group) = self.groups.get_mut(hash as usize % count) else {
            return;
        };
        if group.len() == WAYS {
            let age = |kept: &Kept<T>| now.wrapping_sub(kept.used.get());
            let oldest = (0..WAYS).max_by_key(|at| age(&group[*at]));
            group.swap_remove(oldest.unwrap_or(0));
        }
        group.push(Kept {
            hash,
            key: key.into(),
            value,
            stamp,
            used: Cell::new(now),
        });
    }
}
