//! `phasor stop` and `phasor reload`: a word to the server that runs a configuration, and what came
//! of it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::Signal;

use crate::config::Config;
use crate::config::model::PidPlace;
use crate::server::Source;
use crate::server::pid_file::{self, Running};

/// How often somebody who waits is told so.
const STEP: Duration = Duration::from_secs(1);
/// How often the outcome of a reload is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// Which server is meant.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// The configuration that it runs: FILE, else ./phasor.toml, else the built-in demo
    file: Option<PathBuf>,
    /// Its pid file, whatever the configuration says
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    pid: Option<PathBuf>,
}

impl Which {
    fn find(self) -> anyhow::Result<Running> {
        let (places, what) = match self.pid {
            Some(file) => {
                let what = format!("no server holds the pid file {}", file.display());
                (vec![file], what)
            }
            None => {
                let source = super::source(self.file);
                let (place, what) = match &source {
                    Source::File(file) => {
                        anyhow::ensure!(file.exists(), "{}: no such file", file.display());
                        let what = format!("no server runs {}", file.display());
                        (Config::pid_place(file), what)
                    }
                    Source::Text(_) => (
                        PidPlace::Default,
                        "no server runs the built-in demo".to_owned(),
                    ),
                };
                anyhow::ensure!(
                    place != PidPlace::Off,
                    "the configuration wants no pid file (pid = \"off\"): signal the process yourself"
                );
                (pid_file::places(&place, &source.key()), what)
            }
        };
        for place in &places {
            if let Some(running) = Running::find(place)? {
                return Ok(running);
            }
        }
        let looked: Vec<_> = places.iter().map(|p| p.display().to_string()).collect();
        anyhow::bail!("{what} (looked at {})", looked.join(", "))
    }
}

fn say(line: &str) {
    // Nobody is left to tell when standard output is closed.
    let _told = writeln!(anstream::stdout(), "{line}").is_ok();
}

/// `phasor stop`.
pub(super) fn stop(which: Which, now: bool) -> ExitCode {
    match which.find().and_then(|running| end(&running, now)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::failed(&format!("{error:#}")),
    }
}

fn end(running: &Running, now: bool) -> anyhow::Result<()> {
    let pid = running.pid;
    running.signal(if now { Signal::TERM } else { Signal::QUIT })?;
    let mut progress = Progress::new();
    let mut waited = Duration::ZERO;
    while !running.wait(STEP)? {
        waited += STEP;
        let seconds = waited.as_secs();
        progress.show(&format!("process {pid} ends its requests: {seconds} s"));
    }
    progress.clear();
    say(&format!("process {pid} has ended"));
    Ok(())
}

/// `phasor reload`.
pub(super) fn reload(which: Which) -> ExitCode {
    let outcome = which.find().and_then(|running| renew(&running));
    match outcome {
        Ok((0, message)) => {
            say(&message);
            ExitCode::SUCCESS
        }
        Ok((code, message)) => {
            super::failed(&message);
            ExitCode::from(code)
        }
        Err(error) => super::failed(&format!("{error:#}")),
    }
}

fn renew(running: &Running) -> anyhow::Result<(u8, String)> {
    let pid = running.pid;
    let before = running.outcome().number;
    running.signal(Signal::HUP)?;
    let mut progress = Progress::new();
    let mut waited = Duration::ZERO;
    loop {
        let ended = running.wait(LOOK)?;
        let outcome = running.outcome();
        if outcome.number > before {
            progress.clear();
            return Ok((outcome.code, outcome.message));
        }
        if !ended && !running.is_here() {
            // Only a generation that serves can have moved it.
            return Ok((
                0,
                format!("process {pid} has reloaded, its pid file has moved"),
            ));
        }
        anyhow::ensure!(!ended, "process {pid} ended before it had reloaded");
        waited += LOOK;
        if waited.as_millis().is_multiple_of(STEP.as_millis()) {
            let seconds = waited.as_secs();
            progress.show(&format!("process {pid} builds: {seconds} s"));
        }
    }
}

/// One line that is written over, on a terminal; elsewhere it is said once.
struct Progress {
    terminal: bool,
    shown: bool,
}

impl Progress {
    fn new() -> Self {
        use std::io::IsTerminal as _;
        Self {
            terminal: std::io::stderr().is_terminal(),
            shown: false,
        }
    }

    fn show(&mut self, line: &str) {
        let mut stderr = std::io::stderr();
        // As for `say`.
        let _told = match (self.terminal, self.shown) {
            (true, _) => write!(stderr, "\r{line}\x1b[K")
                .and_then(|()| stderr.flush())
                .is_ok(),
            (false, false) => writeln!(stderr, "{line}").is_ok(),
            (false, true) => true,
        };
        self.shown = true;
    }

    fn clear(&mut self) {
        if self.terminal && self.shown {
            let _told = write!(std::io::stderr(), "\r\x1b[K").is_ok();
        }
    }
}
