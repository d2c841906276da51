//! A plugin may ask the server it runs in: what such a request is, and how it hangs together with the
//! exchange that asked. Who runs it is above this layer ([`Begin`]).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::sync::oneshot;

use super::ExchangeId;

/// Which body a subrequest has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodySource {
    /// None.
    None,
    /// That of who asks, if it has been read.
    Current,
    /// These bytes.
    Bytes(Bytes),
}

/// Which variables a subrequest begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inherit {
    /// None.
    None,
    /// A copy of those of who asks.
    Copy,
    /// The same.
    Share,
}

/// A request inside the server.
#[derive(Debug)]
pub struct Order {
    /// A URI or `@name`.
    pub target: String,
    /// The method.
    pub method: Method,
    /// In place of those of who asks.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Its body.
    pub body: BodySource,
    /// Its variables.
    pub inherit: Inherit,
    /// Set on top of these.
    pub variables: Vec<(String, Vec<u8>)>,
    /// What its plugins find in `context`.
    pub context: Vec<(String, Vec<u8>)>,
}

/// Its answer.
#[derive(Debug, Default)]
pub struct Captured {
    /// The status.
    pub status: u16,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
    /// Not all of it.
    pub truncated: bool,
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// No URI.
    Target(String),
    /// No route declares this variable.
    Variable(String),
    /// Nested too deep; the limit.
    Depth(u32),
    /// Too many at a time; the limit.
    Count(u32),
}

/// Where the answer comes in. Dropping it ends the subrequest.
pub type Answer = oneshot::Receiver<Captured>;

/// Begins subrequests.
pub trait Begin {
    /// Begins one for `parent`.
    ///
    /// # Errors
    /// When it cannot begin.
    fn begin(self: Rc<Self>, parent: ExchangeId, order: Order) -> Result<Answer, Refused>;
}

/// What an exchange has to do with others.
#[derive(Default)]
pub struct Family {
    /// 0: a client asked.
    pub depth: u32,
    /// A subrequest's answer is not whole.
    pub truncated: bool,
    /// Begins subrequests of it; none before its engine runs.
    pub begin: Option<Rc<dyn Begin>>,
    children: Vec<Rc<Leash>>,
}

impl std::fmt::Debug for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Family")
            .field("depth", &self.depth)
            .field("children", &self.children.len())
            .finish_non_exhaustive()
    }
}

/// Ties a subrequest to the exchange that asked for it.
#[derive(Debug, Default)]
pub struct Leash {
    cut: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Leash {
    /// Ready when the other end is gone.
    pub fn poll_cut(&self, cx: &Context<'_>) -> Poll<()> {
        if self.cut.get() {
            return Poll::Ready(());
        }
        self.waker.replace(Some(cx.waker().clone()));
        Poll::Pending
    }

    fn cut(&self) {
        self.cut.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Family {
    /// One more subrequest, if fewer than `most` are in progress.
    pub fn adopt(&mut self, most: u32) -> Option<Rc<Leash>> {
        // Who runs the subrequest holds the other share.
        self.children.retain(|leash| Rc::strong_count(leash) > 1);
        if self.children.len() >= most as usize {
            return None;
        }
        let leash = Rc::new(Leash::default());
        self.children.push(leash.clone());
        Some(leash)
    }

    /// The exchange is over, and with it what it asked for.
    pub(super) fn end(self) {
        for leash in self.children {
            leash.cut();
        }
    }
}
