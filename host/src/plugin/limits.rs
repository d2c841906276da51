//! CPU time of a guest, sliced: wasmtime's epochs interrupt a busy guest every tick, so that the
//! worker's other requests run in between, and end it when its budget is gone.
//!
//! Only time in which the guest runs counts. Every poll of a call notes the tick at which it began;
//! the epoch callback and the end of the poll add what has passed since.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use wasmtime::{Store, UpdateDeadline};

use crate::api::HostState;

/// The length of a tick: a busy guest holds its worker that long. Shorter costs wake-ups of an idle
/// server, longer costs its neighbours' latency.
pub const TICK: Duration = Duration::from_millis(5);

/// Ticks since the process began.
static TICKS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The tick at which the guest that runs now was resumed.
    static RESUMED: Cell<u64> = const { Cell::new(0) };
    /// Ticks that the current call has used.
    static USED: Cell<u64> = const { Cell::new(0) };
    /// Ticks that the current call may use.
    static BUDGET: Cell<u64> = const { Cell::new(u64::MAX) };
}

/// Counts one tick; the ticker calls it just before it moves the engines' epoch.
pub fn tick() {
    TICKS.fetch_add(1, Ordering::Relaxed);
}

/// The ticks that have been counted.
#[must_use]
pub fn now() -> u64 {
    TICKS.load(Ordering::Relaxed)
}

/// A budget in ticks, rounded up, with one more: a call may begin at the very end of a tick.
#[must_use]
pub fn ticks(budget: Duration) -> u64 {
    let ticks = budget.as_nanos().div_ceil(TICK.as_nanos());
    u64::try_from(ticks).unwrap_or(u64::MAX).saturating_add(1)
}

/// What the callback traps with.
#[derive(Debug)]
pub struct BudgetGone;

impl std::fmt::Display for BudgetGone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the CPU budget is used up")
    }
}

impl std::error::Error for BudgetGone {}

/// Has a store's guest interrupted at every tick.
pub fn slice(store: &mut Store<HostState>) {
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|_| {
        let now = TICKS.load(Ordering::Relaxed);
        let ran = now.saturating_sub(RESUMED.get());
        if ran == 0 {
            // It has just been resumed: the tick passed while it waited.
            return Ok(UpdateDeadline::Continue(1));
        }
        RESUMED.set(now);
        USED.set(USED.get() + ran);
        if USED.get() > BUDGET.get() {
            return Err(wasmtime::Error::new(BudgetGone));
        }
        Ok(UpdateDeadline::Yield(1))
    });
}

/// A call with its CPU account.
pub struct Metered<F> {
    call: F,
    used: u64,
    budget: u64,
}

impl<F> Metered<F> {
    /// A call that may use `budget` ticks.
    pub fn new(call: F, budget: u64) -> Self {
        Self {
            call,
            used: 0,
            budget,
        }
    }
}

impl<F: Future + Unpin> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let outer = (RESUMED.get(), USED.get(), BUDGET.get());
        RESUMED.set(TICKS.load(Ordering::Relaxed));
        USED.set(self.used);
        BUDGET.set(self.budget);
        let result = Pin::new(&mut self.call).poll(cx);
        self.used = USED.get() + TICKS.load(Ordering::Relaxed).saturating_sub(RESUMED.get());
        RESUMED.set(outer.0);
        USED.set(outer.1);
        BUDGET.set(outer.2);
        result
    }
}
