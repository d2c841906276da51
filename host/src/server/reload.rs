//! A reload: a new generation is built beside the one that serves, on a thread of its own, because
//! compiling takes seconds and the supervisor has workers to look after meanwhile. One that cannot be
//! built changes nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::pid_file::PidFile;
use super::watch::{Seen, Watch};
use super::{Event, Level, Server, note, open_error_log};
use crate::config::Config;
use crate::generation::{BuildError, Builder, Generation};
use crate::worker::{Command, Worker};

/// The exit code of a bad configuration: `EX_CONFIG` of sysexits.
pub const BAD_CONFIGURATION: u8 = 78;
/// How long the supervisor waits until a worker serves a new generation before it says so.
const SWAP: Duration = Duration::from_secs(10);

/// Where the configuration comes from, to be read again at a reload.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// The built-in demo.
    Text(&'static str),
}

impl Source {
    /// Reads and checks it.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn load(&self) -> Result<Config, crate::config::Diagnostics> {
        match self {
            Self::File(path) => Config::load(path),
            Self::Text(text) => Config::parse(text, std::path::Path::new("phasor.toml")),
        }
    }

    /// What a generation of this configuration is going to be built from, if it is to be watched.
    pub(super) fn seen(&self, config: &Config, watches: bool) -> Option<Seen> {
        let wanted = watches || config.server.watch;
        (wanted && matches!(self, Self::File(_))).then(|| Seen::before_build(config))
    }

    /// What tells it from others where the configuration names no pid file.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Text(_) => PathBuf::from("/demo"),
        }
    }
}

/// Why a reload changed nothing.
struct Failed {
    /// The exit code of the command that asked for it.
    code: u8,
    message: String,
}

impl Failed {
    fn bad(message: &dyn std::fmt::Display) -> Self {
        Self {
            code: BAD_CONFIGURATION,
            message: message.to_string(),
        }
    }

    fn other(error: &anyhow::Error) -> Self {
        Self {
            code: 1,
            message: format!("{error:#}"),
        }
    }
}

/// A generation was built, or not.
pub(super) struct Built {
    outcome: Result<(Arc<Generation>, Option<Seen>), Failed>,
    began: Instant,
}

/// Starts the thread that builds: once for each message, until nobody is left to ask.
pub(super) fn start_builder(
    source: Source,
    mut builder: Builder,
    watches: bool,
    events: UnboundedSender<Event>,
) -> std::io::Result<Sender<()>> {
    let (asks, asked) = channel();
    let run = move || {
        while asked.recv().is_ok() {
            let began = Instant::now();
            let build = std::panic::AssertUnwindSafe(|| build(&source, &mut builder, watches));
            let outcome = std::panic::catch_unwind(build)
                .unwrap_or_else(|_| Err(Failed::other(&anyhow::anyhow!("the build panicked"))));
            let built = Built { outcome, began };
            if events.send(Event::Built(built)).is_err() {
                break;
            }
        }
    };
    let thread = std::thread::Builder::new().name("build".to_owned());
    thread.spawn(run).map(|_| asks)
}

fn build(
    source: &Source,
    builder: &mut Builder,
    watches: bool,
) -> Result<(Arc<Generation>, Option<Seen>), Failed> {
    let config = source.load().map_err(|wrong| Failed::bad(&wrong))?;
    let seen = source.seen(&config, watches);
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failed::other(&error.into()))?;
    let built = tokio.block_on(builder.build(config));
    let generation = built.map_err(|wrong: BuildError| Failed::bad(&wrong))?;
    Ok((generation, seen))
}

impl Server {
    /// Begins a reload; asked for again while one is under way, another follows it.
    pub(super) fn reload(&mut self) {
        if self.building {
            self.again = true;
            return;
        }
        self.building = self.builds.send(()).is_ok();
    }

    /// The build is over.
    pub(super) fn built(&mut self, built: Built) -> anyhow::Result<()> {
        self.building = false;
        let outcome = match built.outcome {
            Ok((generation, seen)) => self.serve(generation, seen)?,
            Err(failed) => Err(failed),
        };
        match outcome {
            Ok(()) => {
                let message = format!(
                    "generation {} serves, built in {} ms",
                    self.generation.number,
                    built.began.elapsed().as_millis()
                );
                note(Level::Notice, &message);
                self.tell_command(0, &message);
            }
            Err(failed) => self.failed(&failed),
        }
        if std::mem::take(&mut self.again) {
            self.reload();
        }
        Ok(())
    }

    fn failed(&mut self, failed: &Failed) {
        let message = format!(
            "reload failed, generation {} goes on:\n{}",
            self.generation.number, failed.message
        );
        note(Level::Error, &message);
        self.tell_command(failed.code, &message);
    }

    /// `phasor reload` reads how it ended beside the pid file.
    fn tell_command(&mut self, code: u8, message: &str) {
        if let Some(file) = &mut self.pid_file
            && let Err(error) = file.reloaded(code, message)
        {
            note(Level::Error, format!("{}: {error}", file.path().display()));
        }
    }

    /// Puts a generation in the place of the one that serves.
    fn serve(
        &mut self,
        generation: Arc<Generation>,
        seen: Option<Seen>,
    ) -> anyhow::Result<Result<(), Failed>> {
        let old = std::mem::replace(&mut self.generation, generation);
        let server = &self.generation.config.server;
        let listen: Vec<_> = server.listen.iter().map(|l| l.address).collect();
        if listen != self.bound {
            match self.bind_all() {
                Ok(sockets) => {
                    for (worker, sockets) in self.workers.values().zip(sockets) {
                        worker.tell(Command::Listen(sockets));
                    }
                }
                Err(error) => {
                    self.generation = old;
                    return Ok(Err(Failed::other(&error)));
                }
            }
        }
        self.generation.caches.take_over();
        if let Err(error) = open_error_log(&self.generation.config, self.json) {
            note(
                Level::Error,
                format!("reload: {error:#}; the old error log goes on"),
            );
        }
        if old.config.server.pid != self.generation.config.server.pid
            && let Err(error) = self.take_pid_file()
        {
            note(
                Level::Error,
                format!("reload: {error:#}; the old one stays"),
            );
        }
        self.follow(seen);
        let generation = self.generation.clone();
        self.ask_all(|done| Command::Swap(generation.clone(), done))?;
        Ok(Ok(()))
    }

    /// The pid file that the configuration wants, in place of the one that is held.
    pub(super) fn take_pid_file(&mut self) -> anyhow::Result<()> {
        let place = &self.generation.config.server.pid;
        self.pid_file = PidFile::take(place, &self.source.key())?;
        Ok(())
    }

    /// Watches what the generation depends on, if that is wanted.
    pub(super) fn follow(&mut self, seen: Option<Seen>) {
        let Some(seen) = seen else {
            self.watch = None;
            return;
        };
        if self.watch.is_none() {
            let events = self.events_in.clone();
            // Nobody listens only when the server ends.
            let started = Watch::start(move |path| drop(events.send(Event::Changed(path.into()))));
            match started.context("changes of files are not seen") {
                Ok(watch) => self.watch = Some(watch),
                Err(error) => note(Level::Error, format!("{error:#}")),
            }
        }
        if let Some(watch) = &self.watch {
            watch.follow(seen);
        }
    }

    /// Gives a command to all workers and waits until each has done it. A worker that hangs
    /// meanwhile is replaced at once; what else happens is seen to afterwards.
    pub(super) fn ask_all(
        &mut self,
        command: impl Fn(oneshot::Sender<()>) -> Command,
    ) -> anyhow::Result<()> {
        let ask = |worker: &Worker| {
            let (done, answer) = oneshot::channel();
            worker.tell(command(done));
            (worker.id, answer)
        };
        let mut answers: Vec<_> = self.workers.values().map(ask).collect();
        let until = Instant::now() + SWAP;
        while let Some((id, answer)) = answers.last_mut() {
            let id = *id;
            let events = &mut self.events;
            let event = self.tokio.block_on(async {
                tokio::select! {
                    biased;
                    answer = answer => Some(answer.is_ok()),
                    () = tokio::time::sleep_until(until) => Some(false),
                    event = events.recv() => { self.later.extend(event); None }
                }
            });
            if let Some(done) = event {
                answers.pop();
                // One that panicked or hung meanwhile is replaced by one that starts anew.
                if !done && self.workers.contains_key(&id) && Instant::now() >= until {
                    note(Level::Error, format!("worker {id} does not answer"));
                }
            } else if let Some(Event::Hung(hung)) =
                self.later.pop_back_if(|e| matches!(e, Event::Hung(_)))
            {
                answers.retain(|(id, _)| *id != hung.worker);
                self.give_up(&hung, false)?;
            }
        }
        Ok(())
    }
}
