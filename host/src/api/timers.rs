//! `timers`: sleeping, and timers that outlive the request that started them.

use std::cell::RefCell;
use std::collections::HashSet;
use std::pin::Pin;
use std::time::Duration;

use wasmtime::component::Resource;

use super::bindings::phasor::plugin::timers::{Host, TimerError};
use super::operation::{Outcome, Work, wrong_kind};
use super::{HostState, Operation, enter};

/// Timers that a plugin may have pending in a worker (OpenResty: `lua_max_pending_timers`).
pub const PENDING: usize = 1024;

/// A timer that a handler asked for.
#[derive(Debug, Clone, Copy)]
pub struct Timer {
    /// For `cancel`.
    pub id: u64,
    /// How long until it fires.
    pub delay: Duration,
    /// Again after each; zero is once.
    pub every: Duration,
    /// Given back to the handler.
    pub token: u64,
}

/// What a call started and cancelled: the worker takes it out when the call has ended.
#[derive(Debug, Default)]
pub struct Started {
    /// New ones.
    pub new: Vec<Timer>,
    /// Those that must not fire any more.
    pub cancelled: Vec<u64>,
    /// Tokens for which the handler is called in the same instance.
    pub here: Vec<u64>,
}

thread_local!(static PENDING_IDS: RefCell<HashSet<u64>> = RefCell::default());

/// A timer has fired for the last time, or will not fire.
pub fn forget(id: u64) -> bool {
    PENDING_IDS.with_borrow_mut(|pending| pending.remove(&id))
}

/// Numbers are unique in the process, so that one instance can cancel what another started.
fn next_id() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn sleeping(delay: u32) -> Work {
    Work::Sleep(Box::pin(tokio::time::sleep(Duration::from_millis(
        u64::from(delay),
    ))))
}

impl Host for HostState {
    async fn sleep(&mut self, delay: u32) -> wasmtime::Result<()> {
        enter!(self, "timers.sleep");
        if delay == 0 {
            tokio::task::yield_now().await;
            return Ok(());
        }
        let sleep = tokio::time::sleep(Duration::from_millis(u64::from(delay)));
        let mut sleep = std::pin::pin!(sleep);
        std::future::poll_fn(|cx| Pin::as_mut(&mut sleep).poll(cx)).await;
        crate::time_cache::update();
        Ok(())
    }

    fn begin_sleep(&mut self, delay: u32) -> wasmtime::Result<Resource<Operation>> {
        enter!(self, "timers.begin-sleep");
        self.begin(sleeping(delay))
    }

    async fn end_sleep(&mut self, op: Resource<Operation>) -> wasmtime::Result<()> {
        enter!(self, "timers.end-sleep");
        match self.finish(op).await? {
            Outcome::Slept => Ok(()),
            _ => Err(wrong_kind("timers.end-sleep")),
        }
    }

    fn start(
        &mut self,
        delay: u32,
        every: u32,
        token: u64,
    ) -> wasmtime::Result<Result<u64, TimerError>> {
        enter!(self, "timers.start");
        if delay != 0
            && self
                .worker
                .exiting
                .load(std::sync::atomic::Ordering::Relaxed)
        {
            return Ok(Err(TimerError::Exiting));
        }
        if self.timers.new.len() >= PENDING {
            return Ok(Err(TimerError::TooMany));
        }
        let id = next_id();
        let (delay, every) = (
            Duration::from_millis(u64::from(delay)),
            Duration::from_millis(u64::from(every)),
        );
        PENDING_IDS.with_borrow_mut(|pending| pending.insert(id));
        self.timers.new.push(Timer {
            id,
            delay,
            every,
            token,
        });
        Ok(Ok(id))
    }

    fn start_here(&mut self, token: u64) -> wasmtime::Result<Result<(), TimerError>> {
        enter!(self, "timers.start-here");
        if !self.timed {
            return Ok(Err(TimerError::NoHandler));
        }
        if self.timers.here.len() >= PENDING {
            return Ok(Err(TimerError::TooMany));
        }
        self.timers.here.push(token);
        Ok(Ok(()))
    }

    fn cancel(&mut self, id: u64) -> wasmtime::Result<bool> {
        enter!(self, "timers.cancel");
        if !forget(id) {
            return Ok(false);
        }
        let before = self.timers.new.len();
        self.timers.new.retain(|timer| timer.id != id);
        if self.timers.new.len() == before {
            self.timers.cancelled.push(id);
        }
        Ok(true)
    }
}
