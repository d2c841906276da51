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

/// The account of a call while it is polled.
#[derive(Clone, Copy)]
struct Account {
    /// The thread's processor time when the guest was last seen running; `None`: in this poll it has not
    /// been yet.
    seen: Option<Duration>,
    /// The tick in which the poll began: a guest that waited longer than a tick is interrupted as soon as
    /// it goes on, and has used nothing yet.
    begun: u64,
    used: Duration,
    budget: Duration,
    /// The guest was interrupted to let others run: it does not wait for anything.
    sliced: bool,
}

thread_local! {
    /// Of the call that is polled now.
    static ACCOUNT: Cell<Account> = const {
        Cell::new(Account {
            seen: None,
            begun: 0,
            used: Duration::ZERO,
            budget: Duration::MAX,
            sliced: false,
        })
    };
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
        let mut account = ACCOUNT.get();
        // The tick passed while it waited.
        if account.begun == now() {
            return Ok(UpdateDeadline::Continue(1));
        }
        let first = account.seen.is_none();
        account.count();
        account.sliced = !first;
        ACCOUNT.set(account);
        if first {
            return Ok(UpdateDeadline::Continue(1));
        }
        match account.used > account.budget {
            true => Err(wasmtime::Error::new(BudgetGone)),
            false => Ok(UpdateDeadline::Yield(1)),
        }
    });
}

impl Account {
    /// Adds what the running guest has used since it was last seen.
    fn count(&mut self) {
        let now = time_cache::cpu();
        if let Some(seen) = self.seen.replace(now) {
            self.used += now.saturating_sub(seen);
        }
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
        // It has waited, and now goes on.
        if !self.sliced
            && self.used > Duration::ZERO
            && exchange::try_with(self.exchange, |x| x.downstream.has_left()) == Some(true)
        {
            self.used = Duration::ZERO;
        }
        let outer = ACCOUNT.replace(Account {
            seen: None,
            begun: now(),
            used: self.used,
            budget: self.budget,
            sliced: false,
        });
        let result = Pin::new(&mut self.call).poll(cx);
        let mut account = ACCOUNT.replace(outer);
        if account.seen.is_some() {
            account.count();
        }
        self.used = account.used;
        self.sliced = account.sliced;
        result
    }
}
