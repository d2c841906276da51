//! A folder as a page, in the shape of nginx's autoindex.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::path::encode;
use crate::time_cache::civil;

/// A page with more entries serves nobody.
const MAX_ENTRIES: usize = 10_000;

struct Row {
    name: Vec<u8>,
    is_folder: bool,
    size: u64,
    modified: u64,
}

/// The page of `folder`, which the client knows as `uri`. Names that begin with a dot are left out.
pub(super) fn page(folder: &Path, uri: &[u8]) -> io::Result<Vec<u8>> {
    let mut rows = Vec::new();
    for entry in std::fs::read_dir(folder)?.take(MAX_ENTRIES) {
        let entry = entry?;
        let name = entry.file_name().as_bytes().to_vec();
        // What a link leads to is not asked: it may lie outside, and opening it will tell.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if name.starts_with(b".") {
            continue;
        }
        let modified = metadata
            .modified()
            .ok()
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let modified = modified.map_or(0, |since| since.as_secs());
        rows.push(Row {
            name,
            is_folder: metadata.is_dir(),
            size: metadata.len(),
            modified,
        });
    }
    rows.sort_by(|left, right| {
        right
            .is_folder
            .cmp(&left.is_folder)
            .then_with(|| left.name.cmp(&right.name))
    });
    let title = escape(uri);
    let mut page = format!(
        "<html>\r\n<head><title>Index of {title}</title></head>\r\n<body>\r\n<h1>Index of {title}</h1><hr><pre><a href=\"../\">../</a>\r\n"
    );
    for row in &rows {
        push_row(&mut page, row);
    }
    page.push_str("</pre><hr></body>\r\n</html>\r\n");
    Ok(page.into_bytes())
}

fn push_row(page: &mut String, row: &Row) {
    let slash = if row.is_folder { "/" } else { "" };
    let mut link = encode(&row.name);
    if row.name.contains(&b':') {
        // Else the part before the colon reads as a scheme.
        link.splice(0..0, *b"./");
    }
    let link = String::from_utf8_lossy(&link).replace('&', "&amp;");
    let shown = escape(&row.name);
    let width = String::from_utf8_lossy(&row.name).chars().count() + slash.len();
    let gap = " ".repeat(51_usize.saturating_sub(width).max(1));
    let time = civil(row.modified);
    let (year, month, day, hour, minute) =
        (time.year, time.month, time.day, time.hour, time.minute);
    let size = if row.is_folder {
        "-".to_owned()
    } else {
        row.size.to_string()
    };
    page.push_str(&format!(
        "<a href=\"{link}{slash}\">{shown}{slash}</a>{gap}{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} {size:>19}\r\n"
    ));
}

fn escape(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
