//! One worker: a thread with its own runtime, sockets, instances and connections. It shares nothing
//! on the request path; the supervisor talks to it by [`Command`]s.

use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, LocalSet};

use crate::api::WorkerInfo;
use crate::connection::{self, Site, Sockets};
use crate::exchange;
use crate::generation::{Generation, Served};
use crate::listener;
use crate::observe::error_log::{self, Context, Level};

/// How often a drain looks whether it is over.
const DRAIN_STEP: Duration = Duration::from_millis(10);
/// What `exit_worker` handlers may take together.
const EXIT: Duration = Duration::from_secs(5);

/// What the supervisor wants.
pub enum Command {
    /// Serve new requests with this generation; answers when it does.
    Swap(Arc<Generation>, oneshot::Sender<()>),
    /// Hand over what the access log's buffer holds; answers when it has.
    Flush(oneshot::Sender<()>),
    /// Accept on these sockets from now on, and on no others.
    Listen(Vec<StdListener>),
    /// Accept no more, end what is in progress, then end; at the latest after that time.
    Drain(Duration),
    /// End now.
    Stop,
}

/// A worker has ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Which.
    pub id: u32,
    /// By a panic: it is to be replaced.
    pub panicked: bool,
}

/// A running worker, as the supervisor holds it.
pub struct Worker {
    /// Its number.
    pub id: u32,
    commands: mpsc::UnboundedSender<Command>,
    open: Open,
    clients: Sockets,
    given_up: Arc<AtomicBool>,
}

/// Second descriptors of the sockets that a worker listens on, to shut them from outside when it
/// hangs; the worker drops them when it stops listening.
type Open = Arc<Mutex<Vec<std::os::fd::OwnedFd>>>;

impl Worker {
    /// Starts a thread. `ended` is told when it is over.
    ///
    /// # Errors
    /// When the system has no thread or no descriptors left.
    pub fn start(
        info: WorkerInfo,
        generation: Arc<Generation>,
        sockets: Vec<StdListener>,
        ended: Sender<Ended>,
    ) -> std::io::Result<Self> {
        let (commands, received) = mpsc::unbounded_channel();
        let id = info.id;
        let open = Open::default();
        let given_up = Arc::new(AtomicBool::new(false));
        let (opened, forgotten) = (open.clone(), given_up.clone());
        let clients = Sockets::default();
        let noted = clients.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // Once per turn of the loop, as nginx does: a clock call per request is one too many.
            .on_thread_unpark(|| {
                crate::time_cache::update();
            })
            .build()?;
        std::thread::Builder::new()
            .name(format!("worker-{id}"))
            .spawn(move || {
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    LocalSet::new().block_on(
                        &runtime,
                        run(info, generation, sockets, received, (opened, noted)),
                    );
                }));
                if forgotten.load(Ordering::Relaxed) {
                    // Another worker has its number.
                    return;
                }
                // The supervisor is gone only when the process ends.
                let _told = ended
                    .send(Ended {
                        id,
                        panicked: result.is_err(),
                    })
                    .is_ok();
            })?;
        Ok(Self {
            id,
            commands,
            open,
            clients,
            given_up,
        })
    }

    /// A worker that hangs gets no more connections, and its end, should it come, is nobody's
    /// concern. The clients it has are let go: nobody will answer them.
    pub fn give_up(self) {
        self.given_up.store(true, Ordering::Relaxed);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for socket in open.drain(..) {
            // A socket that the system has shut already is what is wanted.
            let _shut = socket2::SockRef::from(&socket)
                .shutdown(std::net::Shutdown::Both)
                .is_ok();
        }
        drop(open);
        self.clients.close();
    }

    /// Gives a command; a worker that has ended hears nothing.
    pub fn tell(&self, command: Command) {
        let _heard = self.commands.send(command).is_ok();
    }
}

struct State {
    site: Rc<Site>,
    open: Open,
    info: WorkerInfo,
    accepting: Vec<(Rc<tokio::net::TcpListener>, JoinHandle<()>)>,
    retired: Rc<std::cell::RefCell<Vec<Rc<Served>>>>,
}

async fn run(
    info: WorkerInfo,
    generation: Arc<Generation>,
    sockets: Vec<StdListener>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    (open, clients): (Open, Sockets),
) {
    let site = Site::new(Served::start(generation, info.clone()), info.id, clients);
    let mut state = State {
        site: site.clone(),
        open,
        info,
        accepting: Vec::new(),
        retired: Rc::default(),
    };
    tokio::task::spawn_local(sweep(site.clone(), state.retired.clone()));
    state.listen(sockets);
    while let Some(command) = commands.recv().await {
        match command {
            Command::Swap(generation, done) => {
                let old = site.swap(Served::start(generation, state.info.clone()));
                old.retire();
                state.retired.borrow_mut().push(old);
                // The supervisor may have given up waiting.
                let _waited_for = done.send(()).is_ok();
            }
            Command::Flush(done) => {
                site.served().flush();
                let _waited_for = done.send(()).is_ok();
            }
            Command::Listen(sockets) => state.listen(sockets),
            Command::Drain(most) => {
                state.stop_listening();
                tokio::select! {
                    () = state.drain(most) => {}
                    () = stopped(&mut commands) => {}
                }
                break;
            }
            Command::Stop => {
                state.stop_listening();
                break;
            }
        }
    }
    let served = site.served();
    let closing = async {
        let retired = std::mem::take(&mut *state.retired.borrow_mut());
        for old in retired {
            old.close().await;
        }
        served.close().await;
    };
    if tokio::time::timeout(EXIT, closing).await.is_err() {
        error_log::write(
            Level::Warn,
            &Context::default(),
            "exit_worker handlers took too long and were ended",
        );
    }
    served.flush();
}

/// Waits for the order to end now, in place of a drain that takes its time.
async fn stopped(commands: &mut mpsc::UnboundedReceiver<Command>) {
    while let Some(command) = commands.recv().await {
        if matches!(command, Command::Stop) {
            break;
        }
    }
}

impl State {
    fn listen(&mut self, sockets: Vec<StdListener>) {
        self.stop_listening();
        for socket in sockets {
            let second = std::os::fd::AsFd::as_fd(&socket).try_clone_to_owned();
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.extend(second.ok());
            drop(open);
            let listener = match tokio::net::TcpListener::from_std(socket) {
                Ok(listener) => Rc::new(listener),
                Err(error) => {
                    error_log::write(
                        Level::Crit,
                        &Context::default(),
                        format!("a listening socket cannot be used: {error}"),
                    );
                    continue;
                }
            };
            let (site, socket) = (self.site.clone(), listener.clone());
            let task = tokio::task::spawn_local(async move {
                listener::accept(&socket, |stream| serve(stream, &site)).await
            });
            self.accepting.push((listener, task));
        }
    }

    /// What the kernel has accepted for us is served; nothing new comes.
    fn stop_listening(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.clear();
        drop(open);
        for (listener, task) in self.accepting.drain(..) {
            task.abort();
            listener::accept_waiting(&listener, |stream| serve(stream, &self.site));
        }
    }

    async fn drain(&self, most: Duration) {
        let until = tokio::time::Instant::now() + most;
        // Connections that were accepted just now have to be seen by their tasks first.
        tokio::task::yield_now().await;
        self.site.drain();
        while self.site.open() > 0 || exchange::count() > 0 {
            if tokio::time::Instant::now() >= until {
                let message = format!(
                    "{} connections are cut: the drain time is over",
                    self.site.open()
                );
                error_log::write(
                    Level::Warn,
                    &Context {
                        worker: Some(self.info.id as usize),
                        ..Context::default()
                    },
                    message,
                );
                break;
            }
            tokio::time::sleep(DRAIN_STEP).await;
        }
    }
}

fn serve(stream: tokio::net::TcpStream, site: &Rc<Site>) {
    if site.open() >= site.served().generation.config.server.max_connections {
        error_log::write(
            Level::Alert,
            &Context::default(),
            "a connection is refused: max_connections are open",
        );
        return;
    }
    tokio::task::spawn_local(connection::serve(stream, site.clone()));
}

/// Looks after time-outs, the access log's buffer and generations that nobody uses any more.
async fn sweep(site: Rc<Site>, retired: Rc<std::cell::RefCell<Vec<Rc<Served>>>>) {
    let mut interval = tokio::time::interval(connection::SWEEP);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        site.sweep();
        let unused = {
            let mut retired = retired.borrow_mut();
            let place = retired.iter().position(|old| Rc::strong_count(old) == 1);
            place.map(|place| retired.swap_remove(place))
        };
        if let Some(old) = unused {
            tokio::task::spawn_local(async move { old.close().await });
        }
    }
}
