//! Time as the worker sees it.

use core::time::Duration;

use crate::bindings::phasor::plugin::time as host;

/// Since 1970, taken once per turn of the worker's loop (nginx's cached time).
#[must_use]
pub fn now() -> Duration {
    Duration::from_millis(host::now())
}

/// Takes the time anew and gives it.
#[must_use]
pub fn update() -> Duration {
    Duration::from_millis(host::update())
}

/// A clock that never goes back; only differences mean something.
#[must_use]
pub fn monotonic() -> Duration {
    Duration::from_nanos(host::monotonic())
}

/// Processor time that the worker's thread has used; only differences mean something.
#[must_use]
pub fn cpu() -> Duration {
    Duration::from_nanos(host::cpu())
}

/// The local time zone's offset from UTC in seconds, now.
#[must_use]
pub fn local_offset() -> i32 {
    host::local_offset()
}

/// Zero stays zero; what is shorter than a millisecond is one.
pub(crate) fn millis(time: Duration) -> u64 {
    let whole = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    whole.max(u64::from(!time.is_zero()))
}
