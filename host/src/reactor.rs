//! The host's half of the reactor protocol (`docs/reactor.md`): packs events for a language runtime
//! that holds many requests, and applies what it hands back.
//!
//! Reactors live in a table of their worker's thread, as exchanges do, and are known by number.
//! Nothing here knows Wasm: `plugin/pump.rs` runs the component, `api/reactor.rs` carries the bytes.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::time::{Duration, Instant, Sleep};

use crate::exchange::{self, ExchangeId, NO_EXCHANGE, Outcome};

mod record;
mod watched;

pub use record::{Call, RunFlags};
use record::{Head, Reader};
use watched::Watching;
#[cfg(test)]
pub(crate) use watched::watched;
pub use watched::{Awaited, watch};

/// A reactor's place in its worker.
pub type ReactorId = u32;

/// Calls without an exchange (`init_worker`, `exit_worker`) count from here, above all slots.
const FIRST_CALL: u32 = 0x8000_0000;

/// A call's number, its result when it is there, and who waits for that.
type PendingCall = (u32, Option<Result<(), String>>, Option<Waker>);

#[derive(Default)]
struct Reactor {
    inbox: Vec<u8>,
    pump: Option<Waker>,
    sleeps: BinaryHeap<Reverse<(Instant, u32, u32)>>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Operations that the guest waits for.
    watching: Option<Watching>,
    /// Slots whose `release` lies in the inbox, and those whose `release` the guest has.
    releasing: Vec<ExchangeId>,
    released: Vec<ExchangeId>,
    calls: Vec<PendingCall>,
    next_call: u32,
    /// Exchanges that are jobs here.
    jobs: usize,
    spare: VecDeque<Vec<u8>>,
    /// Something became ready without a wait in between: let the connections go first, once.
    crowded: bool,
}

thread_local!(static REACTORS: RefCell<Vec<Option<Reactor>>> = const { RefCell::new(Vec::new()) });

fn with<R: Default>(id: ReactorId, f: impl FnOnce(&mut Reactor) -> R) -> R {
    REACTORS.with_borrow_mut(|all| {
        all.get_mut(id as usize)
            .and_then(Option::as_mut)
            .map(f)
            .unwrap_or_default()
    })
}

/// A new reactor of this worker.
#[must_use]
pub fn create() -> ReactorId {
    REACTORS.with_borrow_mut(|all| {
        all.push(Some(Reactor {
            next_call: FIRST_CALL,
            ..Reactor::default()
        }));
        u32::try_from(all.len() - 1).unwrap_or(u32::MAX)
    })
}

/// Ends a reactor: every job that it still has learns that it is lost.
pub fn remove(id: ReactorId) {
    let Some(mut reactor) =
        REACTORS.with_borrow_mut(|all| all.get_mut(id as usize).and_then(Option::take))
    else {
        return;
    };
    for held in reactor
        .releasing
        .drain(..)
        .chain(reactor.released.drain(..))
    {
        exchange::let_go(held);
    }
    for waker in reactor.calls.drain(..).filter_map(|(.., waker)| waker) {
        waker.wake();
    }
    exchange::for_each(|x| {
        if x.jobs.contains(&id) {
            x.jobs.retain(|r| *r != id);
            x.holds = x.holds.saturating_sub(1);
            x.outcome = Some(Outcome::Lost);
            if x.response.sent && x.handler_running {
                x.output.break_off();
            }
            x.handler_running = false;
            x.wake();
        }
    });
    exchange::closing::close_ended();
}

/// How many jobs a reactor has.
#[must_use]
pub fn jobs(id: ReactorId) -> usize {
    with(id, |r| r.jobs)
}

fn send(id: ReactorId, pack: impl FnOnce(&mut Vec<u8>)) {
    with(id, |reactor| {
        pack(&mut reactor.inbox);
        if let Some(pump) = &reactor.pump {
            pump.wake_by_ref();
        }
    });
}

/// Runs a segment of an exchange, beginning with step `call.from`. The outcome comes to the exchange.
pub fn run(id: ReactorId, job: ExchangeId, call: Call, forgets: bool) {
    let new = exchange::with(job, |x| {
        x.forgets = forgets;
        x.outcome = None;
        x.handler_running = true;
        let new = !x.jobs.contains(&id);
        if new {
            x.jobs.push(id);
            x.holds += 1;
        }
        with(id, |reactor| {
            reactor.jobs += usize::from(new);
            record::run(&mut reactor.inbox, job, x, call, new);
            if let Some(pump) = &reactor.pump {
                pump.wake_by_ref();
            }
        });
        new
    });
    debug_assert!(new || jobs(id) > 0);
}

/// Has the `log` handlers run; the outcome is `End`.
pub fn log(id: ReactorId, job: ExchangeId) {
    exchange::with(job, |x| x.outcome = None);
    send(id, |inbox| record::bare(inbox, record::to_guest::LOG, job));
}

/// Ends the running handler of a job.
pub fn cancel(id: ReactorId, job: ExchangeId) {
    send(id, |inbox| {
        record::bare(inbox, record::to_guest::CANCEL, job)
    });
}

/// The client has left, and the job's handler goes on.
pub fn left(id: ReactorId, job: ExchangeId) {
    send(id, |inbox| record::bare(inbox, record::to_guest::LEFT, job));
}

/// Forgets a job. Its slot stays until the guest cannot speak of it any more.
pub fn release(id: ReactorId, job: ExchangeId) {
    exchange::with(job, |x| x.jobs.retain(|r| *r != id));
    let there = with(id, |reactor| {
        reactor.jobs = reactor.jobs.saturating_sub(1);
        reactor.releasing.push(job);
        true
    });
    if there {
        send(id, |inbox| {
            record::bare(inbox, record::to_guest::RELEASE, job)
        });
    } else {
        exchange::let_go(job);
    }
}

/// A piece of a body made elsewhere, for the job's body filters. The reply is `Chunk`.
pub fn chunk(id: ReactorId, job: ExchangeId, bytes: &[u8], last: bool) {
    exchange::with(job, |x| x.outcome = None);
    send(id, |inbox| record::chunk(inbox, job, u8::from(last), bytes));
}

/// Everything that the guest sent for a job has been taken.
pub fn drained(id: ReactorId, job: ExchangeId) {
    send(id, |inbox| {
        record::bare(inbox, record::to_guest::DRAINED, job)
    });
}

/// Runs a handler that has no exchange.
///
/// # Errors
/// The handler's failure, or that the reactor is gone.
pub async fn call(id: ReactorId, handler: u16) -> Result<(), String> {
    let number = with(id, |reactor| {
        let number = reactor.next_call;
        reactor.next_call = number.wrapping_add(1).max(FIRST_CALL);
        reactor.calls.push((number, None, None));
        number
    });
    send(id, |inbox| record::call(inbox, number, handler));
    std::future::poll_fn(|cx| {
        let state = with(id, |reactor| {
            let place = reactor.calls.iter().position(|(n, ..)| *n == number)?;
            if reactor.calls[place].1.is_some() {
                return Some(reactor.calls.swap_remove(place).1);
            }
            reactor.calls[place].2 = Some(cx.waker().clone());
            Some(None)
        });
        match state {
            None => Poll::Ready(Err("the plugin's instance is gone".to_owned())),
            Some(Some(result)) => Poll::Ready(result),
            Some(None) => Poll::Pending,
        }
    })
    .await
}

/// The generation ends: the guest's `run` returns.
pub fn stop(id: ReactorId) {
    send(id, |inbox| {
        record::bare(inbox, record::to_guest::STOP, NO_EXCHANGE)
    });
}

/// The other side of [`next`]: what the guest hands over.
///
/// # Errors
/// When the guest breaks the protocol; the text says how.
pub fn take(id: ReactorId, done: &[u8]) -> Result<(), String> {
    let mut reader = Reader::new(done);
    while let Some((kind, job)) = reader.begin()? {
        if job >= FIRST_CALL {
            take_without_exchange(id, kind, job, &mut reader)?;
        } else {
            apply(id, kind, job, &mut reader)?;
        }
    }
    let released = with(id, |reactor| std::mem::take(&mut reactor.released));
    for job in released {
        exchange::let_go(job);
    }
    exchange::closing::close_ended();
    Ok(())
}

fn sleep(id: ReactorId, job: u32, token: u32, milliseconds: u32) {
    with(id, |reactor| {
        if milliseconds == 0 {
            record::ready(&mut reactor.inbox, job, token);
            reactor.crowded = true;
        } else {
            let at = Instant::now() + Duration::from_millis(u64::from(milliseconds));
            reactor.sleeps.push(Reverse((at, job, token)));
        }
    });
}

fn take_without_exchange(
    id: ReactorId,
    kind: u8,
    job: u32,
    reader: &mut Reader<'_>,
) -> Result<(), String> {
    let result = match kind {
        record::from_guest::SLEEP => {
            let (token, milliseconds) = (reader.u32()?, reader.u32()?);
            sleep(id, job, token, milliseconds);
            return Ok(());
        }
        record::from_guest::END => Ok(()),
        record::from_guest::FAIL => Err(reader.text()?),
        _ => return Err(format!("record {kind} needs an exchange")),
    };
    with(id, |reactor| {
        if let Some(call) = reactor.calls.iter_mut().find(|(n, ..)| *n == job) {
            call.1 = Some(result);
            if let Some(waker) = call.2.take() {
                waker.wake();
            }
        }
    });
    Ok(())
}

/// Applies one record to its exchange. A job that this reactor does not have any more is skipped:
/// a record may cross with a `cancel`.
fn apply(id: ReactorId, kind: u8, job: ExchangeId, reader: &mut Reader<'_>) -> Result<(), String> {
    if kind == record::from_guest::SLEEP {
        let (token, milliseconds) = (reader.u32()?, reader.u32()?);
        sleep(id, job, token, milliseconds);
        return Ok(());
    }
    let record = record::parse(kind, reader)?;
    let forgotten = exchange::try_with(job, |x| {
        if !x.jobs.contains(&id) {
            return (false, false);
        }
        let forgotten = apply_to(id, x, record);
        x.wake();
        if forgotten {
            x.jobs.retain(|r| *r != id);
        }
        let unread = x.output.needs_no_reader() && !x.output.tell_drained.is_empty();
        if unread {
            x.output.tell_drained.clear();
        }
        (forgotten, unread)
    });
    if let Some((_, true)) = forgotten {
        // Nobody reads any more, and the handler goes on.
        drained(id, job);
    }
    if let Some((true, _)) = forgotten {
        with(id, |reactor| reactor.jobs = reactor.jobs.saturating_sub(1));
        exchange::let_go(job);
    }
    Ok(())
}

/// True when the guest has forgotten the job.
fn apply_to(id: ReactorId, x: &mut exchange::Exchange, record: record::Done<'_>) -> bool {
    match record {
        record::Done::Finish {
            verdict,
            code,
            head,
        } => {
            x.handler_running = false;
            head.apply(&mut x.response);
            x.outcome = Some(Outcome::Finish { verdict, code });
            false
        }
        record::Done::Respond { flags, head, body } => {
            if !x.response.sent {
                head.apply(&mut x.response);
            }
            body_piece(id, x, flags, body);
            x.output.whole = flags & record::BODY_ENDS != 0;
            x.outcome = Some(Outcome::Respond {
                filtered: flags & record::FILTERED != 0 || body.is_empty(),
            });
            ends(x, flags)
        }
        record::Done::Chunk { flags, body } => {
            if x.phase == crate::phase::Phase::BodyFilter && !x.handler_running {
                x.outcome = Some(Outcome::Chunk(Bytes::copy_from_slice(body)));
                return false;
            }
            body_piece(id, x, flags, body);
            ends(x, flags)
        }
        record::Done::End => {
            if std::mem::take(&mut x.handler_running) {
                // The handler behind an answer that may still have to be taken.
                x.forgets && x.output.ended
            } else {
                x.outcome = Some(Outcome::End);
                true
            }
        }
        record::Done::Fail(text) => {
            x.handler_running = false;
            x.outcome = Some(Outcome::Fail(text));
            false
        }
    }
}

fn body_piece(id: ReactorId, x: &mut exchange::Exchange, flags: u8, body: &[u8]) {
    x.output.push(Bytes::copy_from_slice(body));
    if flags & record::BODY_ENDS != 0 {
        x.output.end();
    }
    if flags & record::TELL_DRAINED != 0 {
        x.output.tell_drained.push(id);
    }
}

fn ends(x: &mut exchange::Exchange, flags: u8) -> bool {
    if flags & record::HANDLER_ENDS != 0 {
        x.handler_running = false;
    }
    x.forgets && !x.handler_running && x.output.ended
}

/// Gives a used buffer back, so that the next batch needs no allocation.
pub fn recycle(id: ReactorId, mut buffer: Vec<u8>) {
    buffer.clear();
    with(id, |reactor| {
        if reactor.spare.len() < 2 {
            reactor.spare.push_back(buffer);
        }
    });
}

/// Waits for the next batch for the guest.
pub async fn next(id: ReactorId) -> Vec<u8> {
    std::future::poll_fn(|cx| {
        watched::look(id, cx);
        REACTORS.with_borrow_mut(
            |all| match all.get_mut(id as usize).and_then(Option::as_mut) {
                Some(reactor) => reactor.poll_next(cx),
                None => Poll::Ready(Vec::new()),
            },
        )
    })
    .await
}

impl Reactor {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Vec<u8>> {
        match &mut self.pump {
            Some(pump) => pump.clone_from(cx.waker()),
            pump => *pump = Some(cx.waker().clone()),
        }
        self.fire(cx);
        if std::mem::take(&mut self.crowded) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.inbox.is_empty() {
            return Poll::Pending;
        }
        self.released.append(&mut self.releasing);
        let spare = self.spare.pop_front().unwrap_or_default();
        Poll::Ready(std::mem::replace(&mut self.inbox, spare))
    }

    /// Moves what is due to the inbox and arms the timer for the rest.
    fn fire(&mut self, cx: &mut Context<'_>) {
        while let Some(Reverse((at, ..))) = self.sleeps.peek() {
            let at = *at;
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            if timer.deadline() != at {
                timer.as_mut().reset(at);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return;
            }
            let now = Instant::now().max(at);
            while let Some(Reverse((due, job, token))) = self.sleeps.peek().copied() {
                if due > now {
                    break;
                }
                self.sleeps.pop();
                record::ready(&mut self.inbox, job, token);
            }
        }
    }
}

impl Head<'_> {
    /// What is not valid HTTP is left out: the guest checks before it sends.
    fn apply(&self, response: &mut exchange::Response) {
        if self.status != 0 {
            response.status = self.status;
        }
        for (change, name, value) in self.changes() {
            let _invalid =
                exchange::head::change(&mut response.headers, change, name, value).is_err();
        }
    }
}

#[cfg(test)]
mod tests;
