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

/// The next news of a key; dropping it gives the place up.
#[derive(Debug)]
pub(crate) struct News<'w> {
    waiters: &'w Waiters,
    key: &'w [u8],
    heard: oneshot::Receiver<()>,
}

impl News<'_> {
    /// Waits for it.
    pub(crate) async fn come(&mut self) {
        // Whoever is asked drops nothing unheard.
        let _heard = (&mut self.heard).await.is_ok();
    }
}

impl Drop for News<'_> {
    fn drop(&mut self) {
        self.heard.close();
        let mut lines = self.waiters.lines.lock();
        if let Some(line) = lines.get_mut(self.key) {
            line.retain(|other| !other.is_closed());
            if line.is_empty() {
                lines.remove(self.key);
            }
        }
    }
}

impl Waiters {
    /// Hears of the next news of a key.
    pub(crate) fn listen<'w>(&'w self, key: &'w [u8]) -> News<'w> {
        let (tell, heard) = oneshot::channel();
        let mut lines = self.lines.lock();
        lines.entry(key.into()).or_default().push(tell);
        News {
            waiters: self,
            key,
            heard,
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::Waiters;

    #[test]
    fn who_leaves_leaves_nothing_behind() {
        let waiters = Waiters::default();
        let mut first = waiters.listen(b"a");
        let second = waiters.listen(b"a");
        let mut other = waiters.listen(b"b");
        drop(second);
        assert!(first.come().now_or_never().is_none());
        waiters.wake(b"a");
        assert!(first.come().now_or_never().is_some());
        assert!(other.come().now_or_never().is_none());
        drop((first, other));
        assert!(waiters.lines.lock().is_empty());
    }
}
