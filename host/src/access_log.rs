//! One line per request, written without ever making a worker wait: a worker gathers lines in a
//! buffer of its own and hands it, full or a moment old, to the log's thread through a bounded
//! queue. When the disk cannot keep up, the queue fills and lines are dropped; they are counted, and
//! the error log says how many.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::template::{Part, Template};
use crate::observe::error_log::{self, Context, Level};
use crate::observe::log_file::{LogFile, Target, escape, json_string};

/// A worker's buffer is handed over at this size: some 200 lines, one system call.
const BUFFER_BYTES: usize = 32 << 10;
/// … or at this age, so that `tail -f` shows what happens.
const BUFFER_AGE_MS: u64 = 200;
/// Buffers that may wait for the disk: 16 MiB in all, some 100,000 requests.
const QUEUE_BUFFERS: usize = 512;
/// How often the log's thread looks up when there is nothing to write.
const IDLE: Duration = Duration::from_millis(200);

/// nginx's `combined`.
pub const COMBINED: &str = "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \"$http_referer\" \"$http_user_agent\"";

/// The fields of a JSON line: name, variable, and whether the value is a number.
const JSON_FIELDS: &[(&str, &str, bool)] = &[
    ("time", "time_iso8601", false),
    ("request_id", "request_id", false),
    ("remote_addr", "remote_addr", false),
    ("remote_user", "remote_user", false),
    ("host", "host", false),
    ("method", "request_method", false),
    ("uri", "request_uri", false),
    ("protocol", "server_protocol", false),
    ("status", "status", true),
    ("body_bytes_sent", "body_bytes_sent", true),
    ("request_length", "request_length", true),
    ("request_time", "request_time", true),
    ("referer", "http_referer", false),
    ("user_agent", "http_user_agent", false),
    ("upstream_addr", "upstream_addr", false),
    ("upstream_status", "upstream_status", false),
    ("upstream_response_time", "upstream_response_time", false),
];

/// What a line looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// Text with variables; `combined` is one.
    Template(Template),
    /// One JSON object per line.
    Json,
}

impl Format {
    /// nginx's `combined`.
    #[must_use]
    pub fn combined() -> Self {
        Self::Template(Template::parse(COMBINED, &|_| None).unwrap_or_default())
    }
}

impl Format {
    /// Whether it has a variable that `which` picks.
    #[must_use]
    pub fn reads(&self, which: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Template(template) => template.parts.iter().any(|part| match part {
                Part::Variable(name) => which(name),
                Part::Literal(_) => false,
            }),
            Self::Json => JSON_FIELDS.iter().any(|(_, name, _)| which(name)),
        }
    }
}

/// Appends one line; `lookup` appends the value of a variable, or nothing when there is none.
/// In a template a value is escaped as nginx does it, and nothing becomes `-`; in JSON nothing is
/// `null`.
pub fn format(out: &mut Vec<u8>, format: &Format, mut lookup: impl FnMut(&str, &mut Vec<u8>)) {
    let mut value = Vec::with_capacity(128);
    let mut lookup = |name: &str, value: &mut Vec<u8>| {
        value.clear();
        lookup(name, value);
    };
    match format {
        Format::Template(template) => template.render(out, |name, out| {
            lookup(name, &mut value);
            if value.is_empty() {
                out.push(b'-');
            } else {
                escape(out, &value);
            }
        }),
        Format::Json => {
            for (at, &(field, variable, is_number)) in JSON_FIELDS.iter().enumerate() {
                lookup(variable, &mut value);
                out.extend_from_slice(if at == 0 { b"{\"" } else { b",\"" });
                out.extend_from_slice(field.as_bytes());
                out.extend_from_slice(b"\":");
                json_value(out, &value, is_number);
            }
            out.push(b'}');
        }
    }
    out.push(b'\n');
}

fn json_value(out: &mut Vec<u8>, value: &[u8], is_number: bool) {
    if value.is_empty() {
        out.extend_from_slice(b"null");
    } else if is_number && serde_json::from_slice::<serde_json::Number>(value).is_ok() {
        out.extend_from_slice(value);
    } else {
        json_string(out, value);
    }
}

enum Message {
    Lines {
        bytes: Vec<u8>,
        count: u64,
    },
    /// Answered when all that was sent before is written.
    Flush(SyncSender<()>),
    Stop,
}

/// An access log: its file and the thread that writes it. Routes and workers share it; workers write
/// through a [`Buffer`].
#[derive(Debug)]
pub struct AccessLog {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    file: LogFile,
    reopen: AtomicBool,
    dropped: AtomicU64,
}

impl AccessLog {
    /// Opens the file and starts the thread.
    pub fn open(target: Target) -> io::Result<Arc<Self>> {
        Self::open_with(LogFile::open(target)?, QUEUE_BUFFERS)
    }

    fn open_with(file: LogFile, buffers: usize) -> io::Result<Arc<Self>> {
        let shared = Arc::new(Shared {
            file,
            reopen: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
        });
        let (queue, received) = sync_channel(buffers);
        let writer = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writer.run(&received))?;
        Ok(Arc::new(Self {
            queue,
            shared,
            thread: Mutex::new(Some(thread)),
        }))
    }

    /// Opens the file again by its name before the next write. Does not wait.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
    }

    /// How many lines were dropped, because the disk did not keep up or failed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all that was handed over is written. For the supervisor's end, not for workers.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.queue.send(Message::Flush(done)).is_ok() {
            // An error says that the thread has ended: then nothing is left to wait for.
            let _ended = wait.recv();
        }
    }

    fn hand_over(&self, bytes: Vec<u8>, count: u64) {
        if self
            .queue
            .try_send(Message::Lines { bytes, count })
            .is_err()
        {
            self.shared.dropped.fetch_add(count, Ordering::Relaxed);
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        // Whoever drops the last handle of a log waits for its last lines: the supervisor, after
        // the workers. `send` waits for room; an error says that the thread has ended already.
        let _ended = self.queue.send(Message::Stop);
        if let Some(thread) = self.thread.lock().take() {
            let _panicked = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, queue: &Receiver<Message>) {
        let mut reported = 0;
        loop {
            let message = queue.recv_timeout(IDLE);
            self.reopen_if_asked();
            match message {
                Ok(Message::Lines { bytes, count }) => self.write(&bytes, count),
                Ok(Message::Flush(done)) => {
                    // Who asked may have given up.
                    let _gone = done.try_send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            }
            reported = self.report_dropped(reported);
        }
        self.report_dropped(reported);
    }

    fn reopen_if_asked(&self) {
        if self.reopen.swap(false, Ordering::Acquire)
            && let Err(error) = self.file.reopen()
        {
            error_log::write(Level::Emerg, &Context::default(), error.to_string());
        }
    }

    fn write(&self, bytes: &[u8], count: u64) {
        if let Err(error) = self.file.write(bytes) {
            self.dropped.fetch_add(count, Ordering::Relaxed);
            error_log::write(
                Level::Crit,
                &Context::default(),
                format!("access log: write: {error}"),
            );
        }
    }

    fn report_dropped(&self, reported: u64) -> u64 {
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped != reported {
            let text = format!(
                "access log: {} lines dropped, {dropped} in all",
                dropped - reported
            );
            error_log::write(Level::Warn, &Context::default(), text);
        }
        dropped
    }
}

/// A worker's own buffer for one log.
#[derive(Debug)]
pub struct Buffer {
    log: Arc<AccessLog>,
    bytes: Vec<u8>,
    count: u64,
    /// When the first line in the buffer came.
    since: u64,
}

impl Buffer {
    /// An empty buffer.
    #[must_use]
    pub fn new(log: Arc<AccessLog>) -> Self {
        Self {
            log,
            bytes: Vec::new(),
            count: 0,
            since: 0,
        }
    }

    /// Adds the line of one request at `now` (milliseconds).
    pub fn write(&mut self, format: &Format, now: u64, lookup: impl FnMut(&str, &mut Vec<u8>)) {
        if self.bytes.is_empty() {
            self.since = now;
            // Room for the line that goes over the edge, too.
            self.bytes.reserve(BUFFER_BYTES + 4096);
        }
        self::format(&mut self.bytes, format, lookup);
        self.count += 1;
        if self.bytes.len() >= BUFFER_BYTES {
            self.flush();
        } else {
            self.tick(now);
        }
    }

    /// Hands the buffer over when it is old enough; a worker calls this on a timer.
    pub fn tick(&mut self, now: u64) {
        if !self.bytes.is_empty() && now.saturating_sub(self.since) >= BUFFER_AGE_MS {
            self.flush();
        }
    }

    /// Hands over what there is.
    pub fn flush(&mut self) {
        if !self.bytes.is_empty() {
            self.log.hand_over(
                std::mem::take(&mut self.bytes),
                std::mem::take(&mut self.count),
            );
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests;
