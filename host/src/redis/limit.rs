//! A limit on the length of a reply, held where the bytes come in: the `redis` crate gathers a reply
//! whole before it looks at it, so a reply of half a gigabyte would be half a gigabyte of memory.
//!
//! A scanner follows the protocol's framing and nothing else; when a reply becomes too long the
//! stream fails, and with it the connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A line of the protocol that announces something is short; a longer one is text.
const NUMBER: usize = 32;
/// About what an element takes in memory once it is read: a list of many short ones counts as much.
const ELEMENT: usize = 32;

/// Where in a reply the stream is.
#[derive(Debug)]
enum At {
    /// Before a value's first byte.
    Begin,
    /// In a line: its kind, and its first digits.
    Line(u8, Vec<u8>),
    /// In the bytes of a string: how many are left, with the line's end.
    Bytes(usize),
}

/// Follows replies and adds up their length.
#[derive(Debug)]
pub(super) struct Scanner {
    at: At,
    /// Values that are still to come at each depth.
    open: Vec<u64>,
    length: usize,
    limit: usize,
}

impl Scanner {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            at: At::Begin,
            open: Vec::new(),
            length: 0,
            limit,
        }
    }

    /// Reads on. False when the reply is too long.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match &mut self.at {
                At::Begin => {
                    self.at = At::Line(bytes[0], Vec::new());
                    bytes = &bytes[1..];
                }
                At::Line(_, text) => {
                    let end = memchr::memchr(b'\n', bytes);
                    let part = &bytes[..end.unwrap_or(bytes.len())];
                    let room = NUMBER.saturating_sub(text.len());
                    text.extend_from_slice(&part[..part.len().min(room)]);
                    self.length += part.len();
                    bytes = &bytes[end.map_or(bytes.len(), |end| end + 1)..];
                    if end.is_some() {
                        self.line();
                    }
                }
                At::Bytes(left) => {
                    let part = bytes.len().min(*left);
                    *left -= part;
                    bytes = &bytes[part..];
                    if *left == 0 {
                        self.value();
                    }
                }
            }
            if self.length > self.limit {
                return false;
            }
        }
        true
    }

    /// A line is complete.
    fn line(&mut self) {
        let At::Line(kind, text) = std::mem::replace(&mut self.at, At::Begin) else {
            return;
        };
        let number = std::str::from_utf8(&text)
            .ok()
            .and_then(|text| text.trim_end().parse::<i64>().ok())
            .and_then(|number| u64::try_from(number).ok());
        self.length = self.length.saturating_add(ELEMENT);
        match (kind, number) {
            (b'$' | b'=' | b'!', Some(bytes)) => {
                let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                self.length = self.length.saturating_add(bytes);
                self.at = At::Bytes(bytes.saturating_add(2));
            }
            (b'*' | b'~' | b'>', Some(values)) if values > 0 => self.nest(values),
            (b'%' | b'|', Some(pairs)) if pairs > 0 => self.nest(pairs.saturating_mul(2)),
            _ => self.value(),
        }
    }

    fn nest(&mut self, values: u64) {
        let least = usize::try_from(values).unwrap_or(usize::MAX);
        // What is announced counts at once: each is an element at least.
        if self.length.saturating_add(least.saturating_mul(ELEMENT)) > self.limit {
            self.length = usize::MAX;
        }
        self.open.push(values);
    }

    /// A value is complete; it may complete those around it.
    fn value(&mut self) {
        self.at = At::Begin;
        while let Some(left) = self.open.last_mut() {
            *left -= 1;
            if *left > 0 {
                return;
            }
            self.open.pop();
        }
        self.length = 0;
    }
}

/// A stream whose replies have a limit.
#[derive(Debug)]
pub(super) struct Limited<S> {
    stream: S,
    scanner: Scanner,
    exceeded: Arc<AtomicBool>,
}

impl<S> Limited<S> {
    /// `exceeded` becomes true when a reply was too long.
    pub(super) fn new(stream: S, limit: usize, exceeded: Arc<AtomicBool>) -> Self {
        Self {
            stream,
            scanner: Scanner::new(limit),
            exceeded,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Limited<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if self.scanner.feed(&buffer.filled()[before..]) {
            return Poll::Ready(Ok(()));
        }
        self.exceeded.store(true, Ordering::Relaxed);
        Poll::Ready(Err(io::Error::other("a reply was too long")))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Limited<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::Scanner;

    fn fits(limit: usize, replies: &[u8]) -> bool {
        // Byte by byte and at once must be the same.
        let mut slow = Scanner::new(limit);
        let slow = replies.chunks(1).all(|byte| slow.feed(byte));
        assert_eq!(slow, Scanner::new(limit).feed(replies));
        slow
    }

    #[test]
    fn counts_each_reply_by_itself() {
        let reply = b"$100\r\n"
            .iter()
            .copied()
            .chain([b'x'; 100])
            .chain(*b"\r\n");
        let many: Vec<u8> = std::iter::repeat_n(reply, 50).flatten().collect();
        assert!(fits(150, &many));
        assert!(!fits(99, &many));
    }

    #[test]
    fn an_announced_length_is_enough() {
        assert!(!fits(1 << 20, b"$536870912\r\n"));
        assert!(!fits(1 << 20, b"*99999999\r\n"));
        assert!(!fits(1 << 20, b"*9223372036854775807\r\n"));
        assert!(!fits(1 << 20, b"%9223372036854775807\r\n"));
    }

    #[test]
    fn nested_replies_add_up() {
        let reply = b"*2\r\n%1\r\n+a\r\n:1\r\n*-1\r\n";
        assert!(fits(1024, &reply.repeat(100)));
        let long = [&b"*100\r\n"[..], &b"$10\r\n0123456789\r\n".repeat(100)].concat();
        assert!(!fits(3000, &long));
        assert!(fits(8000, &long.repeat(3)));
    }

    #[test]
    fn endless_text_ends() {
        assert!(!fits(1000, &[&b"+"[..], &[b'x'; 2000]].concat()));
    }
}
