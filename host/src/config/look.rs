//! What a file looked like when it was read, so that whoever watches it can say whether what runs
//! was made from what is there now, however shortly before it was written.

use std::fs::{File, Metadata};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The clock of files goes in steps of some milliseconds: of two changes within one step the second
/// leaves no trace in the time.
const COARSE: Duration = Duration::from_millis(20);

/// A file at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    device: u64,
    number: u64,
    length: u64,
    changed: SystemTime,
    /// A hash of the content, kept while the time alone would not tell of a change.
    content: Option<u64>,
}

impl Look {
    /// Looks at a file; `None` when there is none, or none that can be read.
    #[must_use]
    pub fn at(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        let mut look = Self::of(&found)?;
        if look.is_fresh() {
            look.content = Some(hash(&std::fs::read(path).ok()?));
        }
        Some(look)
    }

    /// Reads a file of text, and says what it looked like.
    ///
    /// # Errors
    /// When it cannot be read, or is not UTF-8.
    pub fn read(path: &Path) -> std::io::Result<(String, Option<Self>)> {
        let mut file = File::open(path)?;
        // Before the content is read: what is written meanwhile shows as a change.
        let mut look = Self::of(&file.metadata()?);
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        if let Some(look) = look.as_mut().filter(|look| look.is_fresh()) {
            look.content = Some(hash(text.as_bytes()));
        }
        Ok((text, look))
    }

    /// Whether a file is still what it was, and what it looks like now, which is one look: what
    /// changes after it shows at the next.
    #[must_use]
    pub fn again(known: Option<Self>, path: &Path) -> (bool, Option<Self>) {
        let now = Self::at(path);
        let same = match (known, now) {
            (Some(known), Some(now)) => now.is_as(known, path),
            (known, now) => known == now,
        };
        (same, now)
    }

    fn is_as(self, known: Self, path: &Path) -> bool {
        let content = known.content;
        if (Self { content, ..self }) != known {
            return false;
        }
        let now = || {
            self.content
                .or_else(|| Some(hash(&std::fs::read(path).ok()?)))
        };
        content.is_none() || content == now()
    }

    fn of(found: &Metadata) -> Option<Self> {
        Some(Self {
            device: found.dev(),
            number: found.ino(),
            length: found.len(),
            changed: found.modified().ok()?,
            content: None,
        })
    }

    fn is_fresh(&self) -> bool {
        match SystemTime::now().duration_since(self.changed) {
            Ok(past) => past < COARSE,
            Err(ahead) => ahead.duration() < COARSE,
        }
    }
}

fn hash(content: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::{Duration, File, Look, Path, SystemTime};

    fn is_at(look: Look, path: &Path) -> bool {
        Look::again(Some(look), path).0
    }

    #[test]
    fn a_change_within_one_step_of_the_clock_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let (text, look) = Look::read(&path).unwrap();
        let look = look.unwrap();
        assert_eq!(text, "one");
        assert!(is_at(look, &path), "nothing has changed");
        // The same length, the same time.
        let file = File::options().write(true).open(&path).unwrap();
        std::fs::write(&path, "two").unwrap();
        file.set_modified(look.changed).unwrap();
        assert!(!is_at(look, &path), "the content is another");
        std::fs::remove_file(&path).unwrap();
        assert!(!is_at(look, &path) && Look::at(&path).is_none());
    }

    #[test]
    fn an_old_file_is_known_by_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        let old = SystemTime::now() - Duration::from_secs(60);
        file.set_modified(old).unwrap();
        let look = Look::at(&path).unwrap();
        assert_eq!(look.content, None, "no file is read without need");
        assert!(is_at(look, &path));
        file.set_modified(old + Duration::from_secs(1)).unwrap();
        assert!(!is_at(look, &path));
    }
}
