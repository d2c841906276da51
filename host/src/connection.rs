//! One client connection: hyper speaks HTTP on it, every request becomes an exchange, and limits of
//! time hold.
//!
//! A timer for each connection would cost each request; instead a worker sweeps its connections ten
//! times a second ([`Site::sweep`]).

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::Waker;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::exchange::{self, ConnectionInfo};
use crate::generation::Served;
use crate::time_cache;

mod body;
mod io;
mod life;
mod service;
mod sockets;
mod tunnel;

use body::{Driver, Running};
use io::{Io, Side};
use sockets::ClientSocket;
pub use sockets::Sockets;
use tunnel::{Leaving, Tunnel};

/// How often a worker looks at its connections.
pub const SWEEP: Duration = Duration::from_millis(100);
/// So many are looked at before others have their turn.
const PIECE: usize = 256;
/// Sweeps after which an idle connection lets go of its buffers.
const SLEEPY: u64 = 10;

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
    /// Lets go of its buffers until the next bytes come.
    Sleep,
}

/// One connection, as the sweep sees it.
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
    /// It was the sweep that saw it: HTTP does not read now.
    unread_end: Cell<bool>,
    /// Its socket, while it speaks HTTP.
    client: RefCell<Weak<RefCell<ClientSocket>>>,
    order: Cell<Option<Order>>,
    /// It speaks HTTP/1 now: it holds buffers that it can do without while it is idle, and nobody
    /// reads while a request is in progress.
    http1: Cell<bool>,
    /// The exchange with which it is about to leave HTTP.
    leaving: RefCell<Option<Box<Leaving>>>,
    /// Its socket, once it has left HTTP.
    tunnel: RefCell<Option<Rc<Tunnel>>>,
    task: RefCell<Option<Waker>>,
}

impl Control {
    fn give(&self, order: Order) {
        self.order.set(Some(order));
        if let Some(task) = self.task.borrow_mut().take() {
            task.wake();
        }
    }

    /// Any other order counts for more.
    fn suggest_sleep(&self) {
        if self.order.get().is_none() {
            self.give(Order::Sleep);
        }
    }

    /// Hands an exchange over that takes the connection out of HTTP.
    fn leave(&self, running: Running, driver: Option<Driver>) {
        let leaving = Leaving { running, driver };
        *self.leaving.borrow_mut() = Some(Box::new(leaving));
    }

    /// That exchange, as soon as everything before it is with the kernel.
    fn take_leaving(&self) -> Option<Box<Leaving>> {
        match self.stalled.get() {
            None => self.leaving.borrow_mut().take(),
            Some(_) => None,
        }
    }

    /// Whether it is about to leave HTTP.
    fn is_leaving(&self) -> bool {
        self.leaving.borrow().is_some()
    }

    /// The connection ends before it could leave HTTP.
    fn forget_leaving(&self) {
        let leaving = self.leaving.borrow_mut().take();
        if let Some(leaving) = leaving {
            leaving.running.client_left(leaving.driver);
        }
    }

    /// Nothing is in progress and nothing waits to be sent.
    fn is_at_rest(&self) -> bool {
        self.doing.get() == Doing::Idle
            && self.in_progress.get() == 0
            && self.stalled.get().is_none()
            && self.half_closed.get().is_none()
    }

    /// Sees the end of a client whose HTTP/1 request is in progress: hyper does not read meanwhile,
    /// for that takes a buffer per request.
    fn look_for_end(&self, now: u64) {
        if !self.http1.get() || self.half_closed.get().is_some() {
            return;
        }
        let Some(client) = self.client.borrow().upgrade() else {
            return;
        };
        match io::look(&client.borrow().stream) {
            Side::Open => {}
            Side::Closed => {
                self.half_closed.set(Some(now));
                self.unread_end.set(true);
            }
            Side::Gone => self.give(Order::Drop),
        }
    }

    /// Remembers whom to wake for an order.
    fn register(&self, waker: &Waker) {
        let mut task = self.task.borrow_mut();
        match &*task {
            Some(known) if known.will_wake(waker) => {}
            _ => *task = Some(waker.clone()),
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
    sockets: Sockets,
}

/// Sweeps that a time-out comes to.
fn sweeps(time: Duration) -> u64 {
    u64::try_from(time.as_millis().div_ceil(SWEEP.as_millis())).unwrap_or(u64::MAX)
}

impl Site {
    /// A worker's site with its first generation.
    #[must_use]
    pub fn new(served: Rc<Served>, worker: u32, sockets: Sockets) -> Rc<Self> {
        Rc::new(Self {
            served: RefCell::new(served),
            connections: RefCell::default(),
            clock: Cell::new(0),
            draining: Cell::new(false),
            serial: Cell::new(0),
            requests: Cell::new(0),
            worker: u64::from(worker),
            sockets,
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

    /// Ends what takes too long: a piece of what there is after the other, with whatever else is ready in
    /// between.
    pub async fn sweep(&self) {
        time_cache::update();
        let now = self.clock.get() + 1;
        self.clock.set(now);
        let served = self.served();
        let server = &served.generation.config.server;
        let at = tokio::time::Instant::now();
        let body = u32::try_from(sweeps(server.body_timeout)).unwrap_or(u32::MAX);
        let mut from = 0;
        while exchange::sweep(from..from + PIECE, at, body) {
            from += PIECE;
            tokio::task::yield_now().await;
        }
        let limits = Limits {
            idle: sweeps(server.idle_timeout),
            head: sweeps(server.header_timeout),
            send: sweeps(server.send_timeout),
            silence: sweeps(server.tunnel_timeout),
        };
        let mut from = 0;
        loop {
            {
                let connections = self.connections.borrow();
                for key in from..from + PIECE {
                    if let Some(control) = connections.get(key) {
                        control.sweep(now, &limits);
                    }
                }
                from += PIECE;
                if from >= connections.capacity() {
                    break;
                }
            }
            tokio::task::yield_now().await;
        }
        served.tick();
    }
}

/// How many sweeps a connection may take for what.
struct Limits {
    idle: u64,
    head: u64,
    send: u64,
    silence: u64,
}

impl Control {
    /// Ends it, or gives it the order to end, if it takes too long.
    fn sweep(&self, now: u64, limits: &Limits) {
        let age = now - self.since.get();
        match self.doing.get() {
            Doing::Idle if age > limits.idle => self.give(Order::Finish),
            Doing::Idle if age > SLEEPY && self.http1.get() => self.suggest_sleep(),
            Doing::Head if age > limits.head => self.give(Order::TimeOut),
            Doing::Busy => self.look_for_end(now),
            Doing::Idle | Doing::Head => {}
        }
        let gone = self
            .half_closed
            .get()
            .is_some_and(|since| now - since > io::PATIENCE);
        if gone && self.unread_end.get() && self.in_progress.get() > 0 {
            self.give(Order::Drop);
        } else if gone && let Some(task) = self.task.borrow_mut().take() {
            task.wake();
        }
        let tunnel = self.tunnel.borrow().clone();
        if tunnel.is_some_and(|tunnel| tunnel.sweep(now, limits.silence)) {
            self.give(Order::Drop);
        }
        if self
            .stalled
            .get()
            .is_some_and(|since| now - since > limits.send)
        {
            self.give(Order::Drop);
        }
    }
}

/// Serves a connection until it ends. It is noted at once, not when its task first runs: a worker may
/// hang in between.
pub fn serve(stream: TcpStream, site: Rc<Site>) -> impl Future<Output = ()> {
    let client = site.sockets.note(stream);
    serve_noted(client, site)
}

async fn serve_noted(client: ClientSocket, site: Rc<Site>) {
    let Ok((remote, local)) = client
        .stream
        .peer_addr()
        .and_then(|remote| Ok((remote, client.stream.local_addr()?)))
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
        unread_end: Cell::new(false),
        client: RefCell::default(),
        order: Cell::new(site.draining.get().then_some(Order::Finish)),
        http1: Cell::new(false),
        leaving: RefCell::new(None),
        tunnel: RefCell::new(None),
        task: RefCell::new(None),
    });
    let place = site.connections.borrow_mut().insert(control.clone());
    life::live(Io::new(client, control.clone(), site.clone())).await;
    site.connections.borrow_mut().remove(place);
}
