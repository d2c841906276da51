//! Those of this server who wait for news of a key that another server sends.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::oneshot;

type Line = Vec<oneshot::Sender<()>>;

/// By key.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    lines: Mutex<HashMap<Box<[u8]>, Line>>,
}

impl Waiters {
    /// Hears of the next news of a key.
    pub(crate) fn listen(&self, key: &[u8]) -> oneshot::Receiver<()> {
        let (tell, news) = oneshot::channel();
        let mut lines = self.lines.lock();
        let line = lines.entry(key.into()).or_default();
        line.retain(|other| !other.is_closed());
        line.push(tell);
        news
    }

    /// Drops those of a key who do not wait any more.
    pub(crate) fn forget(&self, key: &[u8]) {
        let mut lines = self.lines.lock();
        if let Some(line) = lines.get_mut(key) {
            line.retain(|other| !other.is_closed());
            if line.is_empty() {
                lines.remove(key);
            }
        }
    }

    /// There is news of a key.
    pub(crate) fn wake(&self, key: &[u8]) {
        let line = self.lines.lock().remove(key);
        tell(line.unwrap_or_default());
    }

    /// There may have been news of any key.
    pub(crate) fn wake_all(&self) {
        let lines = std::mem::take(&mut *self.lines.lock());
        tell(lines.into_values().flatten());
    }
}

fn tell(line: impl IntoIterator<Item = oneshot::Sender<()>>) {
    for waiter in line {
        // Whoever has left needs nothing.
        let _heard = waiter.send(()).is_ok();
    }
}
