//! The supervisor: builds a generation, starts the workers, waits for signals and for workers that
//! end. Nothing is bound before everything is built.

use std::collections::{HashMap, VecDeque};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use crate::api::WorkerInfo;
use crate::config::Config;
use crate::config::model::{ErrorLogFormat, LogTarget, PidPlace};
use crate::generation::{Builder, Generation};
use crate::listener;
use crate::observe::error_log::{self, ErrorLog, Level};
use crate::observe::log_file::{LogFile, Target};
use crate::plugin::code_cache::CodeCache;
use crate::plugin::runtime::Runtime;
use crate::plugin::watchdog::{self, Hung};
use crate::worker::{Command, Ended, Worker};

pub mod pid_file;
mod reload;
#[cfg(test)]
mod tests;
mod watch;

pub use reload::{BAD_CONFIGURATION, Source};

/// A worker that panics again so soon waits that long before it is replaced.
const RESTART: Duration = Duration::from_millis(100);

/// How long the end of the server waits for a Redis that is to hear of locks that are given back.
const SETTLE: Duration = Duration::from_secs(2);

/// So many threads may spin for ever; then the process ends, because nothing takes them back.
const MOST_HUNG: u32 = 4;
/// The exit code then: `EX_SOFTWARE`.
const HUNG: i32 = 70;

enum Event {
    Signal(i32),
    /// A file on which the generation depends.
    Changed(PathBuf),
    Built(reload::Built),
    Ended(Ended),
    Hung(Hung),
}

/// What the command line asks of a server.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Reload when a file changes, whatever the configuration says.
    pub watch: bool,
    /// The error log's lines are JSON, whatever the configuration says.
    pub json: bool,
}

/// The running server.
pub struct Server {
    source: Source,
    json: bool,
    builds: Sender<()>,
    building: bool,
    /// A reload was asked for while one was under way.
    again: bool,
    watch: Option<watch::Watch>,
    pid_file: Option<pid_file::PidFile>,
    tokio: tokio::runtime::Runtime,
    generation: Arc<Generation>,
    workers: HashMap<u32, Worker>,
    count: u32,
    bound: Vec<SocketAddr>,
    events: UnboundedReceiver<Event>,
    events_in: UnboundedSender<Event>,
    /// Came while the supervisor waited for its workers.
    later: VecDeque<Event>,
    ended: Sender<Ended>,
    hung: u32,
}

/// What a build step needs; `check` uses it too.
///
/// # Errors
/// When the machine cannot run compiled Wasm.
pub fn builder(config: &Config) -> anyhow::Result<Builder> {
    let cache = CodeCache::of(&config.server.compile_cache);
    let seed = secret(cache.as_ref().map(CodeCache::folder));
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
    let _kept = private(&file, &seed.to_string()).is_ok();
    seed
}

/// Writes a file that nobody else may read.
fn private(file: &std::path::Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(file.parent().unwrap_or(file))?;
    let mut file = std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)?;
    std::io::Write::write_all(&mut file, text.as_bytes())
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
    error_log::install(Arc::new(ErrorLog::new(
        file,
        log.level,
        json || log.format == ErrorLogFormat::Json,
    )));
    Ok(())
}

fn note(level: Level, message: impl AsRef<str>) {
    error_log::write(level, &error_log::Context::default(), message.as_ref());
}

/// Has panics of this process' threads written to the error log, wherever that is: to standard error
/// nobody may listen.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("a thread");
        note(Level::Alert, format!("{name} {panic}"));
    }));
}

impl Server {
    /// Builds everything, binds, and starts the workers.
    ///
    /// # Errors
    /// When the generation cannot be built ([`crate::generation::BuildError`]), an address not
    /// bound, or the pid file not had.
    pub fn start(source: Source, config: Config, options: Options) -> anyhow::Result<Self> {
        let mut builder = builder(&config)?;
        let tokio = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let seen = source.seen(&config, options.watch);
        let generation = tokio.block_on(builder.build(config))?;
        let count = match generation.config.server.workers {
            Some(count) => count.get(),
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        let (events_in, events) = unbounded_channel();
        watch_signals(events_in.clone())?;
        let hangs = events_in.clone();
        // Nobody listens only when the server ends.
        watchdog::report_to(move |hung| drop(hangs.send(Event::Hung(hung))));
        let ended = forward_ended(events_in.clone())?;
        let mut server = Self {
            builds: reload::start_builder(
                source.clone(),
                builder,
                options.watch,
                events_in.clone(),
            )?,
            source,
            json: options.json,
            building: false,
            again: false,
            watch: None,
            pid_file: None,
            tokio,
            generation,
            workers: HashMap::new(),
            count: u32::try_from(count).unwrap_or(1),
            bound: Vec::new(),
            events,
            events_in,
            later: VecDeque::new(),
            ended,
            hung: 0,
        };
        // Whoever sees that it listens can tell it to stop, and changes are seen from then on.
        server.first_pid_file()?;
        server.follow(seen);
        let mut sockets = server.bind_all()?;
        server.generation.caches.take_over();
        for id in (0..server.count).rev() {
            let sockets = sockets.pop().unwrap_or_default();
            server.start_worker(id, sockets)?;
        }
        Ok(server)
    }

    /// A pid file that was asked for must be had. Without the one that nobody asked for, the server
    /// serves, and only `stop` and `reload` do not find it.
    fn first_pid_file(&mut self) -> anyhow::Result<()> {
        let Err(error) = self.take_pid_file() else {
            return Ok(());
        };
        if self.generation.config.server.pid != PidPlace::Default || error.is::<pid_file::Taken>() {
            return Err(error);
        }
        note(Level::Warn, format!("no pid file: {error:#}"));
        Ok(())
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
        while let Some(event) = self.event() {
            match event {
                Event::Signal(SIGHUP) if !ending => self.reload(),
                Event::Changed(path) if !ending => {
                    note(Level::Notice, format!("{} has changed", path.display()));
                    self.reload();
                }
                Event::Built(built) if !ending => self.built(built)?,
                Event::Signal(SIGUSR1) => self.reopen_logs()?,
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
                Event::Signal(_) | Event::Changed(_) | Event::Built(_) => {}
                Event::Hung(hung) => self.give_up(&hung, ending)?,
                Event::Ended(ended) => {
                    let lost = self.workers.remove(&ended.id);
                    if ended.panicked && !ending {
                        self.replace(ended.id, lost)?;
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
        crate::cache::close_all();
        self.tokio.block_on(crate::lock::settle(SETTLE));
        note(Level::Notice, "ended");
        Ok(())
    }

    fn event(&mut self) -> Option<Event> {
        let later = self.later.pop_front();
        later.or_else(|| self.tokio.block_on(self.events.recv()))
    }

    fn tell_all(&self, command: impl Fn() -> Command) {
        for worker in self.workers.values() {
            worker.tell(command());
        }
    }

    fn wait_for_end(&mut self, most: Duration) {
        let until = Instant::now() + most;
        while !self.workers.is_empty() {
            let next = async { tokio::time::timeout_at(until, self.events.recv()).await };
            match self.tokio.block_on(next) {
                Ok(Some(Event::Ended(ended))) => {
                    self.workers.remove(&ended.id);
                }
                Ok(Some(Event::Hung(hung))) => {
                    self.workers.remove(&hung.worker);
                }
                Ok(Some(Event::Signal(_) | Event::Changed(_) | Event::Built(_))) => {}
                Ok(None) | Err(_) => break,
            }
        }
    }

    /// The others go on while a worker that panicked is replaced.
    fn replace(&mut self, id: u32, lost: Option<Worker>) -> anyhow::Result<()> {
        note(
            Level::Alert,
            format!("worker {id} panicked and is replaced"),
        );
        #[expect(
            clippy::disallowed_methods,
            reason = "the supervisor's own thread; no worker waits here"
        )]
        std::thread::sleep(RESTART);
        self.start_again(id, lost)
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
        if let Some(lost) = &lost {
            lost.give_up();
        }
        if !ending {
            return self.start_again(*id, lost);
        }
        if let Some(lost) = lost {
            lost.shut_sockets();
        }
        Ok(())
    }

    /// On the sockets of the worker that is lost, with the clients who wait in their queues.
    fn start_again(&mut self, id: u32, lost: Option<Worker>) -> anyhow::Result<()> {
        let mut sockets = lost.map_or_else(Vec::new, |lost| lost.take_sockets());
        let listen = &self.generation.config.server.listen;
        if sockets.len() != listen.len() {
            sockets.clear();
            for listen in listen {
                sockets.extend(listener::bind_more(listen.address, listen.backlog, 1)?);
            }
        }
        self.start_worker(id, sockets)
    }

    fn reopen_logs(&mut self) -> anyhow::Result<()> {
        error_log::reopen();
        // What was logged before the signal belongs into the old file.
        self.ask_all(Command::Flush)?;
        if let Some((log, _)) = &self.generation.access {
            log.flush();
            log.reopen();
        }
        Ok(())
    }
}

fn watch_signals(events: UnboundedSender<Event>) -> anyhow::Result<()> {
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
fn forward_ended(events: UnboundedSender<Event>) -> anyhow::Result<Sender<Ended>> {
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
