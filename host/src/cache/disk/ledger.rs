//! What has overtaken what is on disk: a small file of numbers, because a store that evicts by blocks
//! may find an older value of a key again when it is opened, and must not give it.
//!
//! Every change takes a *turn*, a number that only grows, over restarts too. A value is written with its
//! turn. A key's slot has the turn of the last change of one of its keys, and a mark that of the last
//! emptying: a value of an earlier turn is none. So what is to be kept of a change are eight bytes at a
//! place that is known, however the value itself fares. Keys that share a slot cost each other a miss.
//!
//! Memory is what counts; the file follows. It has room from the start, so a full disk does not stop it.
//! Each number has a check beside it: one that is damaged overtakes all that there is.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// A page of the file; what is written at once.
const PAGE: u64 = 4096;
/// Numbers in a page.
const CELLS: usize = 512;
/// The pages before the slots: whose file it is, and its marks.
const HEAD: u64 = 2;
/// So many turns are taken from the file at a time.
const RESERVE: u64 = 1 << 20;
/// What the file begins with; the last byte is the version of all that the level writes.
const MARK: &[u8; 8] = b"phasord1";

/// The numbers.
#[derive(Debug)]
pub(super) struct Ledger {
    file: File,
    slots: Box<[AtomicU64]>,
    /// A bit per page that the file does not have yet.
    dirty: Box<[AtomicU64]>,
    marks_dirty: AtomicU64,
    purged: AtomicU64,
    next: AtomicU64,
    reserved: AtomicU64,
    /// The first turn of this process.
    born: u64,
}

/// How many slots go with that many bytes of values: four for each that can be there.
pub(super) fn slots_for(size: u64) -> u64 {
    (size / PAGE * 4).next_power_of_two().clamp(4096, 1 << 22)
}

/// The file's length.
pub(super) fn length_for(size: u64) -> u64 {
    HEAD * PAGE + slots_for(size) * 8
}

fn check(turn: u64) -> u64 {
    u64::from(crc32fast::hash(&turn.to_be_bytes())) & 0xffff
}

/// A turn with its check; 48 bits last for nine years of a million a millisecond.
fn sealed(turn: u64) -> u64 {
    if turn == 0 {
        0
    } else {
        turn << 16 | check(turn)
    }
}

fn unsealed(cell: u64) -> Option<u64> {
    let turn = cell >> 16;
    (cell == 0 || check(turn) == cell & 0xffff).then_some(turn)
}

/// The first page of a file for this cache and this layout.
fn head(identity: &str) -> Vec<u8> {
    let mut page = Vec::with_capacity(4096);
    page.extend_from_slice(MARK);
    let sum = crc32fast::hash(identity.as_bytes());
    page.extend_from_slice(&sum.to_be_bytes());
    page.extend_from_slice(identity.as_bytes());
    page.resize(4096, 0);
    page
}

impl Ledger {
    /// Opens what is there. `None`: it is another cache's, of another layout, damaged, or not there.
    pub(super) fn open(path: &Path, identity: &str, size: u64) -> io::Result<Option<Self>> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() != length_for(size) {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(length_for(size)).unwrap_or(0)];
        file.read_exact_at(&mut bytes, 0)?;
        let (first, cells) = bytes.split_at(4096);
        if first != head(identity) {
            return Ok(None);
        }
        let cell = |bytes: &[u8]| bytes.try_into().map_or(u64::MAX, u64::from_be_bytes);
        let mut cells = cells.chunks_exact(8).map(cell);
        let (Some(Some(reserved)), Some(Some(purged))) =
            (cells.next().map(unsealed), cells.next().map(unsealed))
        else {
            return Ok(None);
        };
        let slots = cells
            .skip(CELLS - 2)
            .map(|cell| AtomicU64::new(unsealed(cell).unwrap_or(reserved)))
            .collect();
        Self::begin(file, slots, purged, reserved).map(Some)
    }

    /// Makes a new one, with room for all that it will hold.
    pub(super) fn create(path: &Path, identity: &str, size: u64) -> io::Result<Self> {
        let new = path.with_extension("new");
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&new)?;
        let length = length_for(size);
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, length)
            .or_else(|_| rustix::fs::ftruncate(&file, length))?;
        file.write_all_at(&head(identity), 0)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        let slots = (0..slots_for(size)).map(|_| AtomicU64::new(0)).collect();
        Self::begin(file, slots, 0, 1)
    }

    fn begin(file: File, slots: Box<[AtomicU64]>, purged: u64, born: u64) -> io::Result<Self> {
        let pages = slots.len().div_ceil(CELLS);
        let ledger = Self {
            file,
            slots,
            dirty: (0..pages.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            marks_dirty: AtomicU64::new(0),
            purged: AtomicU64::new(purged),
            next: AtomicU64::new(born),
            reserved: AtomicU64::new(born),
            born,
        };
        ledger.write_marks()?;
        Ok(ledger)
    }

    /// Whether a turn is of this process.
    pub(super) fn is_own(&self, turn: u64) -> bool {
        turn >= self.born
    }

    /// The next turn.
    pub(super) fn turn(&self) -> u64 {
        let turn = self.next.fetch_add(1, Ordering::SeqCst);
        if turn + RESERVE / 2 > self.reserved.load(Ordering::Relaxed) {
            self.marks_dirty.store(1, Ordering::SeqCst);
        }
        turn
    }

    fn place(&self, key: &[u8]) -> usize {
        crc32fast::hash(key) as usize % self.slots.len()
    }

    /// From now on values of a key from before that turn are none.
    pub(super) fn overtake(&self, key: &[u8], turn: u64) {
        let place = self.place(key);
        self.slots[place].fetch_max(turn, Ordering::SeqCst);
        let page = place / CELLS;
        self.dirty[page / 64].fetch_or(1 << (page % 64), Ordering::SeqCst);
    }

    /// From now on all values from before that turn are none.
    pub(super) fn purge(&self, turn: u64) {
        self.purged.fetch_max(turn, Ordering::SeqCst);
        self.marks_dirty.store(1, Ordering::SeqCst);
    }

    /// Whether a value of that turn counts.
    pub(super) fn counts(&self, key: &[u8], turn: u64) -> bool {
        turn >= self.purged.load(Ordering::SeqCst)
            && turn >= self.slots[self.place(key)].load(Ordering::SeqCst)
    }

    /// Writes what the file does not have yet: whoever ends this process now takes back no change from
    /// before.
    pub(super) fn flush(&self) -> io::Result<()> {
        if self.marks_dirty.swap(0, Ordering::SeqCst) != 0 {
            self.write_marks()
                .inspect_err(|_| self.marks_dirty.store(1, Ordering::SeqCst))?;
        }
        for (word, dirty) in self.dirty.iter().enumerate() {
            let mut bits = dirty.swap(0, Ordering::SeqCst);
            while bits != 0 {
                let page = word * 64 + bits.trailing_zeros() as usize;
                self.write_page(page).inspect_err(|_| {
                    dirty.fetch_or(bits, Ordering::SeqCst);
                })?;
                bits &= bits - 1;
            }
        }
        Ok(())
    }

    fn write_page(&self, page: usize) -> io::Result<()> {
        let first = page * CELLS;
        let last = self.slots.len().min(first + CELLS);
        let mut bytes = Vec::with_capacity(CELLS * 8);
        for slot in &self.slots[first..last] {
            let cell = sealed(slot.load(Ordering::SeqCst));
            bytes.extend_from_slice(&cell.to_be_bytes());
        }
        self.file.write_all_at(&bytes, (HEAD + page as u64) * PAGE)
    }

    /// More turns, and the last emptying; on the disk itself, for a turn that came twice would make an
    /// old value a new one.
    fn write_marks(&self) -> io::Result<()> {
        let reserved = self.next.load(Ordering::SeqCst) + RESERVE;
        let purged = self.purged.load(Ordering::SeqCst);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&sealed(reserved).to_be_bytes());
        bytes[8..].copy_from_slice(&sealed(purged).to_be_bytes());
        self.file.write_all_at(&bytes, PAGE)?;
        self.file.sync_data()?;
        self.reserved.fetch_max(reserved, Ordering::SeqCst);
        Ok(())
    }

    /// Not even a power failure takes back what was flushed.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::{Ledger, length_for};

    const SIZE: u64 = 16 << 20;

    fn open(path: &std::path::Path) -> Ledger {
        Ledger::open(path, "things", SIZE).unwrap().unwrap()
    }

    #[test]
    fn what_was_overtaken_stays_so_over_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        assert!(Ledger::open(&path, "things", SIZE).unwrap().is_none());
        let ledger = Ledger::create(&path, "things", SIZE).unwrap();
        let (old, new) = (ledger.turn(), ledger.turn());
        ledger.overtake(b"a", new);
        assert!(!ledger.counts(b"a", old) && ledger.counts(b"a", new));
        assert!(ledger.counts(b"b", old));
        ledger.flush().unwrap();
        drop(ledger);

        let ledger = open(&path);
        assert!(!ledger.counts(b"a", old) && ledger.counts(b"a", new));
        assert!(ledger.counts(b"b", old));
        assert!(!ledger.is_own(new));
        let later = ledger.turn();
        assert!(later > new && ledger.is_own(later));
        ledger.purge(later);
        ledger.flush().unwrap();
        drop(ledger);

        let ledger = open(&path);
        assert!(!ledger.counts(b"b", old) && ledger.counts(b"b", later));
    }

    #[test]
    fn turns_grow_however_a_process_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let ledger = Ledger::create(&path, "things", SIZE).unwrap();
        let mut last = 0;
        for _ in 0..super::RESERVE * 2 {
            last = ledger.turn();
            if last % 100_000 == 0 {
                ledger.flush().unwrap();
            }
        }
        drop(ledger);
        assert!(open(&path).turn() > last);
    }

    #[test]
    fn another_caches_file_is_none_and_a_damaged_number_overtakes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let ledger = Ledger::create(&path, "things", SIZE).unwrap();
        let turn = ledger.turn();
        drop(ledger);
        assert!(Ledger::open(&path, "others", SIZE).unwrap().is_none());
        assert!(Ledger::open(&path, "things", SIZE * 2).unwrap().is_none());
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        for at in (8192..length_for(SIZE)).step_by(8) {
            file.write_all_at(&[1, 2, 3, 4, 5, 6, 7, 8], at).unwrap();
        }
        assert!(!open(&path).counts(b"a", turn));
        file.write_all_at(&[1], 4096).unwrap();
        assert!(Ledger::open(&path, "things", SIZE).unwrap().is_none());
    }
}
