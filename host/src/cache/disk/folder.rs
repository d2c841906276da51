//! The folder of a level on disk: whose it is, what is in it, and what of it can be gone on with.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::ledger::{self, Ledger};

/// A page of the store.
const PAGE: usize = 4096;
/// What is written and thrown away at once, of small and of large levels.
const BLOCK: std::ops::RangeInclusive<u64> = 256 << 10..=64 << 20;
/// What is gathered before it is written; no value is longer.
const BUFFER: u64 = 8 << 20;

/// How the bytes of a level are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// All of it.
    pub(super) size: u64,
    /// For values.
    pub(super) room: u64,
    /// A block.
    pub(super) block: u64,
    /// What is gathered.
    pub(super) buffer: u64,
    /// The longest value with its key and heads.
    pub(super) longest: u64,
}

impl Layout {
    pub(super) fn of(size: u64) -> Self {
        let block = (size / 64)
            .next_power_of_two()
            .clamp(*BLOCK.start(), *BLOCK.end());
        let room = size.saturating_sub(ledger::length_for(size)) / block * block;
        let buffer = block.min(BUFFER);
        Self {
            size,
            room,
            block,
            buffer,
            longest: buffer.min(block - PAGE as u64),
        }
    }
}

/// What becomes of what was in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Past {
    /// It goes on.
    Kept,
    /// There was nothing.
    None,
    /// It is another cache's, of another layout, or damaged.
    ThrownAway,
}

/// A folder that this process alone uses.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Holds the lock.
    lock: File,
}

impl Folder {
    /// Makes it, if it is not there, and takes it. `None`: this process has it.
    pub(super) fn take(path: &Path) -> Result<Option<Self>, String> {
        let failed = |error: &io::Error| format!("{}: {error}", path.display());
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| failed(&error))?;
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(|error| failed(&error))?;
        let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        if let Err(error) = rustix::fs::flock(&lock, exclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(failed(&error.into()));
            }
            let mut owner = String::new();
            let _read = lock.read_to_string(&mut owner);
            let owner = owner.trim();
            if owner.parse() == Ok(std::process::id()) {
                return Ok(None);
            }
            return Err(format!("{}: process {owner} uses it", path.display()));
        }
        let own = format!("{}\n", std::process::id());
        lock.set_len(0)
            .and_then(|()| lock.write_all(own.as_bytes()))
            .map_err(|error| failed(&error))?;
        Ok(Some(Self {
            path: path.to_owned(),
            lock,
        }))
    }

    pub(super) fn ledger(&self) -> PathBuf {
        self.path.join("ledger")
    }

    pub(super) fn purges(&self) -> PathBuf {
        self.path.join("purges")
    }

    /// Where the store has its files.
    pub(super) fn blocks(&self) -> PathBuf {
        self.path.join("blocks")
    }

    /// What was overtaken, and what becomes of the values. What is of another cache, of another size or
    /// damaged is thrown away: nothing tells there which values still count.
    pub(super) fn open(&self, cache: &str, layout: Layout) -> io::Result<(Ledger, Past)> {
        let identity = format!("{cache} {} {}", layout.size, layout.block);
        if let Some(ledger) = Ledger::open(&self.ledger(), &identity, layout.size)? {
            self.mend()?;
            return Ok((ledger, Past::Kept));
        }
        let past = match self.blocks().exists() {
            true => Past::ThrownAway,
            false => Past::None,
        };
        // In this order, so that what is thrown away is never taken for what is there.
        remove(fs::remove_file(self.ledger()))?;
        remove(fs::remove_file(self.purges()))?;
        remove(fs::remove_dir_all(self.blocks()))?;
        fs::create_dir_all(self.blocks())?;
        let ledger = Ledger::create(&self.ledger(), &identity, layout.size)?;
        File::open(&self.path)?.sync_all()?;
        Ok((ledger, past))
    }

    fn files(&self) -> io::Result<Vec<(SystemTime, PathBuf)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.blocks())? {
            let entry = entry?;
            files.push((entry.metadata()?.modified()?, entry.path()));
        }
        files.sort();
        Ok(files)
    }

    /// The store writes into an empty block, and makes room when it takes one. A process that was killed
    /// in between leaves none that is empty, and the next would wait for one for ever: so the oldest
    /// blocks are emptied here.
    pub(super) fn mend(&self) -> io::Result<()> {
        /// One to write into, one to come after it.
        const EMPTY: usize = 2;
        fs::create_dir_all(self.blocks())?;
        let mut filled = Vec::new();
        let files = self.files()?;
        let count = files.len();
        for (_, path) in files {
            let mut page = Vec::new();
            let file = File::open(&path)?;
            file.take(PAGE as u64).read_to_end(&mut page)?;
            if page.iter().any(|byte| *byte != 0) {
                filled.push(path);
            }
        }
        let wanted = EMPTY.saturating_sub(count - filled.len());
        for path in filled.iter().take(wanted) {
            let mut file = OpenOptions::new().write(true).open(path)?;
            file.write_all(&[0; PAGE])?;
        }
        Ok(())
    }

    /// Nothing in it will be gone on with.
    pub(super) fn forget(&self) -> io::Result<()> {
        fs::remove_file(self.ledger())
    }

    /// Another may take it.
    pub(super) fn release(&self) {
        let _released = rustix::fs::flock(&self.lock, rustix::fs::FlockOperation::Unlock);
    }

    /// The bytes that it takes.
    pub(super) fn bytes(&self) -> u64 {
        let of = |path: &Path| fs::metadata(path).map_or(0, |found| found.blocks() * 512);
        let files = self.files().unwrap_or_default();
        let blocks: u64 = files.iter().map(|(_, path)| of(path)).sum();
        blocks + of(&self.ledger()) + of(&self.purges())
    }

    /// Whether there is no room for that many bytes where it lies.
    pub(super) fn lacks(&self, bytes: u64) -> bool {
        let found = rustix::fs::statvfs(&self.path);
        found.is_ok_and(|found| found.f_bavail.saturating_mul(found.f_frsize) < bytes)
    }
}

fn remove(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Folder, Layout, Past};

    #[test]
    fn parts_stay_within_the_size() {
        for size in [16 << 20, 100 << 20, 1 << 30, 1 << 40] {
            let layout = Layout::of(size);
            let whole = layout.room + super::ledger::length_for(size);
            assert!(whole <= size, "{layout:?}");
            assert!(whole > size / 10 * 9, "{layout:?}");
            assert!(layout.room / layout.block >= 16, "{layout:?}");
        }
    }

    #[test]
    fn one_uses_a_folder_and_another_cache_begins_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let layout = Layout::of(16 << 20);
        let own = Folder::take(&path).unwrap().unwrap();
        assert_eq!(own.open("things", layout).unwrap().1, Past::None);
        assert!(Folder::take(&path).unwrap().is_none());
        std::fs::write(path.join("lock"), "1\n").unwrap();
        let error = Folder::take(&path).unwrap_err();
        assert!(error.contains("process 1 uses it"), "{error}");
        drop(own);
        let own = Folder::take(&path).unwrap().unwrap();
        assert_eq!(own.open("things", layout).unwrap().1, Past::Kept);
        std::fs::write(own.blocks().join("x"), "x").unwrap();
        assert_eq!(own.open("others", layout).unwrap().1, Past::ThrownAway);
        assert!(!own.blocks().join("x").exists());
    }
}
