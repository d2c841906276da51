//! Child processes of the tests: their output line by line as it comes, and an end with a deadline,
//! so that no test sleeps and none hangs.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use regex::Regex;
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take before a test fails. Generous: CI's machines are slow and shared.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Whether there is time for all that a test can try, on a machine that does nothing else.
pub(crate) fn soaks() -> bool {
    std::env::var_os("PHASOR_SOAK").is_some()
}

/// How long something may take: what is promised where the machine does nothing else (`PHASOR_SOAK=1`),
/// and what no machine needs where the tests run beside each other.
pub(crate) fn bound(promised: Duration, busy: Duration) -> Duration {
    if soaks() { promised } else { busy }
}

/// The lines of an output, growing while the process runs.
#[derive(Default)]
pub(crate) struct Lines {
    state: Mutex<LinesState>,
    grown: Condvar,
}

#[derive(Default)]
struct LinesState {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    /// Reads `source` on a thread of its own until it ends.
    fn follow(source: impl Read + Send + 'static) -> Arc<Self> {
        let lines = Arc::new(Self::default());
        let writer = Arc::clone(&lines);
        thread::spawn(move || {
            for line in BufReader::new(source).split(b'\n') {
                let Ok(line) = line else { break };
                let line = String::from_utf8_lossy(&line).into_owned();
                writer.state.lock().unwrap().lines.push(line);
                writer.grown.notify_all();
            }
            writer.state.lock().unwrap().ended = true;
            writer.grown.notify_all();
        });
        lines
    }

    /// How many lines there are: the place from which a later check looks.
    pub(crate) fn mark(&self) -> usize {
        self.state.lock().unwrap().lines.len()
    }

    /// The lines from a mark on, joined.
    pub(crate) fn since(&self, mark: usize) -> String {
        self.state.lock().unwrap().lines[mark..].join("\n")
    }

    /// Waits for a match in the lines from `mark` on; `None` when the time is over or the output
    /// has ended without one.
    pub(crate) fn wait_for(
        &self,
        pattern: &Regex,
        mark: usize,
        patience: Duration,
    ) -> Option<String> {
        let deadline = Instant::now() + patience;
        let mut state = self.state.lock().unwrap();
        loop {
            // A message may span lines (a traceback), so the text is matched, not each line.
            let text = state.lines[mark..].join("\n");
            if let Some(found) = pattern.find(&text) {
                return Some(found.as_str().to_owned());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                return None;
            }
            state = self.grown.wait_timeout(state, left).unwrap().0;
        }
    }
}

/// A running child, killed when it is dropped.
pub(crate) struct Process {
    pid: Pid,
    ended: Receiver<ExitStatus>,
    status: Option<ExitStatus>,
    /// What it wrote to standard output.
    pub(crate) stdout: Arc<Lines>,
    /// What it wrote to standard error.
    pub(crate) stderr: Arc<Lines>,
}

impl Process {
    /// Starts `command` with both outputs followed.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child: Child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdout = Lines::follow(child.stdout.take().unwrap());
        let stderr = Lines::follow(child.stderr.take().unwrap());
        let pid = Pid::from_child(&child);
        let (sender, ended) = channel();
        thread::spawn(move || {
            let status = child.wait().unwrap_or(ExitStatus::from_raw(-1));
            // Nobody may be waiting any more.
            sender.send(status).ok();
        });
        Self {
            pid,
            ended,
            status: None,
            stdout,
            stderr,
        }
    }

    /// Its number in the system.
    pub(crate) fn id(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("the process has ended already");
    }

    /// The most memory that it has held at once, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// The memory that it holds now, in bytes.
    pub(crate) fn resident_memory(&self) -> u64 {
        self.memory("VmRSS:")
    }

    fn memory(&self, name: &str) -> u64 {
        let file = format!("/proc/{}/status", self.pid.as_raw_nonzero());
        let status = std::fs::read_to_string(file).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next());
        kib.unwrap().parse::<u64>().unwrap() << 10
    }

    /// Waits for its end; `None` when it takes longer than `patience`.
    pub(crate) fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.ended.recv_timeout(patience).ok();
        }
        self.status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.wait(Duration::ZERO).is_none() {
            // It may end by itself between the check and the signal.
            kill_process(self.pid, Signal::KILL).ok();
            self.wait(PATIENCE);
        }
    }
}

/// Lets time pass, for a peer that is slow on purpose: no test waits so for something to happen.
pub(crate) fn pause(time: Duration) {
    let (_never, silence) = channel::<()>();
    silence.recv_timeout(time).ok();
}

/// The whole run of a command that ends by itself: exit code (-1 for a signal), output, error output.
pub(crate) fn run(command: &mut Command) -> (i32, String, String) {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// Whether a program can be run here. A test that needs one that is missing is skipped, unless
/// `PHASOR_REQUIRE_TOOLS` is set, as `make test` does.
pub(crate) fn have(program: &str) -> bool {
    let found = program.starts_with('/') && std::path::Path::new(program).exists()
        || std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
        });
    if !found {
        assert!(
            std::env::var_os("PHASOR_REQUIRE_TOOLS").is_none(),
            "{program} is missing: `make tools` installs it"
        );
        eprintln!("skipped: {program} is not installed (`make tools` installs it)");
    }
    found
}
