//! Waiting for time to pass, and timers that outlive the request.

use core::time::Duration;

use crate::bindings::phasor::plugin::timers as host;
use crate::operation::Operation;

pub use host::TimerError;

/// Suspends the handler. `Duration::ZERO` lets others run first.
pub fn sleep(delay: Duration) {
    host::sleep(milliseconds(delay));
}

/// `sleep`, begun only: the operation is ready when the time has passed.
#[must_use]
pub fn begin_sleep(delay: Duration) -> Operation {
    Operation(host::begin_sleep(milliseconds(delay)))
}

/// Ends a `begin_sleep`; waits if it is not ready.
pub fn end_sleep(operation: Operation) {
    host::end_sleep(operation.0);
}

/// A timer that was started.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TimerId(u64);

/// Calls the plugin's `timer` handler once, after `delay`; `token` tells it which timer fired.
pub fn after(delay: Duration, token: u64) -> Result<TimerId, TimerError> {
    host::start(milliseconds(delay), 0, token).map(TimerId)
}

/// Calls the plugin's `timer` handler after each `period`, of one millisecond at least.
pub fn every(period: Duration, token: u64) -> Result<TimerId, TimerError> {
    let period = milliseconds(period).max(1);
    host::start(period, period, token).map(TimerId)
}

/// Ends a timer; false when it is gone already.
pub fn cancel(timer: TimerId) -> bool {
    host::cancel(timer.0)
}

/// What does not fit into 32 bits is 49 days: as good as for ever.
fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}
