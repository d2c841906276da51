//! Waiting for time to pass, and what outlives the request: timers, and jobs that go on in the instance.
#![expect(unsafe_code, reason = "one list, in a program without threads")]

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::cell::{Cell, RefCell};
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

type Job = Box<dyn FnOnce()>;

/// What is to run in this instance, by token.
struct Jobs {
    waiting: RefCell<BTreeMap<u64, Job>>,
    next: Cell<u64>,
}
// SAFETY: a component instance has one thread.
unsafe impl Sync for Jobs {}
static JOBS: Jobs = Jobs {
    waiting: RefCell::new(BTreeMap::new()),
    next: Cell::new(1 << 63),
};

/// Calls `job` in this instance as soon as the running handler has returned, without a request. The
/// instance serves nobody else until then, and a job lasts as long as a request may. The plugin has to
/// serve the phase `timer`, if only with an empty handler.
pub fn afterwards(job: impl FnOnce() + 'static) -> Result<(), TimerError> {
    let token = begin_afterwards()?;
    leave(token, Box::new(job));
    Ok(())
}

/// For what is made only if it can run; it has to be [left](leave) then.
pub(crate) fn begin_afterwards() -> Result<u64, TimerError> {
    let token = JOBS.next.get();
    JOBS.next.set(token + 1);
    host::start_here(token)?;
    Ok(token)
}

pub(crate) fn leave(token: u64, job: Job) {
    JOBS.waiting.borrow_mut().insert(token, job);
}

/// Whether the token is one of a job, which has run then.
pub(crate) fn run(token: u64) -> bool {
    let job = JOBS.waiting.borrow_mut().remove(&token);
    job.map(|job| job()).is_some()
}

/// What does not fit into 32 bits is 49 days: as good as for ever.
fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}
