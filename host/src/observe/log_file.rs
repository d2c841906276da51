//! A place that log records go to, because both logs need the same three things: whole records, many
//! writers, and a file that can be moved away and opened again (USR1).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use parking_lot::Mutex;

/// Where a log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The standard output.
    Stdout,
    /// The standard error.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
}

/// An open target. Each [`LogFile::write`] is one record, or several whole ones: writers never mix.
#[derive(Debug)]
pub struct LogFile {
    target: Target,
    file: Mutex<Option<File>>,
}

impl LogFile {
    /// Opens the target; a file is made when it is not there.
    pub fn open(target: Target) -> io::Result<Self> {
        let file = open_file(&target)?;
        Ok(Self {
            target,
            file: Mutex::new(file),
        })
    }

    /// The standard error, which needs no opening.
    #[must_use]
    pub const fn stderr() -> Self {
        Self {
            target: Target::Stderr,
            file: Mutex::new(None),
        }
    }

    /// Where this log goes.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Writes whole records.
    pub fn write(&self, records: &[u8]) -> io::Result<()> {
        // The lock also keeps records whole on the standard streams: a pipe takes long ones in pieces.
        let mut file = self.file.lock();
        match (&mut *file, &self.target) {
            (Some(file), _) => file.write_all(records),
            (None, Target::Stdout) => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(records)?;
                stdout.flush()
            }
            (None, Target::Stderr | Target::File(_)) => io::stderr().lock().write_all(records),
        }
    }

    /// Opens the file again by its name. When that fails, the file that was open stays in use.
    pub fn reopen(&self) -> io::Result<()> {
        if let Some(file) = open_file(&self.target)? {
            *self.file.lock() = Some(file);
        }
        Ok(())
    }
}

fn open_file(target: &Target) -> io::Result<Option<File>> {
    let Target::File(path) = target else {
        return Ok(None);
    };
    match OpenOptions::new().create(true).append(true).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!("open log {}: {error}", path.display()),
        )),
    }
}

/// Appends `value` with control characters, bytes above ASCII, `"` and `\` as `\xXX`: nginx's
/// escaping, under which no value can end its quotes or its line.
pub fn escape(out: &mut Vec<u8>, value: &[u8]) {
    for &byte in value {
        if matches!(byte, b'"' | b'\\' | 0..=0x1f | 0x7f..) {
            out.extend_from_slice(&hex_escape(byte));
        } else {
            out.push(byte);
        }
    }
}

/// A byte as `\xXX`.
pub(crate) fn hex_escape(byte: u8) -> [u8; 4] {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    [
        b'\\',
        b'x',
        DIGITS[usize::from(byte >> 4)],
        DIGITS[usize::from(byte & 15)],
    ]
}

/// Appends `value` as a JSON string; what is not UTF-8 becomes U+FFFD.
pub fn json_string(out: &mut Vec<u8>, value: &[u8]) {
    let text = String::from_utf8_lossy(value);
    if serde_json::to_writer(&mut *out, &*text).is_err() {
        out.extend_from_slice(b"\"\"");
    }
}
