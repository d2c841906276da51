//! Several things at once: what a `begin_` function returns, and how to wait for any of them.

use alloc::vec::Vec;

use crate::bindings::phasor::plugin::operation as host;

/// Something that takes time. Dropping it cancels it; the `end_` function that belongs to its
/// `begin_` takes its result.
#[derive(Debug)]
pub struct Operation(pub(crate) host::Operation);

impl Operation {
    /// Whether its `end_` function would return at once.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.0.ready()
    }
}

/// Suspends until at least one is ready; gives the positions of those that are. With no operation
/// at all there is nothing to wait for, and the answer is empty.
#[must_use]
pub fn wait_any(operations: &[&Operation]) -> Vec<usize> {
    if operations.is_empty() {
        return Vec::new();
    }
    let operations: Vec<_> = operations.iter().map(|operation| &operation.0).collect();
    let ready = host::wait_any(&operations);
    ready.into_iter().map(|place| place as usize).collect()
}

/// Suspends until all are ready.
pub fn join(operations: &[&Operation]) {
    let mut pending: Vec<&Operation> = operations.to_vec();
    while !pending.is_empty() {
        let ready = wait_any(&pending);
        for place in ready.into_iter().rev() {
            pending.remove(place);
        }
    }
}

/// Suspends until one is ready, and gives the first position of those that are; `None` when
/// there is no operation at all.
#[must_use]
pub fn select(operations: &[&Operation]) -> Option<usize> {
    wait_any(operations).first().copied()
}
