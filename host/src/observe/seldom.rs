//! Lines of the log that could come as often as requests, and must not.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::time_cache;

/// Milliseconds between two lines.
const QUIET: u64 = 1000;

/// Lets one line a second through.
#[derive(Debug, Default)]
pub struct Seldom(AtomicU64);

impl Seldom {
    /// Whether a line may be written now.
    pub fn may_speak(&self) -> bool {
        let now = time_cache::clock_ms();
        let before = self.0.load(Ordering::Relaxed);
        now >= before.saturating_add(QUIET)
            && self
                .0
                .compare_exchange(before, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}
