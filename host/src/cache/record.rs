//! An entry as bytes, for levels that keep it outside of the process: what was written by an older
//! version, by something else, or only half, is told from a value.
//!
//! The head is of a fixed length: mark and version, flags, when it was written, its times, its length
//! before compression, a checksum over all else. The value follows, compressed when that was worth it.

use bytes::Bytes;

use super::entry::Entry;

/// What a record begins with; the last byte is the version.
const MARK: [u8; 4] = *b"phc1";
/// The head's length.
const HEAD: usize = 56;
/// Where the checksum stands in it.
const SUM: usize = 52;
/// There is no value, and that is remembered.
const NONE: u8 = 1;
/// The value is compressed.
const ZSTD: u8 = 2;
/// Fast: a value is compressed on its way, once, and read more often.
const LEVEL: i32 = 1;

/// Why bytes are no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Garbled {
    /// They do not begin as one.
    Foreign,
    /// They are of another version.
    Version(u8),
    /// They were changed, or cut.
    Damaged,
    /// The value is longer than this cache takes.
    TooLarge,
}

impl std::fmt::Display for Garbled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Foreign => f.write_str("it was not written by a cache"),
            Self::Version(version) => write!(f, "version `{}`", version.escape_ascii()),
            Self::Damaged => f.write_str("it is damaged"),
            Self::TooLarge => f.write_str("it is longer than the cache takes"),
        }
    }
}

/// An entry as a record; a value of at least `compress` bytes is compressed when that makes it
/// shorter.
pub(super) fn encode(entry: &Entry, compress: usize) -> Vec<u8> {
    let value: &[u8] = entry.value.as_deref().unwrap_or_default();
    let short = (value.len() >= compress)
        .then(|| zstd::bulk::compress(value, LEVEL).ok())
        .flatten()
        .filter(|short| short.len() < value.len());
    let mut flags = 0;
    if entry.value.is_none() {
        flags |= NONE;
    }
    if short.is_some() {
        flags |= ZSTD;
    }
    let body = short.as_deref().unwrap_or(value);
    let mut record = Vec::with_capacity(HEAD + body.len());
    record.extend_from_slice(&MARK);
    record.extend_from_slice(&[flags, 0, 0, 0]);
    for time in [
        entry.written,
        entry.until,
        entry.due,
        entry.ended,
        entry.keep,
    ] {
        record.extend_from_slice(&time.to_be_bytes());
    }
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
    record.extend_from_slice(&length.to_be_bytes());
    let sum = checksum(&record, body);
    record.extend_from_slice(&sum.to_be_bytes());
    record.extend_from_slice(body);
    record
}

fn checksum(head: &[u8], body: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(head);
    sum.update(body);
    sum.finalize()
}

fn number(record: &[u8], at: usize) -> u64 {
    let bytes = record.get(at..at + 8).and_then(|part| part.try_into().ok());
    bytes.map_or(0, u64::from_be_bytes)
}

fn short_number(record: &[u8], at: usize) -> u32 {
    let bytes = record.get(at..at + 4).and_then(|part| part.try_into().ok());
    bytes.map_or(0, u32::from_be_bytes)
}

/// Whether bytes begin as a record does.
pub(super) fn is_record(bytes: &[u8]) -> bool {
    bytes.starts_with(&MARK)
}

/// The entry of a record; its epoch and its trust are the caller's to give. `most`: the longest value.
pub(super) fn decode(record: &[u8], most: u64) -> Result<Entry, Garbled> {
    let (Some(head), Some(body)) = (record.get(..HEAD), record.get(HEAD..)) else {
        return Err(Garbled::Foreign);
    };
    if head[..3] != MARK[..3] {
        return Err(Garbled::Foreign);
    }
    if head[3] != MARK[3] {
        return Err(Garbled::Version(head[3]));
    }
    if checksum(&head[..SUM], body) != short_number(head, SUM) {
        return Err(Garbled::Damaged);
    }
    let length = short_number(head, 48);
    if u64::from(length) > most {
        return Err(Garbled::TooLarge);
    }
    let value = match head[4] {
        flags if flags & NONE != 0 => None,
        flags if flags & ZSTD != 0 => {
            let value = zstd::bulk::decompress(body, length as usize);
            Some(Bytes::from(value.map_err(|_| Garbled::Damaged)?))
        }
        _ => Some(Bytes::copy_from_slice(body)),
    };
    if value.as_ref().map_or(0, Bytes::len) != length as usize {
        return Err(Garbled::Damaged);
    }
    Ok(Entry {
        value,
        written: number(head, 8),
        until: number(head, 16),
        due: number(head, 24),
        ended: number(head, 32),
        keep: number(head, 40),
        epoch: 0,
        trust: 0,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{Garbled, decode, encode};
    use crate::cache::entry::Entry;

    fn entry(value: Option<Vec<u8>>) -> Entry {
        Entry {
            value: value.map(Bytes::from),
            written: 1,
            until: 2,
            due: 3,
            ended: 4,
            keep: u64::MAX,
            epoch: 0,
            trust: 0,
        }
    }

    #[test]
    fn comes_back_as_it_was() {
        let noise: Vec<u8> = (0..5000_u32)
            .map(|n| n.wrapping_mul(n).to_le_bytes()[1])
            .collect();
        for value in [None, Some(vec![]), Some(vec![b'x'; 5000]), Some(noise)] {
            for compress in [0, 1000, usize::MAX] {
                let entry = entry(value.clone());
                let record = encode(&entry, compress);
                assert_eq!(decode(&record, 5000), Ok(entry));
            }
        }
        assert!(encode(&entry(Some(vec![b'x'; 5000])), 1000).len() < 200);
    }

    #[test]
    fn what_is_cut_changed_older_or_foreign_is_told() {
        let record = encode(&entry(Some(b"a value".to_vec())), 1000);
        for cut in 0..record.len() {
            assert!(decode(&record[..cut], 100).is_err(), "{cut} bytes");
        }
        for at in 0..record.len() {
            let mut changed = record.clone();
            changed[at] ^= 1;
            assert!(decode(&changed, 100).is_err(), "byte {at}");
        }
        let mut newer = record.clone();
        newer[3] = b'2';
        assert_eq!(decode(&newer, 100), Err(Garbled::Version(b'2')));
        assert_eq!(decode(b"hello", 100), Err(Garbled::Foreign));
        assert_eq!(decode(&[b'x'; 100], 100), Err(Garbled::Foreign));
        assert_eq!(decode(&record, 6), Err(Garbled::TooLarge));
    }
}
