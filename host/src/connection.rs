//! One client connection: hyper speaks HTTP on it, every request becomes an exchange, and limits of
//! time hold.
//!
//! A timer for each connection would cost each request; instead a worker sweeps its connections ten
//! times a second ([`Site::sweep`]).

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper_util::server::conn::auto;
use tokio::net::TcpStream;

use crate::exchange::{self, ConnectionInfo};
use crate::generation::Served;
use crate::time_cache;

mod body;
mod io;
mod service;

use io::Io;
use service::RequestService;

/// How often a worker looks at its connections.
pub const SWEEP: Duration = Duration::from_millis(100);
/// Requests that one HTTP/2 connection may have in progress (nginx: `http2_max_concurrent_streams`).
const STREAMS: u32 = 128;
/// hyper's least buffer; a smaller `header_limit` is checked on the parsed head.
const LEAST_BUFFER: usize = 8192;

/// Runs hyper's tasks on the worker's own thread.
#[derive(Debug, Clone, Copy)]
struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// What a connection does now; times are sweeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// Waits for a request.
    Idle,
    /// Part of a head has come.
    Head,
    /// Requests are in progress.
    Busy,
}

/// What is to become of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Ends after what is in progress.
    Finish,
    /// The head did not come in time: 408 and end.
    TimeOut,
    /// Ends now.
    Drop,
}

/// One connection, as the sweep sees it.
#[derive(Debug)]
struct Control {
    info: Rc<ConnectionInfo>,
    doing: Cell<Doing>,
    since: Cell<u64>,
    in_progress: Cell<u32>,
    requests: Cell<u32>,
    /// Since when the client takes nothing of what is to be sent.
    stalled: Cell<Option<u64>>,
    /// When the client closed its half.
    half_closed: Cell<Option<u64>>,
    order: Cell<Option<Order>>,
    task: RefCell<Option<Waker>>,
}

impl Control {
    fn give(&self, order: Order) {
        self.order.set(Some(order));
        if let Some(task) = self.task.borrow_mut().take() {
            task.wake();
        }
    }

    fn enter(&self, doing: Doing, now: u64) {
        self.doing.set(doing);
        self.since.set(now);
    }
}

/// A worker's connections, and what they are served with.
pub struct Site {
    served: RefCell<Rc<Served>>,
    connections: RefCell<slab::Slab<Rc<Control>>>,
    /// Sweeps since the worker began.
    clock: Cell<u64>,
    draining: Cell<bool>,
    serial: Cell<u64>,
    requests: Cell<u64>,
    worker: u64,
}

/// Sweeps that a time-out comes to.
fn sweeps(time: Duration) -> u64 {
    u64::try_from(time.as_millis().div_ceil(SWEEP.as_millis())).unwrap_or(u64::MAX)
}

impl Site {
    /// A worker's site with its first generation.
    #[must_use]
    pub fn new(served: Rc<Served>, worker: u32) -> Rc<Self> {
        Rc::new(Self {
            served: RefCell::new(served),
            connections: RefCell::default(),
            clock: Cell::new(0),
            draining: Cell::new(false),
            serial: Cell::new(0),
            requests: Cell::new(0),
            worker: u64::from(worker),
        })
    }

    /// What new requests are served with.
    #[must_use]
    pub fn served(&self) -> Rc<Served> {
        self.served.borrow().clone()
    }

    /// Puts a new generation in place and gives the old one back.
    pub fn swap(&self, served: Rc<Served>) -> Rc<Served> {
        self.served.replace(served)
    }

    /// Open connections.
    #[must_use]
    pub fn open(&self) -> usize {
        self.connections.borrow().len()
    }

    /// Every connection ends after what it has in progress; none is kept alive any more.
    pub fn drain(&self) {
        self.draining.set(true);
        for (_, control) in &*self.connections.borrow() {
            control.give(Order::Finish);
        }
    }

    /// Numbers are unique in the process: a worker counts in the low bits.
    fn next_serial(&self) -> u64 {
        self.serial.set(self.serial.get() + 1);
        (self.worker << 40) | self.serial.get()
    }

    fn next_request(&self) -> u64 {
        self.requests.set(self.requests.get() + 1);
        (self.worker << 40) | self.requests.get()
    }

    /// Ends what takes too long.
    pub fn sweep(&self) {
        time_cache::update();
        let now = self.clock.get() + 1;
        self.clock.set(now);
        let served = self.served();
        let server = &served.generation.config.server;
        exchange::sweep(
            tokio::time::Instant::now(),
            u32::try_from(sweeps(server.body_timeout)).unwrap_or(u32::MAX),
        );
        let (idle, head, send) = (
            sweeps(server.idle_timeout),
            sweeps(server.header_timeout),
            sweeps(server.send_timeout),
        );
        for (_, control) in &*self.connections.borrow() {
            let age = now - control.since.get();
            match control.doing.get() {
                Doing::Idle if age > idle => control.give(Order::Finish),
                Doing::Head if age > head => control.give(Order::TimeOut),
                Doing::Idle | Doing::Head | Doing::Busy => {}
            }
            let gone = control
                .half_closed
                .get()
                .is_some_and(|since| now - since > io::PATIENCE);
            if gone && let Some(task) = control.task.borrow_mut().take() {
                task.wake();
            }
            if control
                .stalled
                .get()
                .is_some_and(|since| now - since > send)
            {
                control.give(Order::Drop);
            }
        }
        served.tick();
    }
}

/// Serves a connection until it ends.
pub async fn serve(stream: TcpStream, site: Rc<Site>) {
    let Ok((remote, local)) = stream
        .peer_addr()
        .and_then(|remote| Ok((remote, stream.local_addr()?)))
    else {
        return;
    };
    let info = Rc::new(ConnectionInfo {
        remote,
        local,
        serial: site.next_serial(),
    });
    let control = Rc::new(Control {
        info,
        doing: Cell::new(Doing::Idle),
        since: Cell::new(site.clock.get()),
        in_progress: Cell::new(0),
        requests: Cell::new(0),
        stalled: Cell::new(None),
        half_closed: Cell::new(None),
        order: Cell::new(site.draining.get().then_some(Order::Finish)),
        task: RefCell::new(None),
    });
    let place = site.connections.borrow_mut().insert(control.clone());
    let header_limit = site.served.borrow().generation.config.server.header_limit;
    let io = Io::new(stream, control.clone(), site.clone());
    let service = RequestService::new(site.clone(), control.clone());
    run(&builder(header_limit), io, service, &control).await;
    site.connections.borrow_mut().remove(place);
}

fn builder(header_limit: usize) -> auto::Builder<LocalExecutor> {
    let mut builder = auto::Builder::new(LocalExecutor);
    builder
        .http1()
        .writev(false)
        .keep_alive(true)
        .max_buf_size(header_limit.max(LEAST_BUFFER));
    builder
        .http2()
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(header_limit).unwrap_or(u32::MAX));
    builder
}

async fn run(
    builder: &auto::Builder<LocalExecutor>,
    io: Io,
    service: RequestService,
    control: &Control,
) {
    let mut connection = std::pin::pin!(builder.serve_connection(io, service));
    std::future::poll_fn(|cx: &mut Context<'_>| {
        *control.task.borrow_mut() = Some(cx.waker().clone());
        match control.order.take() {
            Some(Order::Drop) => return Poll::Ready(()),
            Some(Order::Finish) => connection.as_mut().graceful_shutdown(),
            // The reader sees it: it answers 408 in place of what is missing of the head.
            Some(Order::TimeOut) => control.order.set(Some(Order::TimeOut)),
            None => {}
        }
        // How a connection ends is its client's business: nothing depends on it.
        Pin::as_mut(&mut connection).poll(cx).map(|_ended| ())
    })
    .await;
}
