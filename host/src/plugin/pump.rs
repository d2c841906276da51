//! A worker's one instance of a language runtime: started, watched, started again when it traps.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::Store;

use super::limits;
use super::runtime::Kind;
use super::watchdog::{Hung, Watched};
use super::{CallError, Plugin};
use crate::api::{HostState, WorkerInfo};
use crate::observe::error_log::{self, Context, Level};
use crate::phase::Phase;
use crate::reactor::{self, ReactorId};

/// The pause before a runtime that trapped is started again, doubled each time up to 64 times that.
const RESTART: Duration = Duration::from_millis(1);
/// A runtime that lived so long starts again without a pause.
const STABLE: Duration = Duration::from_secs(10);

/// A worker's language runtime.
pub struct Pump {
    /// Whose.
    pub plugin: Arc<Plugin>,
    reactor: Cell<ReactorId>,
    stopping: Cell<bool>,
}

impl Pump {
    /// Starts the runtime as a task of the worker.
    #[must_use]
    pub fn start(plugin: Arc<Plugin>, worker: WorkerInfo) -> Rc<Self> {
        let this = Rc::new(Self {
            plugin,
            reactor: Cell::new(reactor::create()),
            stopping: Cell::new(false),
        });
        tokio::task::spawn_local(Self::keep_running(this.clone(), worker));
        this
    }

    /// Where to send jobs now.
    #[must_use]
    pub fn reactor(&self) -> ReactorId {
        self.reactor.get()
    }

    async fn keep_running(self: Rc<Self>, worker: WorkerInfo) {
        let mut pause = RESTART;
        loop {
            let began = tokio::time::Instant::now();
            tokio::task::spawn_local(Self::init_worker(self.clone(), self.reactor.get()));
            let result = self.run(worker.clone()).await;
            let ended = self.reactor.replace(reactor::create());
            reactor::remove(ended);
            match result {
                Ok(()) if self.stopping.get() => break,
                Ok(()) => self.report(
                    Phase::Timer,
                    "the runtime left its loop; it is started again",
                ),
                Err(error) => self.report(
                    Phase::Timer,
                    &format!("{error}; the runtime is started again"),
                ),
            }
            pause = if began.elapsed() > STABLE {
                RESTART
            } else {
                (pause * 2).min(RESTART * 64)
            };
            tokio::time::sleep(pause).await;
        }
        reactor::remove(self.reactor.get());
    }

    async fn run(&self, worker: WorkerInfo) -> Result<(), CallError> {
        let loaded = &self.plugin.loaded;
        let memory = self.plugin.limits.memory(true);
        let hung = Hung {
            worker: worker.id,
            plugin: self.plugin.info.name.clone(),
            limit: self.plugin.limits.watchdog,
        };
        let mut store = Store::new(
            loaded.pre.engine(),
            HostState::new(self.plugin.info.clone(), worker, memory),
        );
        store.limiter(|state| &mut state.memory);
        if loaded.kind == Kind::Ordinary {
            limits::slice(&mut store);
        }
        store.data_mut().reactor = Some(self.reactor.get());
        let start = |e: wasmtime::Error| CallError::Start(format!("{e:?}"));
        let made = Box::pin(loaded.instantiate(&mut store));
        let instance = Watched::new(made, hung.clone()).await.map_err(start)?;
        store.data_mut().phase = Phase::Timer;
        let Some((_, run)) = &loaded.pump else {
            return Err(CallError::Start("no `pump`".to_owned()));
        };
        let run = instance
            .get_typed_func::<(), ()>(&mut store, run)
            .map_err(start)?;
        // tokio's budget is for a task that serves one client; this one serves all of the worker's.
        let call = Box::pin(tokio::task::unconstrained(run.call_async(&mut store, ())));
        Watched::new(call, hung).await.map_err(|e| {
            let text = format!("{e:?}");
            if store.data().memory.refused {
                CallError::Memory(memory, text)
            } else {
                CallError::Trap(text)
            }
        })
    }

    async fn init_worker(self: Rc<Self>, id: ReactorId) {
        for handler in &self.plugin.worker_handlers.init {
            if let Err(text) = reactor::call(id, *handler).await {
                self.report(Phase::InitWorker, &text);
            }
        }
    }

    fn report(&self, phase: Phase, message: &str) {
        let context = Context {
            plugin: Some(&self.plugin.info.name),
            phase: Some(phase.name()),
            ..Context::default()
        };
        error_log::write(Level::Error, &context, message);
    }

    /// The generation ends: `exit_worker`, then the runtime leaves its loop.
    pub async fn close(self: Rc<Self>) {
        let id = self.reactor.get();
        for handler in &self.plugin.worker_handlers.exit {
            if let Err(text) = reactor::call(id, *handler).await {
                self.report(Phase::ExitWorker, &text);
            }
        }
        self.stopping.set(true);
        reactor::stop(id);
    }
}
