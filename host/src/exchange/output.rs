//! The answer's body between the handler that writes it and the connection that sends it: bounded, so
//! that a slow client slows its own handler and nobody else.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::tee::{Share, TeeWriter};

/// Bytes that a handler may have unsent before it waits (nginx: `output_buffers`, 2 × 32 KiB).
pub const WINDOW: usize = 64 << 10;

/// A bounded queue of pieces.
#[derive(Debug, Default)]
pub struct Output {
    chunks: VecDeque<Bytes>,
    queued: usize,
    /// No more will come.
    pub ended: bool,
    /// The client is gone, or the answer cannot go on.
    pub broken: bool,
    /// The client left, and the answer is brought to its end without it.
    pub left: bool,
    /// All is gathered before any of it leaves: there is always room.
    pub gathers: bool,
    /// What is written is kept, or the client gets a part of it only.
    split: Option<Box<Split>>,
    /// Body bytes that the connection has taken.
    pub taken: u64,
    /// The whole body was there before the head left.
    pub whole: bool,
    /// Reactors to tell when everything has been taken.
    pub tell_drained: Vec<u32>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// Where the body goes besides, and what the client gets of it.
#[derive(Debug)]
struct Split {
    tee: Option<TeeWriter>,
    share: Share,
}

impl Output {
    pub(super) fn clear(&mut self) {
        self.chunks.clear();
        self.queued = 0;
        self.ended = false;
        self.broken = false;
        self.left = false;
        self.gathers = false;
        self.split = None;
        self.taken = 0;
        self.whole = false;
        self.tell_drained.clear();
        self.reader = None;
        self.writer = None;
    }

    /// Forgets what is queued, for an answer that takes its place.
    pub fn reset(&mut self) {
        self.chunks.clear();
        self.queued = 0;
        self.ended = false;
    }

    /// Adds a piece.
    pub fn push(&mut self, bytes: Bytes) {
        let bytes = match &mut self.split {
            None => bytes,
            Some(split) => {
                if let Some(tee) = &split.tee {
                    tee.push(&bytes);
                }
                let share = split.share.cut(&bytes);
                if split.share == Share::Nothing
                    && let Some(reader) = self.reader.take()
                {
                    reader.wake();
                }
                share
            }
        };
        if bytes.is_empty() || self.broken {
            return;
        }
        self.queued += bytes.len();
        self.chunks.push_back(bytes);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Ends the body.
    pub fn end(&mut self) {
        self.ended = true;
        if let Some(tee) = self.split.as_mut().and_then(|split| split.tee.take()) {
            tee.end();
        }
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// The answer cannot go on: neither for the client nor for whoever keeps it.
    pub fn break_off(&mut self) {
        if let Some(split) = &mut self.split {
            split.tee = None;
        }
        self.leave();
    }

    /// The client cannot take any more; whoever keeps the body gets it even so.
    pub fn leave(&mut self) {
        self.broken = true;
        self.chunks.clear();
        self.queued = 0;
        for waker in [self.reader.take(), self.writer.take()]
            .into_iter()
            .flatten()
        {
            waker.wake();
        }
    }

    /// Takes a piece for the connection. `None` is the end.
    pub fn poll_take(&mut self, cx: &Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(bytes) = self.take() {
            return Poll::Ready(Some(bytes));
        }
        if self.is_over() {
            return Poll::Ready(None);
        }
        self.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Takes a piece that is there.
    pub fn take(&mut self) -> Option<Bytes> {
        let bytes = self.chunks.pop_front()?;
        self.queued -= bytes.len();
        self.taken += bytes.len() as u64;
        if self.queued <= WINDOW / 2
            && let Some(writer) = self.writer.take()
        {
            writer.wake();
        }
        Some(bytes)
    }

    /// Everything at once, as one piece when there is only one.
    pub fn take_whole(&mut self) -> Option<Bytes> {
        if self.chunks.len() <= 1 {
            return self.take();
        }
        let mut all = Vec::with_capacity(self.queued);
        while let Some(bytes) = self.take() {
            all.extend_from_slice(&bytes);
        }
        Some(all.into())
    }

    /// Waits until there is room. False: nobody will read any more.
    pub fn poll_room(&mut self, cx: &Context<'_>) -> Poll<bool> {
        let mut kept = false;
        if let Some(tee) = self.split.as_ref().and_then(|split| split.tee.as_ref()) {
            std::task::ready!(tee.poll_room(cx));
            kept = tee.is_kept();
        }
        if self.broken || self.has_all() {
            return Poll::Ready(kept);
        }
        if self.queued < WINDOW || self.gathers {
            return Poll::Ready(true);
        }
        self.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// From here on what is written goes to `tee`, too, and only `share` of it to the client; what
    /// has been written already is treated alike. Before the connection has taken any.
    pub fn split(&mut self, tee: Option<TeeWriter>, share: Share) {
        let written = std::mem::take(&mut self.chunks);
        self.queued = 0;
        self.split = Some(Box::new(Split { tee, share }));
        for bytes in written {
            self.push(bytes);
        }
        if self.ended {
            self.end();
        }
    }

    /// The client gets this and nothing of what the handler writes; more can follow until
    /// [`Self::end`].
    pub fn instead(&mut self, bytes: Bytes) {
        if self.broken || bytes.is_empty() {
            return;
        }
        self.queued += bytes.len();
        self.chunks.push_back(bytes);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Whether the client has all that it gets, although the handler may go on.
    #[must_use]
    pub fn has_all(&self) -> bool {
        self.split
            .as_ref()
            .is_some_and(|split| split.share == Share::Nothing)
    }

    /// Whether no more comes for the client.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.ended || self.has_all()
    }

    /// Whether it is there to its end and can leave as one piece without much copying.
    #[must_use]
    pub fn is_one_piece(&self) -> bool {
        self.is_over() && !self.broken && (self.chunks.len() <= 1 || self.queued <= WINDOW)
    }

    /// Whether a handler need not wait until what it wrote has been taken.
    #[must_use]
    pub fn needs_no_reader(&self) -> bool {
        self.broken || self.gathers || self.has_all()
    }

    /// Whether nobody wants what is written.
    #[must_use]
    pub fn is_unwanted(&self) -> bool {
        let kept = self
            .split
            .as_ref()
            .and_then(|split| split.tee.as_ref())
            .is_some_and(TeeWriter::is_kept);
        !kept && (self.broken || self.has_all())
    }

    /// Bytes that wait for the connection.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queued
    }
}
