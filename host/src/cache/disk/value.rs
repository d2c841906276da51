//! A value as it is on disk: its turn and its trust beside the record that other levels write, too, with
//! a sum that its key goes into. What is another key's, damaged, or of another version is told from one.

use bytes::Bytes;

use super::super::entry::Entry;
use super::super::record;

/// What a value on disk begins with; the last byte is the version.
const MARK: [u8; 4] = *b"phd1";
/// The mark, a sum over all here and the key, the turn, the trust.
pub(super) const HEAD: usize = 24;
/// A value that was found.
#[derive(Debug)]
pub(in crate::cache) struct Held {
    /// Itself; its trust is of then.
    pub(in crate::cache) entry: Entry,
    /// When it was written.
    pub(super) turn: u64,
}

fn sum(key: &[u8], turn: &[u8], trust: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    for part in [key, turn, trust] {
        sum.update(part);
    }
    sum.finalize()
}

/// A value with its turn, as it is on disk.
pub(super) fn encode(key: &[u8], entry: &Entry, turn: u64) -> Bytes {
    let record = record::encode(entry, usize::MAX);
    let (turn, trust) = (turn.to_be_bytes(), entry.trust.to_be_bytes());
    let mut bytes = Vec::with_capacity(HEAD + record.len());
    bytes.extend_from_slice(&MARK);
    bytes.extend_from_slice(&sum(key, &turn, &trust).to_be_bytes());
    bytes.extend_from_slice(&turn);
    bytes.extend_from_slice(&trust);
    bytes.extend_from_slice(&record);
    bytes.into()
}

pub(super) fn decode(key: &[u8], bytes: &Bytes, most: u64) -> Result<Held, record::Garbled> {
    let (Some(head), Some(record)) = (bytes.get(..HEAD), bytes.get(HEAD..)) else {
        return Err(record::Garbled::Foreign);
    };
    if head[..3] != MARK[..3] {
        return Err(record::Garbled::Foreign);
    }
    if head[3] != MARK[3] {
        return Err(record::Garbled::Version(head[3]));
    }
    if head[4..8] != sum(key, &head[8..16], &head[16..24]).to_be_bytes() {
        return Err(record::Garbled::Damaged);
    }
    let number = |at: usize| head[at..at + 8].try_into().map_or(0, u64::from_be_bytes);
    let entry = record::decode(record, most)?;
    Ok(Held {
        entry: Entry {
            trust: number(16),
            ..entry
        },
        turn: number(8),
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{Entry, decode, encode, record::Garbled};

    #[test]
    fn what_is_another_keys_cut_or_changed_is_told() {
        let entry = Entry {
            value: Some(Bytes::from_static(b"a value")),
            until: 2,
            due: 2,
            ended: 2,
            keep: 3,
            epoch: 0,
            written: 1,
            trust: 7,
        };
        let bytes = encode(b"k", &entry, 42);
        let held = decode(b"k", &bytes, 100).unwrap();
        assert_eq!((held.entry, held.turn), (entry, 42));
        assert_eq!(decode(b"l", &bytes, 100).unwrap_err(), Garbled::Damaged);
        for at in 0..bytes.len() {
            assert!(decode(b"k", &bytes.slice(..at), 100).is_err(), "{at} bytes");
            let mut changed = bytes.to_vec();
            changed[at] ^= 1;
            assert!(decode(b"k", &changed.into(), 100).is_err(), "byte {at}");
        }
    }
}
