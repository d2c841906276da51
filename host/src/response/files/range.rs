//! `Range` → the parts of a file, apart because its grammar has more corners than its use.

/// More ranges than this are answered with the whole file: nobody reads like that but an attacker.
const MAX_RANGES: usize = 64;

/// A part of a file; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    /// Where it begins.
    pub start: u64,
    /// How long it is.
    pub length: u64,
}

/// What a `Range` header asks of a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// The whole: another unit, or ranges that would be longer than the file itself.
    Whole,
    /// These parts, in this order.
    Parts(Vec<ByteRange>),
    /// Nothing that the file has, or nothing that can be read: 416, as in nginx.
    Nothing,
}

/// Reads the header for a file of `size` bytes.
#[must_use]
pub fn parse(header: &[u8], size: u64) -> Asked {
    let header = header.trim_ascii();
    if !header
        .get(..6)
        .is_some_and(|unit| unit.eq_ignore_ascii_case(b"bytes="))
    {
        return Asked::Whole;
    }
    let mut parts = Vec::new();
    let mut total: u64 = 0;
    for spec in header[6..].split(|&byte| byte == b',') {
        let spec = spec.trim_ascii();
        if spec.is_empty() {
            continue;
        }
        let Some(found) = one(spec, size) else {
            return Asked::Nothing;
        };
        if let Some(part) = found {
            total = total.saturating_add(part.length);
            parts.push(part);
        }
    }
    if parts.is_empty() {
        Asked::Nothing
    } else if parts.len() > MAX_RANGES || total > size {
        Asked::Whole
    } else {
        Asked::Parts(parts)
    }
}

/// One range: `None` when it cannot be read, `Some(None)` when the file does not reach that far.
fn one(spec: &[u8], size: u64) -> Option<Option<ByteRange>> {
    let at = spec.iter().position(|&byte| byte == b'-')?;
    let (first, last) = (spec[..at].trim_ascii(), spec[at + 1..].trim_ascii());
    if first.is_empty() {
        let length = number(last)?.min(size);
        return Some((length != 0).then_some(ByteRange {
            start: size - length,
            length,
        }));
    }
    let start = number(first)?;
    let end = if last.is_empty() {
        u64::MAX
    } else {
        number(last)?
    };
    if end < start {
        return None;
    }
    if start >= size {
        return Some(None);
    }
    let end = end.min(size - 1);
    Some(Some(ByteRange {
        start,
        length: end - start + 1,
    }))
}

/// Decimal digits; one that is too large for the type is larger than any file.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let push = |sum: u64, digit: &u8| {
        sum.saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    };
    Some(digits.iter().fold(0, push))
}
