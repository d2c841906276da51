//! A bound on the connections to one origin: a request more waits in line until one of those before it has
//! its whole answer.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Uri;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// From so many origins on those that nobody uses are forgotten.
const ORIGINS: usize = 1024;

/// The lines of one client, by origin.
#[derive(Debug, Default, Clone)]
pub(super) struct Lines(Arc<Mutex<HashMap<String, Arc<Semaphore>>>>);

/// A request's turn; it ends when this is dropped.
pub(super) type Turn = OwnedSemaphorePermit;

impl Lines {
    /// Waits for a turn, first come first served.
    pub(super) async fn turn(&self, uri: &Uri, most: usize) -> Option<Turn> {
        let line = self.line(uri, most);
        // It is never closed.
        line.acquire_owned().await.ok()
    }

    fn line(&self, uri: &Uri, most: usize) -> Arc<Semaphore> {
        let scheme = uri.scheme_str().unwrap_or_default();
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let origin = format!("{scheme}://{}", authority.to_ascii_lowercase());
        let mut lines = self.0.lock();
        if lines.len() >= ORIGINS && !lines.contains_key(&origin) {
            lines.retain(|_, line| Arc::strong_count(line) > 1);
        }
        lines
            .entry(origin)
            .or_insert_with(|| Arc::new(Semaphore::new(most)))
            .clone()
    }
}

/// The body of an answer. Its request's turn ends with it.
#[derive(Debug)]
pub struct AnswerBody {
    body: Incoming,
    turn: Option<Turn>,
}

impl AnswerBody {
    pub(super) fn new(body: Incoming, turn: Option<Turn>) -> Self {
        let mut answer = Self { body, turn };
        answer.end_turn();
        answer
    }

    fn end_turn(&mut self) {
        if self.body.is_end_stream() {
            self.turn = None;
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(_)) => self.end_turn(),
            Some(Err(_)) | None => self.turn = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::{Lines, ORIGINS};

    #[test]
    fn turns_come_in_order_and_origins_are_forgotten() {
        let lines = Lines::default();
        let uri = "http://a:1/x".parse().unwrap();
        let first = lines.turn(&uri, 1).now_or_never().flatten().unwrap();
        let mut second = Box::pin(lines.turn(&uri, 1));
        let mut third = Box::pin(lines.turn(&uri, 1));
        assert!((&mut second).now_or_never().is_none());
        assert!((&mut third).now_or_never().is_none());
        let other = "http://b:1/x".parse().unwrap();
        assert!(lines.turn(&other, 1).now_or_never().is_some());
        drop(first);
        assert!((&mut third).now_or_never().is_none());
        let turn = (&mut second).now_or_never().flatten();
        assert!(turn.is_some());
        for n in 0..2 * ORIGINS {
            let uri = format!("http://{n}/").parse().unwrap();
            assert!(lines.turn(&uri, 1).now_or_never().is_some());
        }
        assert!(lines.0.lock().len() <= ORIGINS + 1);
        // The one that is used is none of them.
        assert!((&mut third).now_or_never().is_none());
        drop(turn);
        assert!((&mut third).now_or_never().flatten().is_some());
    }
}
