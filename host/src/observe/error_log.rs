//! The error log, because what a server has to say must reach the operator from any thread, in the
//! form that nginx's operators and their tools know.
//!
//! A record is written with one system call, by the thread that has it: what was said before a crash
//! is in the file. The level is an atomic: what is filtered costs one load.
//! A message of several lines stays one record: the lines after the first are indented, so that no
//! text from outside can look like a record of its own.

use std::io::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use parking_lot::RwLock;

use super::log_file::{LogFile, escape, hex_escape, json_string};
use crate::time_cache;

/// nginx's levels, the most severe first; the number is `ngx.EMERG` and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// The server cannot go on.
    Emerg = 1,
    /// Must be seen to at once.
    Alert = 2,
    /// A part of the server is broken.
    Crit = 3,
    /// A request failed by the server's or a plugin's fault.
    Error = 4,
    /// Something failed and was made good.
    Warn = 5,
    /// Worth knowing.
    Notice = 6,
    /// Start, reload, drain.
    Info = 7,
    /// The rest.
    Debug = 8,
}

impl Level {
    /// All levels, the most severe first.
    pub const ALL: [Self; 8] = [
        Self::Emerg,
        Self::Alert,
        Self::Crit,
        Self::Error,
        Self::Warn,
        Self::Notice,
        Self::Info,
        Self::Debug,
    ];

    /// The level's name in configuration and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Emerg => "emerg",
            Self::Alert => "alert",
            Self::Crit => "crit",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Notice => "notice",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// The level of that number, if there is one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&level| level as u8 == number)
    }

    /// The level of that name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }
}

/// What a record is about; every part may be absent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context<'a> {
    /// The worker's number.
    pub worker: Option<usize>,
    /// The request's number (nginx: the connection's).
    pub request: Option<u64>,
    /// The plugin's name.
    pub plugin: Option<&'a str>,
    /// The phase's name.
    pub phase: Option<&'a str>,
    /// Who asks.
    pub client: Option<IpAddr>,
    /// The request's first line.
    pub request_line: Option<&'a [u8]>,
    /// The upstream's peer.
    pub upstream: Option<&'a [u8]>,
    /// The `Host` that was asked for.
    pub host: Option<&'a [u8]>,
}

/// An error log: a target, a level, a form.
#[derive(Debug)]
pub struct ErrorLog {
    file: RwLock<Arc<LogFile>>,
    level: AtomicU8,
    json: AtomicBool,
    /// Records that could not be written (a full disk), so that metrics can tell.
    lost: AtomicU64,
}

static PROCESS_LOG: RwLock<Option<Arc<ErrorLog>>> = RwLock::new(None);
/// A copy of the process log's level: `enabled` is asked more often than anything is written.
static PROCESS_LEVEL: AtomicU8 = AtomicU8::new(Level::Notice as u8);

/// Makes `log` the process's own; before that, records go to the standard error.
pub fn install(log: Arc<ErrorLog>) {
    PROCESS_LEVEL.store(log.level() as u8, Ordering::Relaxed);
    *PROCESS_LOG.write() = Some(log);
}

/// The process's log, if one was installed.
#[must_use]
pub fn installed() -> Option<Arc<ErrorLog>> {
    PROCESS_LOG.read().clone()
}

/// Whether the process's log lets a level through. Ask before a message that costs something.
#[must_use]
pub fn enabled(level: Level) -> bool {
    level as u8 <= PROCESS_LEVEL.load(Ordering::Relaxed)
}

/// The least severe level that the process's log lets through.
#[must_use]
pub fn max_level() -> Level {
    Level::from_number(PROCESS_LEVEL.load(Ordering::Relaxed)).unwrap_or(Level::Notice)
}

/// Changes the level of the process's log.
pub fn set_max_level(level: Level) {
    PROCESS_LEVEL.store(level as u8, Ordering::Relaxed);
    if let Some(log) = installed() {
        log.set_level(level);
    }
}

/// Writes a record to the process's log when its level lets it through.
pub fn write(level: Level, context: &Context<'_>, message: impl AsRef<[u8]>) {
    if !enabled(level) {
        return;
    }
    if let Some(log) = installed() {
        log.write(level, context, message.as_ref());
    } else {
        ErrorLog::new(LogFile::stderr(), max_level(), false).write(
            level,
            context,
            message.as_ref(),
        );
    }
}

/// Opens the process's log again by its name; a failure goes to the file that is still open.
pub fn reopen() {
    if let Some(log) = installed()
        && let Err(error) = log.reopen()
    {
        write(Level::Emerg, &Context::default(), error.to_string());
    }
}

impl ErrorLog {
    /// A log of that level into `file`.
    #[must_use]
    pub fn new(file: LogFile, level: Level, json: bool) -> Self {
        Self {
            file: RwLock::new(Arc::new(file)),
            level: AtomicU8::new(level as u8),
            json: AtomicBool::new(json),
            lost: AtomicU64::new(0),
        }
    }

    /// Takes over target, level and form of a new generation.
    pub fn configure(&self, file: LogFile, level: Level, json: bool) {
        *self.file.write() = Arc::new(file);
        self.json.store(json, Ordering::Relaxed);
        self.set_level(level);
    }

    /// The least severe level that is written.
    #[must_use]
    pub fn level(&self) -> Level {
        Level::from_number(self.level.load(Ordering::Relaxed)).unwrap_or(Level::Notice)
    }

    /// Changes the level.
    pub fn set_level(&self, level: Level) {
        self.level.store(level as u8, Ordering::Relaxed);
    }

    /// Opens the file again by its name.
    pub fn reopen(&self) -> std::io::Result<()> {
        let file = Arc::clone(&self.file.read());
        file.reopen()
    }

    /// How many records could not be written.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Writes a record when the level lets it through.
    pub fn write(&self, level: Level, context: &Context<'_>, message: &[u8]) {
        if level > self.level() {
            return;
        }
        let mut record = Vec::with_capacity(160 + message.len());
        // Read, not cached: a worker may have been busy for long when it complains, and its handlers'
        // `ngx.now` must not move because of a log line.
        let now = time_cache::clock_ms();
        if self.json.load(Ordering::Relaxed) {
            json_record(&mut record, (now, level), context, message);
        } else {
            text_record(&mut record, (now, level), context, message);
        }
        let file = Arc::clone(&self.file.read());
        if file.write(&record).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a Vec cannot fail.
    let _infallible = out.write_fmt(text);
}

fn text_record(
    out: &mut Vec<u8>,
    (now, level): (u64, Level),
    context: &Context<'_>,
    message: &[u8],
) {
    out.extend_from_slice(time_cache::error_log_time_of(now / 1000).as_bytes());
    let worker = context.worker.unwrap_or(0);
    push(
        out,
        format_args!(" [{}] {}#{worker}: ", level.name(), std::process::id()),
    );
    if let Some(request) = context.request {
        push(out, format_args!("*{request} "));
    }
    push_message(out, message);
    if let Some(plugin) = context.plugin {
        push(out, format_args!(", plugin: \"{plugin}\""));
    }
    if let Some(phase) = context.phase {
        push(out, format_args!(", phase: {phase}"));
    }
    if let Some(client) = context.client {
        push(out, format_args!(", client: {client}"));
    }
    let quoted = [
        ("request", context.request_line),
        ("upstream", context.upstream),
        ("host", context.host),
    ];
    for (name, value) in quoted {
        if let Some(value) = value {
            push(out, format_args!(", {name}: \""));
            escape(out, value);
            out.push(b'"');
        }
    }
    out.push(b'\n');
}

/// The message without an end of line; further lines begin with a tab, control characters are
/// escaped, since terminals obey them.
fn push_message(out: &mut Vec<u8>, message: &[u8]) {
    let message = message.trim_ascii_end();
    for (at, &byte) in message.iter().enumerate() {
        match byte {
            b'\n' => {
                out.push(b'\n');
                if message.get(at + 1) != Some(&b'\t') {
                    out.push(b'\t');
                }
            }
            b'\r' if message.get(at + 1) == Some(&b'\n') => {}
            b'\t' => out.push(b'\t'),
            0..=0x1f | 0x7f => out.extend_from_slice(&hex_escape(byte)),
            _ => out.push(byte),
        }
    }
}

fn json_record(
    out: &mut Vec<u8>,
    (now, level): (u64, Level),
    context: &Context<'_>,
    message: &[u8],
) {
    let time = time_cache::iso_time_of(now / 1000);
    let (milliseconds, name, pid) = (now % 1000, level.name(), std::process::id());
    push(
        out,
        format_args!("{{\"time\":\"{time}.{milliseconds:03}Z\",\"level\":\"{name}\",\"pid\":{pid}"),
    );
    if let Some(worker) = context.worker {
        push(out, format_args!(",\"worker\":{worker}"));
    }
    if let Some(request) = context.request {
        push(out, format_args!(",\"request_number\":{request}"));
    }
    if let Some(client) = context.client {
        push(out, format_args!(",\"client\":\"{client}\""));
    }
    let strings = [
        ("message", Some(message.trim_ascii_end())),
        ("plugin", context.plugin.map(str::as_bytes)),
        ("phase", context.phase.map(str::as_bytes)),
        ("request", context.request_line),
        ("upstream", context.upstream),
        ("host", context.host),
    ];
    for (name, value) in strings {
        if let Some(value) = value {
            push(out, format_args!(",\"{name}\":"));
            json_string(out, value);
        }
    }
    out.extend_from_slice(b"}\n");
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    use super::{Context, ErrorLog, Level};
    use crate::observe::log_file::{LogFile, Target};

    fn log_in(folder: &tempfile::TempDir, json: bool) -> (ErrorLog, std::path::PathBuf) {
        let path = folder.path().join("error.log");
        let file = LogFile::open(Target::File(path.clone())).unwrap();
        (ErrorLog::new(file, Level::Notice, json), path)
    }

    const FULL: Context<'static> = Context {
        worker: Some(1),
        request: Some(45),
        plugin: Some("guard"),
        phase: Some("access"),
        client: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        request_line: Some(b"GET /\"\n HTTP/1.1"),
        upstream: None,
        host: Some(b"example.com"),
    };

    #[test]
    fn a_record_has_the_form_of_nginx() {
        let folder = tempfile::tempdir().unwrap();
        let (log, path) = log_in(&folder, false);
        log.write(Level::Error, &FULL, b"it broke\nat line 3\n");
        log.write(Level::Info, &FULL, b"filtered");
        log.write(Level::Warn, &Context::default(), b"bare");
        let text = std::fs::read_to_string(path).unwrap();
        let pid = std::process::id();
        let expected = format!(
            " [error] {pid}#1: *45 it broke\n\tat line 3, plugin: \"guard\", phase: access, client: 127.0.0.1, \
             request: \"GET /\\x22\\x0A HTTP/1.1\", host: \"example.com\"\n"
        );
        assert_eq!(&text[19..19 + expected.len()], expected);
        assert!(text.ends_with(&format!(" [warn] {pid}#0: bare\n")));
    }

    #[test]
    fn json_is_one_object_per_line() {
        let folder = tempfile::tempdir().unwrap();
        let (log, path) = log_in(&folder, true);
        log.write(Level::Error, &FULL, b"it broke\n\xff");
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["message"], "it broke\n\u{fffd}");
        assert_eq!(value["request_number"], 45);
        assert_eq!(value["phase"], "access");
    }

    #[test]
    fn reopening_follows_the_name() {
        let folder = tempfile::tempdir().unwrap();
        let (log, path) = log_in(&folder, false);
        log.write(Level::Error, &Context::default(), b"before");
        std::fs::rename(&path, folder.path().join("old")).unwrap();
        log.write(Level::Error, &Context::default(), b"still old");
        log.reopen().unwrap();
        log.write(Level::Error, &Context::default(), b"after");
        assert_eq!(
            std::fs::read_to_string(folder.path().join("old"))
                .unwrap()
                .lines()
                .count(),
            2
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
    }

    #[test]
    fn records_of_many_threads_stay_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (log, path) = log_in(&folder, false);
        let log = Arc::new(log);
        let threads: Vec<_> = (0..4_u8)
            .map(|thread| {
                let log = Arc::clone(&log);
                std::thread::spawn(move || {
                    for _ in 0..200 {
                        log.write(Level::Error, &Context::default(), &[b'a' + thread; 5000]);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), 800);
        assert!(text.lines().all(|line| {
            let message = line.rsplit(' ').next().unwrap().as_bytes();
            message.len() == 5000 && message.iter().all(|byte| *byte == message[0])
        }));
    }

    #[test]
    fn levels_know_their_names_and_numbers() {
        for level in Level::ALL {
            assert_eq!(Level::from_name(level.name()), Some(level));
            assert_eq!(Level::from_number(level as u8), Some(level));
        }
    }
}
