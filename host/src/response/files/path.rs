//! URI path → path below a root, apart because this is the place that must not be wrong: no way out
//! by `..`, by encoding, or by a byte that the file system reads differently.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use percent_encoding::{percent_decode, percent_encode};

use crate::exchange::head::PATH;

/// A path below a root.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Relative {
    /// Never absolute, without `.` and `..`; empty for the root itself.
    pub(super) path: PathBuf,
    /// The URI ended as a folder's does.
    pub(super) is_folder: bool,
}

/// Decodes `%XX`; `None` when a percent sign is followed by anything else, or a zero byte comes out.
#[must_use]
pub fn decode_path(raw: &[u8]) -> Option<Vec<u8>> {
    let well_formed = raw
        .iter()
        .enumerate()
        .filter(|&(_, &byte)| byte == b'%')
        .all(|(at, _)| {
            raw.get(at + 1..at + 3)
                .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        });
    let decoded: Vec<u8> = well_formed.then(|| percent_decode(raw).collect())?;
    (!decoded.contains(&0)).then_some(decoded)
}

/// The path below the root; `None` when it leads out of it.
pub(super) fn relative(decoded: &[u8]) -> Option<Relative> {
    if decoded.contains(&0) {
        return None;
    }
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut is_folder = true;
    for segment in decoded.split(|&byte| byte == b'/') {
        is_folder = true;
        match segment {
            b"" | b"." => {}
            b".." => {
                segments.pop()?;
            }
            name => {
                segments.push(name);
                is_folder = false;
            }
        }
    }
    let path = segments.into_iter().map(OsStr::from_bytes).collect();
    Some(Relative { path, is_folder })
}

/// Encodes a path for a header or a link.
pub(super) fn encode(path: &[u8]) -> Vec<u8> {
    percent_encode(path, PATH).to_string().into_bytes()
}
