//! CPU time of a guest, sliced: wasmtime's epochs interrupt a busy guest every tick, so that the
//! worker's other requests run in between, and end it when its budget is gone.
//!
//! Only time in which the guest runs counts, and only processor time: on a busy machine a call does
//! not pay for its neighbours. The clock costs a system call, so that a poll of a call begins to count
//! at its first tick: what ends before the next tick is not counted.
//!
//! A connection that has left HTTP may live for days: there the budget is for what its handler does
//! between two waits.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use wasmtime::{Store, UpdateDeadline};

use crate::api::HostState;
use crate::exchange::{self, ExchangeId};
use crate::time_cache;

/// The length of a tick: a busy guest holds its worker that long. Shorter costs wake-ups of an idle
/// server, longer costs its neighbours' latency.
pub const TICK: Duration = Duration::from_millis(5);

/// Ticks since the process began.
static TICKS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The thread's processor time when the guest that runs now was first seen running; `None`: it
    /// has not been yet.
    static SEEN: Cell<Option<Duration>> = const { Cell::new(None) };
    /// The tick in which the current poll began: a guest that waited longer than a tick is interrupted
    /// as soon as it goes on, and has used nothing yet.
    static BEGUN: Cell<u64> = const { Cell::new(0) };
    /// What the current call has used.
    static USED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// What the current call may use.
    static BUDGET: Cell<Duration> = const { Cell::new(Duration::MAX) };
    /// The guest was interrupted to let others run: it does not wait for anything.
    static SLICED: Cell<bool> = const { Cell::new(false) };
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

/// A time in ticks, rounded up, with one more: it may begin at the very end of a tick.
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
        // The tick passed while it waited; or this is the first in which it is seen running.
        if now() == BEGUN.get() || count() {
            return Ok(UpdateDeadline::Continue(1));
        }
        if USED.get() > BUDGET.get() {
            return Err(wasmtime::Error::new(BudgetGone));
        }
        SLICED.set(true);
        Ok(UpdateDeadline::Yield(1))
    });
}

/// Adds what the running guest has used since it was last seen; true when that was never.
fn count() -> bool {
    let now = time_cache::cpu();
    match SEEN.replace(Some(now)) {
        Some(seen) => {
            USED.set(USED.get() + now.saturating_sub(seen));
            false
        }
        None => true,
    }
}

/// A call with its CPU account.
pub struct Metered<F> {
    call: F,
    exchange: ExchangeId,
    used: Duration,
    budget: Duration,
    sliced: bool,
}

impl<F> Metered<F> {
    /// A call for an exchange that may use `budget` of processor time.
    pub fn new(call: F, exchange: ExchangeId, budget: Duration) -> Self {
        Self {
            call,
            exchange,
            used: Duration::ZERO,
            budget,
            sliced: false,
        }
    }
}

impl<F: Future + Unpin> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let outer = (
            SEEN.get(),
            USED.get(),
            BUDGET.get(),
            SLICED.get(),
            BEGUN.get(),
        );
        // It has waited, and now goes on.
        if !self.sliced
            && self.used > Duration::ZERO
            && exchange::try_with(self.exchange, |x| x.downstream.has_left()) == Some(true)
        {
            self.used = Duration::ZERO;
        }
        SEEN.set(None);
        BEGUN.set(now());
        USED.set(self.used);
        BUDGET.set(self.budget);
        SLICED.set(false);
        let result = Pin::new(&mut self.call).poll(cx);
        if SEEN.get().is_some() {
            count();
        }
        self.used = USED.get();
        self.sliced = SLICED.get();
        SEEN.set(outer.0);
        USED.set(outer.1);
        BUDGET.set(outer.2);
        SLICED.set(outer.3);
        BEGUN.set(outer.4);
        result
    }
}
