//! What a language runtime waits for. Its own task polls what was woken, so that neither a task nor a
//! turn of the scheduler lies between a socket that is readable and the batch that tells of it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Poll};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::{ReactorId, record, with};

/// Something under way.
pub trait Awaited: Send + Sync {
    /// Whether it is over; if not, `cx` is woken when it may be, and when it is dropped.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()>;
}

/// Who waits for it, and with which token.
struct Watched {
    job: u32,
    token: u32,
    of: Weak<dyn Awaited>,
}

impl Future for Watched {
    /// Nothing when it was dropped.
    type Output = Option<(u32, u32)>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.of.upgrade() {
            Some(of) => of.poll(cx).map(|()| Some((self.job, self.token))),
            None => Poll::Ready(None),
        }
    }
}

/// All of a reactor.
#[derive(Default)]
pub(super) struct Watching(FuturesUnordered<Watched>);

/// Tells the guest when it is over; does nothing if it is dropped before.
pub fn watch(id: ReactorId, job: u32, token: u32, of: Weak<dyn Awaited>) {
    with(id, |reactor| {
        let watching = reactor.watching.get_or_insert_default();
        watching.0.push(Watched { job, token, of });
    });
}

/// Writes of what is over into the inbox. Outside of the reactor's borrow: what is polled may come
/// back to it.
pub(super) fn look(id: ReactorId, cx: &mut Context<'_>) {
    let Some(mut watching) = with(id, |reactor| reactor.watching.take()) else {
        return;
    };
    while let Poll::Ready(Some(over)) = watching.0.poll_next_unpin(cx) {
        if let Some((job, token)) = over {
            with(id, |reactor| record::ready(&mut reactor.inbox, job, token));
        }
    }
    with(id, |reactor| reactor.watching = Some(watching));
}

/// How many are waited for.
#[cfg(test)]
pub(crate) fn watched(id: ReactorId) -> usize {
    with(id, |reactor| {
        reactor.watching.as_ref().map_or(0, |all| all.0.len())
    })
}
