//! The watchdog behind a language runtime that polices itself: its engine checks no epochs, so a
//! loop in it that forgets to count would hold its worker for ever (`docs/adr/006-no-epochs-for-lua.md`).
//!
//! Every poll of a runtime notes since which tick it lasts; the process's ticker compares. What it
//! finds goes to the supervisor, which starts another worker in the hung one's place.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use super::limits;

/// How many ticks pass between two looks at the hearts.
const LOOK: u64 = 10;
/// The runtime is not inside its guest.
const OUTSIDE: u64 = 0;
/// The supervisor knows already.
const REPORTED: u64 = u64::MAX;

/// A runtime that does not come back.
#[derive(Debug, Clone)]
pub struct Hung {
    /// Its worker.
    pub worker: u32,
    /// Its plugin.
    pub plugin: Arc<str>,
    /// What it exceeded.
    pub limit: Duration,
}

struct Heart {
    /// The tick since which the guest runs, [`OUTSIDE`] or [`REPORTED`].
    since: AtomicU64,
    ticks: u64,
    hung: Hung,
}

static HEARTS: Mutex<Vec<Weak<Heart>>> = Mutex::new(Vec::new());
static REPORT: OnceLock<Box<dyn Fn(Hung) + Send + Sync>> = OnceLock::new();

/// Says who is told of hung runtimes; the first call counts.
pub fn report_to(report: impl Fn(Hung) + Send + Sync + 'static) {
    // A second server in one process does not exist.
    let _first = REPORT.set(Box::new(report)).is_ok();
}

/// Looks at all hearts; the ticker calls it at every tick.
pub(super) fn look() {
    let now = limits::now();
    if !now.is_multiple_of(LOOK) {
        return;
    }
    let Some(report) = REPORT.get() else { return };
    let mut hearts = HEARTS.lock().unwrap_or_else(PoisonError::into_inner);
    hearts.retain(|heart| {
        let Some(heart) = heart.upgrade() else {
            return false;
        };
        let since = heart.since.load(Ordering::Relaxed);
        let inside = since != OUTSIDE && since != REPORTED;
        if inside && now.saturating_sub(since) > heart.ticks {
            // It may have come back in this very moment: then it beats on.
            let still =
                heart
                    .since
                    .compare_exchange(since, REPORTED, Ordering::Relaxed, Ordering::Relaxed);
            if still.is_ok() {
                report(heart.hung.clone());
            }
        }
        true
    });
}

/// A runtime's run with its heart.
pub struct Watched<F> {
    run: F,
    heart: Arc<Heart>,
}

impl<F> Watched<F> {
    /// Watches a run; `hung` is what is reported when one poll of it exceeds the limit.
    pub fn new(run: F, hung: Hung) -> Self {
        let heart = Arc::new(Heart {
            since: AtomicU64::new(OUTSIDE),
            ticks: limits::ticks(hung.limit),
            hung,
        });
        let mut hearts = HEARTS.lock().unwrap_or_else(PoisonError::into_inner);
        hearts.push(Arc::downgrade(&heart));
        Self { run, heart }
    }
}

impl<F: Future + Unpin> Future for Watched<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let now = limits::now().max(1);
        self.heart.since.store(now, Ordering::Relaxed);
        let result = Pin::new(&mut self.run).poll(cx);
        self.heart.since.store(OUTSIDE, Ordering::Relaxed);
        result
    }
}
