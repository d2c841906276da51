//! The purges by beginning and by tag in a file, so that what was purged before a restart stays so: each
//! is appended; when most of the file is of no use any more it is written anew.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::purges::{Known, MOST, Record};

/// The head of a record: its length, its sum.
const HEAD: usize = 8;

/// The file.
#[derive(Debug)]
pub(super) struct PurgeLog {
    path: PathBuf,
    file: File,
    records: usize,
}

fn encode(record: Record<'_>) -> Vec<u8> {
    let mut body = vec![record.kind()];
    body.extend_from_slice(&record.at().to_be_bytes());
    body.extend_from_slice(record.text());
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEAD + body.len());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&body).to_be_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// The first record, and what comes after it.
fn decode(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let number = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let length = number(0)? as usize;
    let body = bytes.get(HEAD..HEAD.checked_add(length)?)?;
    if crc32fast::hash(body) != number(4)? {
        return None;
    }
    let at = u64::from_be_bytes(body.get(1..9)?.try_into().ok()?);
    let text = body.get(9..)?;
    let record = Record::new(body[0], text, at)?;
    Some((record, &bytes[HEAD + length..]))
}

impl PurgeLog {
    /// Opens it; what is told of is added to `known`. A record that was cut by the end of a process was
    /// not acknowledged; it ends the file.
    pub(super) fn open(path: &Path, known: &mut Known) -> io::Result<Self> {
        let mut bytes = Vec::new();
        match File::open(path) {
            Ok(mut file) => {
                file.read_to_end(&mut bytes)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut rest = &bytes[..];
        while let Some((record, after)) = decode(rest) {
            known.add(record);
            rest = after;
        }
        Self::rewrite(path, known)
    }

    fn rewrite(path: &Path, known: &Known) -> io::Result<Self> {
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        let mut bytes = Vec::new();
        let mut records = 0;
        for record in known.records() {
            bytes.extend_from_slice(&encode(record));
            records += 1;
        }
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(Self {
            path: path.to_owned(),
            file: OpenOptions::new().append(true).open(path)?,
            records,
        })
    }

    /// One more; it is on the disk when this returns. `known` are all with it.
    pub(super) fn add(&mut self, record: Record<'_>, known: &Arc<Known>) -> io::Result<()> {
        if self.records > 2 * MOST {
            *self = Self::rewrite(&self.path, known)?;
            return Ok(());
        }
        self.file.write_all(&encode(record))?;
        self.records += 1;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Known, PurgeLog, Record};

    #[test]
    fn a_file_cut_anywhere_gives_what_came_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("purges");
        let mut log = PurgeLog::open(&path, &mut Known::default()).unwrap();
        let known = Arc::default();
        log.add(Record::Prefix(b"/a/", 10), &known).unwrap();
        log.add(Record::Tag(b"x", 20), &known).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut known = Known::default();
            PurgeLog::open(&path, &mut known).unwrap();
            let count = known.records().count();
            let expected = match cut {
                cut if cut == whole.len() => 2,
                cut if cut >= 20 => 1,
                _ => 0,
            };
            assert_eq!(count, expected, "{cut} of {} bytes", whole.len());
        }
    }

    #[test]
    fn the_file_does_not_grow_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("purges");
        let mut log = PurgeLog::open(&path, &mut Known::default()).unwrap();
        log.records = 2 * super::MOST + 1;
        let mut known = Known::default();
        known.add(Record::Tag(b"x", 20));
        log.add(Record::Tag(b"x", 20), &Arc::new(known)).unwrap();
        assert_eq!(log.records, 1);
        let mut known = Known::default();
        PurgeLog::open(&path, &mut known).unwrap();
        assert_eq!(known.records().count(), 1);
    }
}
