//! One worker: a thread with its own runtime, sockets, instances and connections. It shares nothing
//! on the request path; the supervisor talks to it by [`Command`]s.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::net::TcpListener as StdListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

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
    shared: Shared,
}

/// Second descriptors of the sockets that a worker listens on. When it hangs or panics, the next one
/// goes on with them, so that the clients in their queues wait for it and lose nothing; the worker
/// drops them when it stops listening.
#[derive(Debug, Default)]
struct Open {
    /// What it listens on, or will as soon as it reads its commands.
    now: Vec<OwnedFd>,
    /// What it listened on before, until it has read that command.
    before: Vec<OwnedFd>,
}

impl Open {
    fn replace(&mut self, sockets: &[StdListener]) {
        self.before.append(&mut self.now);
        let second = |socket: &StdListener| socket.as_fd().try_clone_to_owned().ok();
        // Without descriptors left, a worker that hangs has its sockets bound anew.
        self.now.extend(sockets.iter().filter_map(second));
    }
}

/// What a worker's thread shares with its supervisor.
#[derive(Debug, Clone, Default)]
struct Shared {
    open: Arc<Mutex<Open>>,
    clients: Sockets,
    /// Another worker has its number and its sockets.
    given_up: Arc<AtomicBool>,
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }
}

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
        let shared = Shared::default();
        shared.open().replace(&sockets);
        let own = shared.clone();
        let (begun, begins) = std::sync::mpsc::channel();
        std::thread::Builder::new()
            .name(format!("worker-{id}"))
            .spawn(move || {
                let runtime = match event_loop() {
                    Ok(runtime) => runtime,
                    Err(error) => {
                        // Who starts it waits for this.
                        let _told = begun.send(Err(error)).is_ok();
                        return;
                    }
                };
                let _told = begun.send(Ok(())).is_ok();
                let result = catch_unwind(AssertUnwindSafe(|| {
                    runtime.block_on(run(info, generation, sockets, received, own.clone()));
                    // What its last requests hold is let go before the supervisor hears of the end.
                    drop(runtime);
                }));
                if own.is_given_up() {
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
        begins
            .recv()
            .unwrap_or_else(|gone| Err(std::io::Error::other(gone)))?;
        Ok(Self {
            id,
            commands,
            shared,
        })
    }

    /// A worker that hangs gets no more connections, and its end, should it come, is nobody's
    /// concern. The clients it has are let go: nobody will answer them.
    pub fn give_up(&self) {
        self.shared.given_up.store(true, Ordering::Relaxed);
        for socket in self.shared.open().before.drain(..) {
            shut(&socket);
        }
        self.shared.clients.close();
    }

    /// What it listens on, for the worker in its place; for nobody else it would be a queue that
    /// nobody serves.
    #[must_use]
    pub fn take_sockets(&self) -> Vec<StdListener> {
        let now = std::mem::take(&mut self.shared.open().now);
        now.into_iter().map(StdListener::from).collect()
    }

    /// Its sockets have no other worker: who waits in their queues is let go.
    pub fn shut_sockets(&self) {
        for socket in self.take_sockets() {
            shut(&socket.into());
        }
    }

    /// Gives a command; a worker that has ended hears nothing.
    pub fn tell(&self, command: Command) {
        if let Command::Listen(sockets) = &command {
            self.shared.open().replace(sockets);
        }
        let _heard = self.commands.send(command).is_ok();
    }
}

fn shut(socket: &OwnedFd) {
    // A socket that the system has shut already is what is wanted.
    let _shut = socket2::SockRef::from(socket)
        .shutdown(std::net::Shutdown::Both)
        .is_ok();
}

/// The loop of a worker. Its tasks are the runtime's own, without a set of local tasks between:
/// waking one is one queue less. It belongs to the thread that makes it.
fn event_loop() -> std::io::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        // Once per turn of the loop, as nginx does: a clock call per request is one too many.
        .on_thread_unpark(|| {
            crate::time_cache::update();
        })
        .build_local(LocalOptions::default())
}

struct State {
    site: Rc<Site>,
    shared: Shared,
    info: WorkerInfo,
    accepting: Vec<(Rc<tokio::net::TcpListener>, JoinHandle<()>)>,
    retired: Rc<std::cell::RefCell<Vec<Rc<Served>>>>,
    broken: mpsc::UnboundedSender<Panic>,
}

/// What a task that panicked said.
type Panic = Box<dyn Any + Send>;

/// Starts what a worker cannot be without. The runtime keeps a task's panic to itself, which is right
/// for a connection's; here the worker hears of it and ends, to be replaced.
fn vital(
    broken: mpsc::UnboundedSender<Panic>,
    task: impl Future<Output = ()> + 'static,
) -> JoinHandle<()> {
    tokio::task::spawn_local(async move {
        let mut task = pin!(task);
        let outcome = poll_fn(|cx| {
            let poll = catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(cx)));
            poll.map_or_else(|panic| Poll::Ready(Err(panic)), |poll| poll.map(Ok))
        });
        if let Err(panic) = outcome.await {
            // Nobody listens only when the worker ends.
            let _heard = broken.send(panic).is_ok();
        }
    })
}

async fn run(
    info: WorkerInfo,
    generation: Arc<Generation>,
    sockets: Vec<StdListener>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    shared: Shared,
) {
    let served = Served::start(generation, info.clone());
    let site = Site::new(served, info.id, shared.clients.clone());
    let (broken, mut breaks) = mpsc::unbounded_channel();
    let mut state = State {
        site: site.clone(),
        shared,
        info,
        accepting: Vec::new(),
        retired: Rc::default(),
        broken,
    };
    let sweeps = sweep(site.clone(), state.retired.clone());
    vital(state.broken.clone(), sweeps);
    state.listen(sockets);
    loop {
        let command = tokio::select! {
            command = commands.recv() => command,
            Some(panic) = breaks.recv() => resume_unwind(panic),
        };
        let Some(command) = command else { break };
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
        self.leave_sockets();
        for socket in sockets {
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
            let shared = self.shared.clone();
            let task = vital(self.broken.clone(), async move {
                let mut accept = pin!(listener::accept(&socket, |stream| serve(stream, &site)));
                // Who comes back after it was given up would take clients from its successor.
                poll_fn(|cx| match shared.is_given_up() {
                    true => Poll::Ready(()),
                    false => accept.as_mut().poll(cx),
                })
                .await;
            });
            self.accepting.push((listener, task));
        }
    }

    fn stop_listening(&mut self) {
        self.shared.open().now.clear();
        self.leave_sockets();
    }

    /// What the kernel has accepted for us is served; nothing new comes.
    fn leave_sockets(&mut self) {
        self.shared.open().before.clear();
        for (listener, task) in self.accepting.drain(..) {
            task.abort();
            if !self.shared.is_given_up() {
                listener::accept_waiting(&listener, |stream| serve(stream, &self.site));
            }
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
        site.sweep().await;
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

#[cfg(test)]
mod tests {
    use super::{event_loop, vital};

    #[test]
    fn the_panic_of_a_vital_task_is_heard() {
        let heard = event_loop().unwrap().block_on(async {
            let (broken, mut breaks) = tokio::sync::mpsc::unbounded_channel();
            vital(broken.clone(), async {});
            vital(broken, async {
                tokio::task::yield_now().await;
                panic!("on purpose");
            });
            breaks.recv().await.unwrap()
        });
        assert_eq!(heard.downcast_ref(), Some(&"on purpose"));
    }
}
