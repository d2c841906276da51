//! The supervisor: builds a generation, starts the workers, waits for signals and for workers that
//! end. Nothing is bound before everything is built.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::api::WorkerInfo;
use crate::config::Config;
use crate::config::model::{ErrorLogFormat, LogTarget};
use crate::generation::{Builder, Generation};
use crate::listener;
use crate::observe::error_log::{self, ErrorLog, Level};
use crate::observe::log_file::{LogFile, Target};
use crate::plugin::runtime::{self, Runtime};
use crate::plugin::watchdog::{self, Hung};
use crate::worker::{Command, Ended, Worker};

/// How long the supervisor waits until a worker serves a new generation before it says so.
const SWAP: Duration = Duration::from_secs(10);
/// A worker that panics again so soon waits that long before it is replaced.
const RESTART: Duration = Duration::from_millis(100);

/// So many threads may spin for ever; then the process ends, because nothing takes them back.
const MOST_HUNG: u32 = 4;
/// The exit code then: `EX_SOFTWARE`.
const HUNG: i32 = 70;

/// Where the configuration comes from, to be read again at a reload.
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
}

enum Event {
    Signal(i32),
    Ended(Ended),
    Hung(Hung),
}

/// The running server.
pub struct Server {
    source: Source,
    builder: Builder,
    tokio: tokio::runtime::Runtime,
    generation: Arc<Generation>,
    workers: HashMap<u32, Worker>,
    count: u32,
    bound: Vec<SocketAddr>,
    events: Receiver<Event>,
    ended: Sender<Ended>,
    hung: u32,
}

/// What a build step needs; `check` uses it too.
///
/// # Errors
/// When the machine cannot run compiled Wasm.
pub fn builder() -> anyhow::Result<Builder> {
    let cache = runtime::cache_folder();
    let seed = secret(cache.as_deref());
    Ok(Builder::new(Runtime::new(cache)?, seed))
}

/// A number that outsiders cannot guess and that stays the same from start to start, so that heap
/// images do, too: it seeds hash tables.
fn secret(folder: Option<&std::path::Path>) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    let random = || RandomState::new().hash_one(std::process::id());
    let Some(file) = folder.map(|folder| folder.join("seed")) else {
        return random();
    };
    if let Some(known) = std::fs::read_to_string(&file)
        .ok()
        .and_then(|text| text.trim().parse().ok())
    {
        return known;
    }
    let seed = random() >> 12;
    // Without the file the next start compiles its heap images again: slower, nothing else.
    let _kept = std::fs::create_dir_all(file.parent().unwrap_or(&file))
        .and_then(|()| std::fs::write(&file, seed.to_string()))
        .is_ok();
    seed
}

/// Opens the error log that a configuration names.
///
/// # Errors
/// When the file cannot be opened.
pub fn open_error_log(config: &Config, json: bool) -> anyhow::Result<()> {
    let log = &config.server.error_log;
    let target = match &log.target {
        LogTarget::Standard => Target::Stderr,
        LogTarget::Off => Target::File("/dev/null".into()),
        LogTarget::File(path) => Target::File(path.clone()),
    };
    let file = LogFile::open(target).context("error_log")?;
    let level = Level::from_number(log.level as u8).unwrap_or(Level::Notice);
    error_log::install(Arc::new(ErrorLog::new(
        file,
        level,
        json || log.format == ErrorLogFormat::Json,
    )));
    Ok(())
}

fn note(level: Level, message: impl AsRef<str>) {
    error_log::write(level, &error_log::Context::default(), message.as_ref());
}

impl Server {
    /// Builds everything, binds, and starts the workers.
    ///
    /// # Errors
    /// When the generation cannot be built ([`crate::generation::BuildError`]) or an address not bound.
    pub fn start(source: Source, config: Config) -> anyhow::Result<Self> {
        let mut builder = builder()?;
        let tokio = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let generation = tokio.block_on(builder.build(config))?;
        let count = match generation.config.server.workers {
            Some(count) => count.get(),
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        let (events_in, events) = channel();
        watch_signals(events_in.clone())?;
        let hangs = events_in.clone();
        // Nobody listens only when the server ends.
        watchdog::report_to(move |hung| drop(hangs.send(Event::Hung(hung))));
        let ended = forward_ended(events_in)?;
        let mut server = Self {
            source,
            builder,
            tokio,
            generation,
            workers: HashMap::new(),
            count: u32::try_from(count).unwrap_or(1),
            bound: Vec::new(),
            events,
            ended,
            hung: 0,
        };
        let mut sockets = server.bind_all()?;
        for id in (0..server.count).rev() {
            let sockets = sockets.pop().unwrap_or_default();
            server.start_worker(id, sockets)?;
        }
        Ok(server)
    }

    /// Sockets of all addresses for each worker, and the addresses as bound.
    fn bind_all(&mut self) -> anyhow::Result<Vec<Vec<StdListener>>> {
        let mut sockets: Vec<Vec<StdListener>> = (0..self.count).map(|_| Vec::new()).collect();
        for listen in &self.generation.config.server.listen {
            let known = self.bound.contains(&listen.address);
            let bind = if known {
                listener::bind_more
            } else {
                listener::bind
            };
            let listeners = bind(listen.address, listen.backlog, self.count as usize)
                .with_context(|| format!("listen on {}", listen.address))?;
            if let Some(address) = listeners.first().and_then(|l| l.local_addr().ok()) {
                note(Level::Notice, format!("listening on {address}"));
            }
            for (list, listener) in sockets.iter_mut().zip(listeners) {
                list.push(listener);
            }
        }
        self.bound = self
            .generation
            .config
            .server
            .listen
            .iter()
            .map(|l| l.address)
            .collect();
        Ok(sockets)
    }

    fn start_worker(&mut self, id: u32, sockets: Vec<StdListener>) -> anyhow::Result<()> {
        let info = WorkerInfo {
            id,
            count: self.count,
            ..WorkerInfo::default()
        };
        let worker = Worker::start(info, self.generation.clone(), sockets, self.ended.clone())
            .with_context(|| format!("start worker {id}"))?;
        self.workers.insert(id, worker);
        Ok(())
    }

    /// Waits for signals until the server ends.
    ///
    /// # Errors
    /// When a worker cannot be replaced.
    pub fn run(mut self) -> anyhow::Result<()> {
        let mut ending = false;
        while let Ok(event) = self.events.recv() {
            match event {
                Event::Signal(SIGHUP) if !ending => self.reload(),
                Event::Signal(SIGUSR1) => self.reopen_logs(),
                Event::Signal(SIGQUIT) if !ending => {
                    ending = true;
                    note(Level::Notice, "draining");
                    let most = self.generation.config.server.drain;
                    self.tell_all(|| Command::Drain(most));
                }
                Event::Signal(SIGTERM | SIGINT) => {
                    self.tell_all(|| Command::Stop);
                    self.wait_for_end(Duration::from_secs(5));
                    break;
                }
                Event::Signal(_) => {}
                Event::Hung(hung) => self.give_up(&hung, ending)?,
                Event::Ended(ended) => {
                    self.workers.remove(&ended.id);
                    if ended.panicked && !ending {
                        self.replace(ended.id)?;
                    }
                }
            }
            if ending && self.workers.is_empty() {
                break;
            }
        }
        if let Some((log, _)) = &self.generation.access {
            log.flush();
        }
        note(Level::Notice, "ended");
        Ok(())
    }

    fn tell_all(&self, command: impl Fn() -> Command) {
        for worker in self.workers.values() {
            worker.tell(command());
        }
    }

    fn wait_for_end(&mut self, most: Duration) {
        let until = Instant::now() + most;
        while !self.workers.is_empty() {
            match self
                .events
                .recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                Ok(Event::Ended(ended)) => {
                    self.workers.remove(&ended.id);
                }
                Ok(Event::Hung(hung)) => {
                    self.workers.remove(&hung.worker);
                }
                Ok(Event::Signal(_)) => {}
                Err(_) => break,
            }
        }
    }

    /// The others go on while a worker that panicked is replaced.
    fn replace(&mut self, id: u32) -> anyhow::Result<()> {
        note(
            Level::Alert,
            format!("worker {id} panicked and is replaced"),
        );
        #[expect(
            clippy::disallowed_methods,
            reason = "the supervisor's own thread; no worker waits here"
        )]
        std::thread::sleep(RESTART);
        self.start_again(id)
    }

    /// A worker whose runtime does not come back: its thread is lost, its place is not.
    fn give_up(&mut self, hung: &Hung, ending: bool) -> anyhow::Result<()> {
        self.hung += 1;
        let Hung {
            worker: id,
            plugin,
            limit,
        } = hung;
        note(
            Level::Alert,
            format!(
                "plugin `{plugin}` has held worker {id} for more than {limit:?} (limits.watchdog): the worker is replaced, its requests are lost"
            ),
        );
        let lost = self.workers.remove(id);
        if self.hung >= MOST_HUNG {
            if let Some((log, _)) = &self.generation.access {
                log.flush();
            }
            note(
                Level::Emerg,
                format!(
                    "{} workers hang and cannot be taken back: the process ends",
                    self.hung
                ),
            );
            std::process::exit(HUNG);
        }
        if !ending {
            self.start_again(*id)?;
        }
        if let Some(lost) = lost {
            lost.give_up();
        }
        Ok(())
    }

    fn start_again(&mut self, id: u32) -> anyhow::Result<()> {
        let mut sockets = Vec::new();
        for listen in &self.generation.config.server.listen {
            sockets.extend(listener::bind_more(listen.address, listen.backlog, 1)?);
        }
        self.start_worker(id, sockets)
    }

    fn reopen_logs(&self) {
        error_log::reopen();
        // What was logged before the signal belongs into the old file.
        self.ask_all(Command::Flush);
        if let Some((log, _)) = &self.generation.access {
            log.flush();
            log.reopen();
        }
    }

    /// A new generation beside the old one; one that cannot be built changes nothing.
    fn reload(&mut self) {
        let began = Instant::now();
        let config = match self.source.load() {
            Ok(config) => config,
            Err(wrong) => {
                return note(
                    Level::Error,
                    format!(
                        "reload failed, generation {} goes on:\n{wrong}",
                        self.generation.number
                    ),
                );
            }
        };
        let generation = match self.tokio.block_on(self.builder.build(config)) {
            Ok(generation) => generation,
            Err(wrong) => {
                return note(
                    Level::Error,
                    format!(
                        "reload failed, generation {} goes on:\n{wrong}",
                        self.generation.number
                    ),
                );
            }
        };
        if let Err(error) = open_error_log(&generation.config, false) {
            note(
                Level::Error,
                format!("reload: {error:#}; the old error log goes on"),
            );
        }
        let old = std::mem::replace(&mut self.generation, generation);
        let listen: Vec<_> = self
            .generation
            .config
            .server
            .listen
            .iter()
            .map(|l| l.address)
            .collect();
        if listen != self.bound {
            match self.bind_all() {
                Ok(sockets) => {
                    for (worker, sockets) in self.workers.values().zip(sockets) {
                        worker.tell(Command::Listen(sockets));
                    }
                }
                Err(error) => {
                    note(
                        Level::Error,
                        format!(
                            "reload failed, generation {} goes on: {error:#}",
                            old.number
                        ),
                    );
                    self.generation = old;
                    return;
                }
            }
        }
        self.swap();
        note(
            Level::Notice,
            format!(
                "generation {} serves, built in {} ms",
                self.generation.number,
                began.elapsed().as_millis()
            ),
        );
    }

    fn swap(&self) {
        self.ask_all(|done| Command::Swap(self.generation.clone(), done));
    }

    /// Gives a command to all workers and waits until each has done it.
    fn ask_all(&self, command: impl Fn(oneshot::Sender<()>) -> Command) {
        let ask = |worker: &Worker| {
            let (done, answer) = oneshot::channel();
            worker.tell(command(done));
            (worker.id, answer)
        };
        let answers: Vec<_> = self.workers.values().map(ask).collect();
        for (id, answer) in answers {
            let done = self
                .tokio
                .block_on(async { tokio::time::timeout(SWAP, answer).await });
            if !matches!(done, Ok(Ok(()))) {
                note(Level::Error, format!("worker {id} does not answer"));
            }
        }
    }
}

fn watch_signals(events: Sender<Event>) -> anyhow::Result<()> {
    let mut signals =
        signal_hook::iterator::Signals::new([SIGHUP, SIGQUIT, SIGTERM, SIGINT, SIGUSR1])
            .context("watch signals")?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                if events.send(Event::Signal(signal)).is_err() {
                    break;
                }
            }
        })?;
    Ok(())
}

/// Workers tell of their end in their own words; here these become events.
fn forward_ended(events: Sender<Event>) -> anyhow::Result<Sender<Ended>> {
    let (sender, receiver) = channel();
    std::thread::Builder::new()
        .name("ends".to_owned())
        .spawn(move || {
            while let Ok(ended) = receiver.recv() {
                if events.send(Event::Ended(ended)).is_err() {
                    break;
                }
            }
        })?;
    Ok(sender)
}
