//! Static files (`files = { root, index, listing }`), because a gateway that serves an application
//! serves its assets, too: nginx's static module by behaviour.
//!
//! Three parts, each testable alone: `path` makes a safe relative path of a URI, `decide` makes the
//! answer's head and the list of its pieces from the request and the file's metadata (pure), and
//! this file does the reading, on tokio's blocking threads: a disk must not make a worker wait.
//! Left out: caching of contents, which the kernel's page cache does, and compression.

pub mod decide;
mod listing;
mod path;
pub mod range;
mod resolve;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Method};

pub use decide::{Answer, Metadata, Piece, decide};
pub use path::decode_path;

/// How much of a file is read, and held in memory, at a time.
pub const READ_BYTES: usize = 64 << 10;

/// A folder that is served.
#[derive(Debug, Clone)]
pub struct Root {
    /// Without symbolic links, so that what a link leads to can be compared with it.
    folder: PathBuf,
    /// What is cut off URI paths before they are looked up.
    prefix: Vec<u8>,
    index: Vec<String>,
    listing: bool,
}

impl Root {
    /// The folder must be there. `index` are the names tried in a folder, in order; `listing` shows
    /// a folder that has none of them.
    pub fn new(folder: &Path, index: Vec<String>, listing: bool) -> io::Result<Self> {
        let absolute = std::fs::canonicalize(folder).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("files root {}: {error}", folder.display()),
            )
        })?;
        if !absolute.is_dir() {
            let text = format!("files root {} is not a folder", folder.display());
            return Err(io::Error::new(io::ErrorKind::NotADirectory, text));
        }
        Ok(Self {
            folder: absolute,
            prefix: Vec::new(),
            index,
            listing,
        })
    }

    /// The same folder for the paths below `prefix` (nginx: `alias`): `/static/a.css` is `a.css` for
    /// the prefix `/static`.
    #[must_use]
    pub fn below(self, prefix: &[u8]) -> Self {
        let end = prefix
            .iter()
            .rposition(|&byte| byte != b'/')
            .map_or(0, |last| last + 1);
        Self {
            prefix: prefix[..end].to_vec(),
            ..self
        }
    }
}

/// What answers a request for a file.
#[derive(Debug)]
pub struct Outcome {
    /// The status.
    pub status: u16,
    /// The answer's own headers, `Content-Length` among them where the body is known.
    pub headers: HeaderMap,
    /// What follows.
    pub body: Body,
}

/// The body of an [`Outcome`].
#[derive(Debug)]
pub enum Body {
    /// None: the answer is complete.
    Empty,
    /// None of its own: the status's error page goes there.
    ErrorPage,
    /// Pieces of a file.
    File(FileBody),
    /// A text that was made, such as a listing.
    Bytes(Bytes),
}

impl Outcome {
    fn status(status: u16) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body: Body::ErrorPage,
        }
    }

    fn redirect(to: &[u8]) -> Self {
        let mut outcome = Self::status(301);
        if let Ok(location) = HeaderValue::from_bytes(to) {
            outcome.headers.insert(LOCATION, location);
        }
        outcome
    }
}

/// Answers a request for `uri_path`, which is as the client wrote it: still percent-encoded, with or
/// without a query (which a redirect keeps).
pub async fn open(root: &Root, uri_path: &[u8], method: &Method, headers: &HeaderMap) -> Outcome {
    let (raw, query) = match uri_path.iter().position(|&byte| byte == b'?') {
        Some(at) => uri_path.split_at(at),
        None => (uri_path, &[][..]),
    };
    match decode_path(raw) {
        Some(decoded) => open_decoded(root, &decoded, query, (method, headers)).await,
        None => Outcome::status(400),
    }
}

/// As [`open`] for a path that is decoded and normalised already, as `$uri` is; `query` begins with
/// `?` or is empty.
pub async fn open_decoded(
    root: &Root,
    path: &[u8],
    query: &[u8],
    request: (&Method, &HeaderMap),
) -> Outcome {
    let (method, headers) = request;
    if method != Method::GET && method != Method::HEAD {
        let mut outcome = Outcome::status(405);
        outcome
            .headers
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return outcome;
    }
    let below = path.strip_prefix(&*root.prefix);
    let Some(below) = below.filter(|below| below.is_empty() || below.starts_with(b"/")) else {
        return Outcome::status(404);
    };
    let Some(relative) = path::relative(below) else {
        return Outcome::status(400);
    };
    let job = Job {
        root: root.clone(),
        relative,
        query: query.to_vec(),
        method: method.clone(),
        conditions: decide::conditions(headers),
    };
    match tokio::task::spawn_blocking(move || job.run()).await {
        Ok(outcome) => outcome,
        // The runtime is ending, or the job panicked.
        Err(_) => Outcome::status(500),
    }
}

/// The blocking part of a request: everything that touches the disk before the first byte.
struct Job {
    root: Root,
    relative: path::Relative,
    query: Vec<u8>,
    method: Method,
    conditions: HeaderMap,
}

impl Job {
    fn run(self) -> Outcome {
        let found = resolve::open(&self.root.folder, &self.relative.path);
        match found {
            Ok((_, metadata)) if metadata.is_dir() => self.folder(),
            // A slash after a file's name asks for a folder.
            Ok(_) if self.relative.is_folder => Outcome::status(404),
            Ok((file, metadata)) => self.answer(file, &metadata, &self.relative.path),
            Err(error) => Outcome::status(resolve::status(&error)),
        }
    }

    fn folder(&self) -> Outcome {
        if !self.relative.is_folder {
            let mut to = path::encode(&self.uri());
            to.extend_from_slice(&self.query);
            return Outcome::redirect(&to);
        }
        for name in &self.root.index {
            let path = self.relative.path.join(name);
            match resolve::open(&self.root.folder, &path) {
                Ok((file, metadata)) if metadata.is_file() => {
                    return self.answer(file, &metadata, &path);
                }
                Ok(_) => {}
                Err(error) if resolve::status(&error) == 404 => {}
                Err(error) => return Outcome::status(resolve::status(&error)),
            }
        }
        if self.root.listing {
            self.listing()
        } else {
            Outcome::status(403)
        }
    }

    /// The folder's own path, made anew of its parts: what the client wrote may begin with two
    /// slashes, and as a redirect would name another server.
    fn uri(&self) -> Vec<u8> {
        let mut uri = self.root.prefix.clone();
        uri.push(b'/');
        let path = self.relative.path.as_os_str().as_bytes();
        if !path.is_empty() {
            uri.extend_from_slice(path);
            uri.push(b'/');
        }
        uri
    }

    fn listing(&self) -> Outcome {
        let page = match listing::page(&self.root.folder.join(&self.relative.path), &self.uri()) {
            Ok(page) => Bytes::from(page),
            Err(error) => return Outcome::status(resolve::status(&error)),
        };
        let mut headers = HeaderMap::new();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        );
        headers.insert(CONTENT_LENGTH, page.len().into());
        let body = if self.method == Method::HEAD {
            Body::Empty
        } else {
            Body::Bytes(page)
        };
        Outcome {
            status: 200,
            headers,
            body,
        }
    }

    fn answer(&self, file: File, metadata: &std::fs::Metadata, path: &Path) -> Outcome {
        if !metadata.is_file() {
            // A pipe or a device is nothing that can be served.
            return Outcome::status(404);
        }
        let kind = mime_guess::from_path(path)
            .first_raw()
            .unwrap_or("application/octet-stream");
        let answer = decide(
            &self.method,
            &self.conditions,
            &Metadata::of(metadata),
            kind,
        );
        let Answer {
            status,
            headers,
            pieces,
        } = answer;
        let body = match status {
            200 | 206 if pieces.is_empty() => Body::Empty,
            200 | 206 => match FileBody::begin(file, pieces) {
                Ok(body) => Body::File(body),
                Err(_) => return Outcome::status(500),
            },
            304 => Body::Empty,
            _ => Body::ErrorPage,
        };
        Outcome {
            status,
            headers,
            body,
        }
    }
}

/// The body of a file's answer, read piece by piece as it is asked for.
#[derive(Debug)]
pub struct FileBody {
    file: Arc<File>,
    pieces: VecDeque<Piece>,
    /// Read while the file was opened: a small file takes one trip to a blocking thread.
    first: Option<Bytes>,
}

impl FileBody {
    /// Blocks: reads the first chunk.
    fn begin(file: File, pieces: Vec<Piece>) -> io::Result<Self> {
        let mut body = Self {
            file: Arc::new(file),
            pieces: pieces.into(),
            first: None,
        };
        body.first = match body.take_next() {
            Some(Piece::Text(text)) => Some(text),
            Some(Piece::Range { start, length }) => Some(read(&body.file, start, length)?),
            None => None,
        };
        Ok(body)
    }

    /// The next chunk, of at most [`READ_BYTES`]; `None` at the end. A file that became shorter since
    /// its length was announced is an error: the answer cannot be completed.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        match self.take_next() {
            None => Ok(None),
            Some(Piece::Text(text)) => Ok(Some(text)),
            Some(Piece::Range { start, length }) => {
                let file = Arc::clone(&self.file);
                let chunk = tokio::task::spawn_blocking(move || read(&file, start, length)).await;
                chunk.map_err(io::Error::other)?.map(Some)
            }
        }
    }

    /// The bytes that are still to come.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        let first = self.first.as_ref().map_or(0, |first| first.len() as u64);
        first + self.pieces.iter().map(Piece::len).sum::<u64>()
    }

    /// Cuts the next piece, or a chunk of it, off the list.
    fn take_next(&mut self) -> Option<Piece> {
        const CHUNK: u64 = READ_BYTES as u64;
        let piece = self.pieces.pop_front()?;
        if let Piece::Range { start, length } = piece
            && length > CHUNK
        {
            self.pieces.push_front(Piece::Range {
                start: start + CHUNK,
                length: length - CHUNK,
            });
            return Some(Piece::Range {
                start,
                length: CHUNK,
            });
        }
        Some(piece)
    }
}

fn read(file: &File, start: u64, length: u64) -> io::Result<Bytes> {
    let length = usize::try_from(length)
        .map_err(io::Error::other)?
        .min(READ_BYTES);
    let mut chunk = vec![0; length];
    file.read_exact_at(&mut chunk, start)?;
    Ok(Bytes::from(chunk))
}
