//! The answer's body between the handler that writes it and the connection that sends it: bounded, so
//! that a slow client slows its own handler and nobody else.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

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
    /// Body bytes that the connection has taken.
    pub taken: u64,
    /// The whole body was there before the head left.
    pub whole: bool,
    /// Reactors to tell when everything has been taken.
    pub tell_drained: Vec<u32>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Output {
    pub(super) fn clear(&mut self) {
        self.chunks.clear();
        self.queued = 0;
        self.ended = false;
        self.broken = false;
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
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// The connection cannot take any more.
    pub fn break_off(&mut self) {
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
        if self.ended {
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
        if self.broken {
            return Poll::Ready(false);
        }
        if self.queued < WINDOW {
            return Poll::Ready(true);
        }
        self.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Bytes that wait for the connection.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queued
    }
}
