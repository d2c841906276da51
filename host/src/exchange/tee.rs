//! Two ways for one body: what its handler writes goes to whoever keeps it (the tee) as it is, and to
//! the client as far as it wants it: all, a range, or nothing, as for HEAD and 304.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::output::WINDOW;

/// What the client gets of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// All of it.
    Whole,
    /// So much, after so much.
    Range {
        /// Bytes before it.
        skip: u64,
        /// Bytes of it.
        left: u64,
    },
    /// No more: it has what it gets.
    Nothing,
}

impl Share {
    /// The client's share of a piece.
    pub(super) fn cut(&mut self, bytes: &Bytes) -> Bytes {
        match self {
            Self::Whole => bytes.clone(),
            Self::Nothing => Bytes::new(),
            Self::Range { skip, left } => {
                let length = bytes.len() as u64;
                let from = length.min(*skip);
                let to = length.min(from.saturating_add(*left));
                *skip -= from;
                *left -= to - from;
                let place = |at: u64| usize::try_from(at).unwrap_or(bytes.len());
                let share = bytes.slice(place(from)..place(to));
                if *left == 0 {
                    *self = Self::Nothing;
                }
                share
            }
        }
    }
}

#[derive(Debug, Default)]
struct Pipe {
    chunks: VecDeque<Bytes>,
    queued: usize,
    ended: bool,
    /// The body will not come to its end, or nobody keeps it any more.
    cut: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn wake(waker: &mut Option<Waker>) {
        if let Some(waker) = waker.take() {
            waker.wake();
        }
    }
}

/// The end into which the body is written. Dropping it before the body has ended cuts it off.
#[derive(Debug)]
pub struct TeeWriter(Rc<RefCell<Pipe>>);

/// The end of whoever keeps the body.
#[derive(Debug)]
pub struct TeeReader(Rc<RefCell<Pipe>>);

/// What comes out of a tee.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes.
    Bytes(Bytes),
    /// The body has ended.
    End,
    /// It will not: what came is not the whole.
    Cut,
}

/// A pipe for a body.
#[must_use]
pub fn tee() -> (TeeWriter, TeeReader) {
    let pipe = Rc::new(RefCell::new(Pipe::default()));
    (TeeWriter(pipe.clone()), TeeReader(pipe))
}

impl TeeWriter {
    /// Adds a piece.
    pub fn push(&self, bytes: &Bytes) {
        let mut pipe = self.0.borrow_mut();
        if pipe.cut || bytes.is_empty() {
            return;
        }
        pipe.queued += bytes.len();
        pipe.chunks.push_back(bytes.clone());
        Pipe::wake(&mut pipe.reader);
    }

    pub(super) fn end(&self) {
        let mut pipe = self.0.borrow_mut();
        pipe.ended = true;
        Pipe::wake(&mut pipe.reader);
    }

    /// Whether somebody keeps the body still.
    pub(super) fn is_kept(&self) -> bool {
        !self.0.borrow().cut
    }

    /// Waits until there is room; ready at once when nobody keeps the body.
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let mut pipe = self.0.borrow_mut();
        if pipe.cut || pipe.queued < WINDOW {
            return Poll::Ready(());
        }
        pipe.writer = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for TeeWriter {
    fn drop(&mut self) {
        let mut pipe = self.0.borrow_mut();
        if !pipe.ended {
            pipe.cut = true;
            Pipe::wake(&mut pipe.reader);
        }
    }
}

impl TeeReader {
    /// The next piece.
    pub async fn next(&mut self) -> Piece {
        std::future::poll_fn(|cx| {
            let mut pipe = self.0.borrow_mut();
            if pipe.cut {
                return Poll::Ready(Piece::Cut);
            }
            if let Some(bytes) = pipe.chunks.pop_front() {
                pipe.queued -= bytes.len();
                if pipe.queued <= WINDOW / 2 {
                    Pipe::wake(&mut pipe.writer);
                }
                return Poll::Ready(Piece::Bytes(bytes));
            }
            if pipe.ended {
                return Poll::Ready(Piece::End);
            }
            pipe.reader = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Drop for TeeReader {
    fn drop(&mut self) {
        let mut pipe = self.0.borrow_mut();
        pipe.cut = true;
        pipe.chunks.clear();
        pipe.queued = 0;
        Pipe::wake(&mut pipe.writer);
    }
}

#[cfg(test)]
mod tests {
    use super::Share;
    use bytes::Bytes;

    #[test]
    fn a_range_is_cut_out_of_pieces() {
        for (skip, left, expected) in [
            (0, 1, "a"),
            (2, 3, "cde"),
            (3, 3, "def"),
            (7, 9, "h"),
            (9, 1, ""),
        ] {
            let mut share = Share::Range { skip, left };
            let got: Vec<u8> = ["abc", "def", "gh"]
                .iter()
                .flat_map(|piece| share.cut(&Bytes::from_static(piece.as_bytes())))
                .collect();
            assert_eq!(got, expected.as_bytes(), "{skip} {left}");
        }
    }
}
