//! Waiting as a future: several calls at once, the first of them, a deadline on any.
//!
//! ```no_run
//! use core::time::Duration;
//! use phasor_plugin::{Answer, redis, task};
//!
//! #[phasor_plugin::content]
//! async fn both() -> Answer {
//!     let (one, two) = task::join(redis::get("main", "one"), redis::get("main", "two")).await;
//!     let slow = task::deadline(Duration::from_millis(50), redis::get("main", "three")).await;
//!     Answer::text(format!("{one:?} {two:?} {}", slow.is_ok()))
//! }
//! ```
//!
//! A [`Pending`] is a call that has begun; it goes on whether it is polled or not, and dropping it
//! cancels it. The executor is one loop, [`block_on`]: poll, then let the host wait for any of the
//! calls that were found unfinished. A handler that is an `async fn` runs in it; a plain function
//! may call it anywhere.
#![expect(unsafe_code, reason = "one list, in a program without threads")]

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use crate::bindings::phasor::plugin::operation as host;
use crate::timers;

/// What is known of a call that has begun, without asking the host.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It has just begun, or the host has just said that it is not over.
    Waits,
    /// Nothing: somebody else polls it.
    Nothing,
    /// The host has said so, or it is the only one: ending it waits for it.
    Over,
}

struct Call {
    operation: host::Operation,
    known: Cell<Known>,
}

/// What the running [`block_on`] has to wait for.
struct Parked(RefCell<Vec<Rc<Call>>>);
// SAFETY: a component instance has one thread.
unsafe impl Sync for Parked {}
static PARKED: Parked = Parked(RefCell::new(Vec::new()));

/// A call that has begun. Await it, or [`wait`](Self::wait) for it; dropping it cancels it.
#[must_use = "dropping it cancels the call"]
pub struct Pending<T> {
    call: Option<Rc<Call>>,
    end: fn(host::Operation) -> T,
    /// It was over when it began.
    value: Option<T>,
}

impl<T> core::fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

impl<T> Pending<T> {
    pub(crate) fn new(operation: host::Operation, end: fn(host::Operation) -> T) -> Self {
        let known = Cell::new(Known::Waits);
        Self {
            call: Some(Rc::new(Call { operation, known })),
            end,
            value: None,
        }
    }

    /// Of a call that was over at once; `end` is never called.
    pub(crate) fn ready(value: T, end: fn(host::Operation) -> T) -> Self {
        Self {
            call: None,
            end,
            value: Some(value),
        }
    }

    /// Suspends the handler until it is over.
    pub fn wait(self) -> T {
        block_on(self)
    }
}

/// Nobody has to wait for it.
fn leave(call: &Rc<Call>) {
    let mut parked = PARKED.0.borrow_mut();
    parked.retain(|parked| !Rc::ptr_eq(parked, call));
}

/// The call is cancelled now, not when the handler waits the next time.
impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        if let Some(call) = &self.call {
            leave(call);
        }
    }
}

// Nothing in it is pinned.
impl<T> Unpin for Pending<T> {}

impl<T> Future for Pending<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<T> {
        if let Some(value) = self.value.take() {
            return Poll::Ready(value);
        }
        let Some(call) = self.call.take() else {
            // Polled after its end: there is nothing more to come.
            return Poll::Pending;
        };
        leave(&call);
        let over = match call.known.replace(Known::Nothing) {
            Known::Over => true,
            Known::Waits => false,
            Known::Nothing => call.operation.ready(),
        };
        if !over {
            PARKED.0.borrow_mut().push(call.clone());
            self.call = Some(call);
            return Poll::Pending;
        }
        match Rc::try_unwrap(call) {
            Ok(call) => Poll::Ready((self.end)(call.operation)),
            // Somebody else's list holds it still; it is asked again.
            Err(call) => {
                self.call = Some(call);
                Poll::Pending
            }
        }
    }
}

/// Suspends the handler until the future is over.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    // One inside another waits for its own calls only.
    let outer = PARKED.0.take();
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            PARKED.0.replace(outer);
            return value;
        }
        let parked = PARKED.0.take();
        match &parked[..] {
            // It waits for nothing that the host knows: the others go on, then it is asked again.
            [] => timers::sleep(Duration::from_millis(1)),
            // Nothing else can be over before it.
            [only] => only.known.set(Known::Over),
            several => wait_any(several),
        }
    }
}

/// Lets the host wait for any, and keeps what it says of each.
fn wait_any(parked: &[Rc<Call>]) {
    let operations: Vec<_> = parked.iter().map(|call| &call.operation).collect();
    let ready = host::wait_any(&operations);
    for call in parked {
        call.known.set(Known::Waits);
    }
    for place in ready {
        if let Some(call) = parked.get(place as usize) {
            call.known.set(Known::Over);
        }
    }
}

/// Both.
pub async fn join<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut one, mut two) = (None, None);
    poll_fn(|cx| {
        if one.is_none()
            && let Poll::Ready(value) = a.as_mut().poll(cx)
        {
            one = Some(value);
        }
        if two.is_none()
            && let Poll::Ready(value) = b.as_mut().poll(cx)
        {
            two = Some(value);
        }
        match (one.take(), two.take()) {
            (Some(one), Some(two)) => Poll::Ready((one, two)),
            (first, second) => {
                (one, two) = (first, second);
                Poll::Pending
            }
        }
    })
    .await
}

/// All, in their order.
pub async fn join_all<F: Future + Unpin>(futures: Vec<F>) -> Vec<F::Output> {
    let mut slots: Vec<(Option<F>, Option<F::Output>)> = futures
        .into_iter()
        .map(|future| (Some(future), None))
        .collect();
    poll_fn(|cx| {
        let mut over = true;
        for (future, output) in &mut slots {
            if let Some(running) = future {
                match Pin::new(running).poll(cx) {
                    Poll::Ready(value) => {
                        *output = Some(value);
                        *future = None;
                    }
                    Poll::Pending => over = false,
                }
            }
        }
        if over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    slots.into_iter().filter_map(|(_, output)| output).collect()
}

/// The first of several that is over, with its place; the others are cancelled.
pub async fn select<F: Future + Unpin>(mut futures: Vec<F>) -> Option<(usize, F::Output)> {
    if futures.is_empty() {
        return None;
    }
    poll_fn(|cx| {
        for (place, future) in futures.iter_mut().enumerate() {
            if let Poll::Ready(value) = Pin::new(future).poll(cx) {
                return Poll::Ready(Some((place, value)));
            }
        }
        Poll::Pending
    })
    .await
}

/// The time has passed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Elapsed;

impl core::fmt::Display for Elapsed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the time has passed")
    }
}

/// The future's value, unless the time passes first: then it is cancelled.
pub async fn deadline<F: Future>(most: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let mut clock = pin!(sleep(most));
    poll_fn(|cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(value));
        }
        clock.as_mut().poll(cx).map(|()| Err(Elapsed))
    })
    .await
}

/// Lets time pass.
pub fn sleep(time: Duration) -> Pending<()> {
    let operation = timers::begin_sleep(time);
    Pending::new(operation.0, |operation| {
        timers::end_sleep(crate::operation::Operation(operation));
    })
}
