//! One request and its answer in progress (nginx: `r`), kept where host functions can reach it.
//!
//! wasmtime demands that a store's data can move between threads, an exchange cannot: so exchanges
//! live in a table of their worker's thread and everybody else holds a number. A slot is reused with
//! its allocations. [`with`] borrows the table for a moment, never across a wait; no code that runs
//! inside it may call it again.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use tokio::time::Instant;

use crate::cosocket::Closer;
use crate::observe::error_log::{self, Context, Level};
use crate::phase::Phase;

pub mod body;
pub mod closing;
pub mod downstream;
pub mod head;
pub mod output;
pub mod subrequest;
pub mod tee;
pub mod variable;

pub use body::RequestBody;
pub use downstream::Downstream;
pub use head::{HeadChange, Request, Response};
pub use output::Output;
pub use subrequest::Family;
pub use variable::Variables;

/// An exchange's slot in its worker. Slots are reused: a number is good while its request lives.
pub type ExchangeId = u32;

/// Stands for "no exchange" (timers, worker phases).
pub const NO_EXCHANGE: ExchangeId = u32::MAX;

/// One client connection, as its exchanges see it.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// The client's address.
    pub remote: std::net::SocketAddr,
    /// The listener's address.
    pub local: std::net::SocketAddr,
    /// nginx's `$connection`.
    pub serial: u64,
}

/// A deadline that no request reaches.
#[must_use]
pub fn never(from: Instant) -> Instant {
    from + std::time::Duration::from_secs(u64::from(u32::MAX))
}

/// What a reactor says of a job's segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Ended without an answer.
    Finish {
        /// 0 next, 1 done, 2 exit.
        verdict: u8,
        /// The status of `exit`.
        code: u16,
    },
    /// The head is made.
    Respond {
        /// What body there is has been through the segment's filters.
        filtered: bool,
    },
    /// A piece of a filtered body.
    Chunk(bytes::Bytes),
    /// `log` or `call` is over, or the handler behind a sent answer.
    End,
    /// The handler failed.
    Fail(String),
    /// The reactor itself is gone (trap); the text is for the log, once.
    Lost,
}

/// Why an exchange ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// The client closed the connection.
    ClientLeft,
    /// The deadline passed.
    Deadline,
}

/// One request and its answer.
#[derive(Debug)]
pub struct Exchange {
    /// The request's head.
    pub request: Request,
    /// The request's body.
    pub body: RequestBody,
    /// The answer's head.
    pub response: Response,
    /// The answer's body as its handler writes it.
    pub output: Output,
    /// The same behind the body filters, when there are any.
    pub filtered: Option<Box<Output>>,
    /// An error page is being made: the status that it keeps.
    pub error_status: Option<u16>,
    /// Who asked.
    pub connection: Option<Rc<ConnectionInfo>>,
    /// Counts the requests of the connection, from 1.
    pub request_number: u32,
    /// What plugins hand on to each other.
    pub context: Vec<(String, Vec<u8>)>,
    /// The route's variables.
    pub variables: Variables,
    /// Which variables may be set from a plugin.
    pub settable: Arc<[String]>,
    /// The phase that runs.
    pub phase: Phase,
    /// When the head had been read.
    pub started: Instant,
    /// The same as milliseconds since 1970.
    pub started_ms: u64,
    /// When the exchange must have ended.
    pub deadline: Instant,
    /// Counts requests of the process, for the error log.
    pub serial: u64,
    /// nginx's `$request_id`, made when first asked for.
    pub request_id: Option<u128>,
    /// The URI was changed and the route is to be found again.
    pub reroute: bool,
    /// `exec` was called.
    pub exec: Option<String>,
    /// Reactors that know this exchange as a job.
    pub jobs: Vec<u32>,
    /// The reactor that runs the current segment forgets the job by itself when its answer ends.
    pub forgets: bool,
    /// How many others may still speak of this exchange: its slot stays until they are done.
    pub holds: u8,
    /// The request is over for the connection; the slot waits for `holds`.
    pub over: bool,
    /// What the reactor said last, until the engine takes it.
    pub outcome: Option<Outcome>,
    /// The handler behind a streamed answer is still at work.
    pub handler_running: bool,
    /// When the client leaves, its handler goes on.
    pub keeps_on: bool,
    /// Its answer is brought to its end for others, with or without its client.
    pub storing: bool,
    /// What the cache did for it: nginx's `$upstream_cache_status`.
    pub cache_status: Option<&'static str>,
    /// What closes it, once only its `log` handlers run.
    pub closing: Option<closing::Closing>,
    /// Set when the exchange must end.
    pub abort: Option<Abort>,
    /// The name of the route.
    pub route: Arc<str>,
    /// Folder of the route's files, nginx's `$document_root`.
    pub document_root: Option<Arc<str>>,
    /// What it has to do with other exchanges.
    pub family: Family,
    /// The client's connection, once it has left HTTP.
    pub downstream: Downstream,
    /// Sockets that end with it.
    sockets: Vec<Closer>,
    waker: Option<Waker>,
}

impl Exchange {
    fn empty() -> Self {
        Self {
            request: Request::default(),
            body: RequestBody::default(),
            response: Response::default(),
            output: Output::default(),
            filtered: None,
            error_status: None,
            connection: None,
            request_number: 0,
            context: Vec::new(),
            variables: Variables::default(),
            settable: Arc::from([]),
            phase: Phase::ServerRewrite,
            started: Instant::now(),
            started_ms: 0,
            deadline: Instant::now(),
            serial: 0,
            request_id: None,
            reroute: false,
            exec: None,
            jobs: Vec::new(),
            forgets: false,
            holds: 0,
            over: false,
            outcome: None,
            handler_running: false,
            keeps_on: false,
            storing: false,
            cache_status: None,
            closing: None,
            abort: None,
            route: Arc::from(""),
            document_root: None,
            family: Family::default(),
            downstream: Downstream::default(),
            sockets: Vec::new(),
            waker: None,
        }
    }

    /// Forgets everything but the allocations.
    fn clear(&mut self) {
        self.response.clear();
        self.request.clear(&mut self.response.headers);
        self.body = RequestBody::default();
        self.output.clear();
        self.filtered = None;
        self.error_status = None;
        self.connection = None;
        self.context.clear();
        self.variables.clear();
        self.phase = Phase::ServerRewrite;
        self.request_id = None;
        self.reroute = false;
        self.exec = None;
        self.jobs.clear();
        self.forgets = false;
        self.holds = 0;
        self.over = false;
        self.outcome = None;
        self.handler_running = false;
        self.keeps_on = false;
        self.storing = false;
        self.cache_status = None;
        self.closing = None;
        self.abort = None;
        self.document_root = None;
        self.waker = None;
    }

    /// A socket ends with this exchange. Those that have ended already are forgotten, so that a
    /// long exchange with many of them does not grow.
    pub fn adopt(&mut self, socket: Closer) {
        if self.sockets.len() == self.sockets.capacity() {
            self.sockets.retain(Closer::is_live);
        }
        self.sockets.push(socket);
    }

    /// What the connection reads.
    pub fn outgoing(&mut self) -> &mut Output {
        match &mut self.filtered {
            Some(filtered) => filtered,
            None => &mut self.output,
        }
    }

    /// Wakes whoever drives this exchange.
    pub fn wake(&mut self) {
        if let Some(closing) = &self.closing {
            closing::ended(closing.id);
        } else if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Remembers whom to wake.
    pub fn register(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) if known.will_wake(waker) => {}
            known => *known = Some(waker.clone()),
        }
    }

    /// The request id, made now if nobody asked before.
    pub fn id(&mut self) -> u128 {
        *self.request_id.get_or_insert_with(random_u128)
    }
}

/// 128 bits that nobody can guess: the standard library's hash seeds come from the system.
fn random_u128() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    thread_local!(static STATE: (RandomState, RandomState, std::cell::Cell<u64>) = (RandomState::new(), RandomState::new(), std::cell::Cell::new(0)));
    STATE.with(|(a, b, count)| {
        count.set(count.get().wrapping_add(1));
        (u128::from(a.hash_one(count.get())) << 64) | u128::from(b.hash_one(count.get()))
    })
}

#[derive(Default)]
struct Table {
    #[expect(
        clippy::vec_box,
        reason = "an exchange is large: the table grows without moving any"
    )]
    slots: Vec<Box<Exchange>>,
    live: Vec<bool>,
    free: Vec<ExchangeId>,
    count: usize,
}

thread_local!(static TABLE: RefCell<Table> = RefCell::default());

/// A slot for a new request. `fill` writes into it where it lies: a head is large to move.
pub fn begin(fill: impl FnOnce(&mut Exchange)) -> ExchangeId {
    TABLE.with_borrow_mut(|table| {
        let id = table.free.pop().unwrap_or_else(|| {
            table.slots.push(Box::new(Exchange::empty()));
            table.live.push(false);
            u32::try_from(table.slots.len() - 1).unwrap_or(NO_EXCHANGE)
        });
        table.count += 1;
        table.live[id as usize] = true;
        let exchange = &mut *table.slots[id as usize];
        exchange.started = crate::time_cache::instant();
        fill(exchange);
        id
    })
}

/// Gives the slot back, now or when the last of those who hold it lets go.
pub fn end(id: ExchangeId) {
    let parts = TABLE.with_borrow_mut(|table| {
        let exchange = &mut *table.slots[id as usize];
        exchange.over = true;
        if exchange.holds > 0 || !std::mem::replace(&mut table.live[id as usize], false) {
            return None;
        }
        table.count -= 1;
        let exchange = &mut *table.slots[id as usize];
        // What may run code of others when dropped leaves the table first.
        let parts = (
            std::mem::take(&mut exchange.body),
            exchange.waker.take(),
            exchange.connection.take(),
            std::mem::take(&mut exchange.family),
            std::mem::take(&mut exchange.sockets),
            std::mem::take(&mut exchange.downstream),
        );
        exchange.clear();
        Some(parts)
    });
    if let Some((.., family, sockets, _downstream)) = parts {
        family.end();
        for socket in sockets {
            socket.close();
        }
        TABLE.with_borrow_mut(|table| table.free.push(id));
    }
}

/// One of those who held the slot is done with it.
pub fn let_go(id: ExchangeId) {
    let over = with(id, |x| {
        x.holds = x.holds.saturating_sub(1);
        x.over && x.holds == 0
    });
    if over {
        end(id);
    }
}

/// Borrows an exchange for a moment.
///
/// # Panics
/// When called inside itself, or with a slot that was never begun: mistakes of ours, not of a guest.
pub fn with<R>(id: ExchangeId, f: impl FnOnce(&mut Exchange) -> R) -> R {
    TABLE.with_borrow_mut(|table| f(&mut table.slots[id as usize]))
}

/// Borrows an exchange if the number is one of a live request.
pub fn try_with<R>(id: ExchangeId, f: impl FnOnce(&mut Exchange) -> R) -> Option<R> {
    TABLE.with_borrow_mut(|table| {
        if !table.live.get(id as usize).copied().unwrap_or(false) {
            return None;
        }
        table.slots.get_mut(id as usize).map(|x| f(x))
    })
}

/// Visits every live exchange of the worker.
pub fn for_each(mut f: impl FnMut(&mut Exchange)) {
    TABLE.with_borrow_mut(|table| {
        let Table { slots, live, .. } = table;
        for (exchange, _) in slots.iter_mut().zip(live.iter()).filter(|(_, live)| **live) {
            f(exchange);
        }
    });
}

/// How many requests this worker has in progress.
#[must_use]
pub fn count() -> usize {
    TABLE.with_borrow(|table| table.count)
}

/// Marks each exchange of these slots whose deadline has passed and wakes its driver; counts how long
/// bodies have been waited for, in sweeps. False: there are no more slots.
pub fn sweep(range: Range<usize>, now: Instant, body_sweeps: u32) -> bool {
    let more = TABLE.with_borrow_mut(|table| {
        let Table { slots, live, .. } = table;
        let more = range.end < slots.len();
        let range = range.start.min(slots.len())..range.end.min(slots.len());
        let all = slots[range.clone()].iter_mut().zip(&live[range]);
        for (exchange, _) in all.filter(|(_, live)| **live) {
            exchange.body.count_quiet(body_sweeps);
            if exchange.abort.is_none() && exchange.deadline <= now {
                exchange.abort = Some(Abort::Deadline);
                exchange.wake();
            }
        }
        more
    });
    closing::close_ended();
    more
}

/// Waits until `f` gives something. `f` runs inside [`with`].
pub async fn wait<R>(id: ExchangeId, mut f: impl FnMut(&mut Exchange) -> Option<R>) -> R {
    std::future::poll_fn(|cx| {
        with(id, |x| match f(x) {
            Some(value) => Poll::Ready(value),
            None => {
                x.register(cx.waker());
                Poll::Pending
            }
        })
    })
    .await
}

/// Writes a record to the error log with what is known of the exchange.
pub fn log(id: ExchangeId, level: Level, context: Context<'_>, message: &str) {
    if !error_log::enabled(level) {
        return;
    }
    with(id, |x| {
        let mut line = Vec::new();
        variable::request_line(x, &mut line);
        let context = Context {
            request: Some(x.serial),
            client: x.connection.as_ref().map(|c| c.remote.ip()),
            request_line: Some(&line),
            host: x
                .request
                .headers
                .get(http::header::HOST)
                .map(http::HeaderValue::as_bytes),
            ..context
        };
        error_log::write(level, &context, message);
    });
}
