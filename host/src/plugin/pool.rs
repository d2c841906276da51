//! A worker's instances of one ordinary plugin: taken for a call, given back after it, dropped after
//! a fault. Nothing is shared with other workers, so nothing is locked.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::instance::Instance;
use super::{CallError, Plugin};
use crate::api::{Started, WorkerInfo, timers};
use crate::config::model::Isolation;
use crate::exchange::NO_EXCHANGE;
use crate::observe::error_log::{self, Context, Level};
use crate::phase::Phase;

/// A worker's instances of one plugin.
pub struct Pool {
    /// Whose.
    pub plugin: Arc<Plugin>,
    worker: WorkerInfo,
    #[expect(
        clippy::vec_box,
        reason = "an instance is half a kilobyte, and each call takes one and gives it back"
    )]
    idle: RefCell<Vec<Box<Instance>>>,
    permits: Arc<Semaphore>,
    waiting: Cell<usize>,
    timers: RefCell<HashMap<u64, (u64, AbortHandle)>>,
    /// What goes on in instances whose call has ended.
    afterwards: RefCell<JoinSet<()>>,
}

/// An instance on loan. Dropped without [`Lease::give_back`] it is gone: a call that did not end
/// leaves the guest in a state that nobody knows.
pub struct Lease {
    instance: Option<Box<Instance>>,
    pool: Rc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    /// The instance.
    ///
    /// # Errors
    /// Never while the lease lasts; the type says it without a panic.
    pub fn instance(&mut self) -> Result<&mut Instance, CallError> {
        self.instance
            .as_deref_mut()
            .ok_or(CallError::Exhausted("the instance has been given back"))
    }

    /// The call ended well: the next request may have the instance.
    pub fn give_back(mut self) {
        let Some(mut instance) = self.instance.take() else {
            return;
        };
        let mut started = instance.take_timers();
        let here = std::mem::take(&mut started.here);
        if !started.new.is_empty() || !started.cancelled.is_empty() {
            Pool::arm(&self.pool, started);
        }
        if !here.is_empty() {
            self.instance = Some(instance);
            self.go_on(here);
            return;
        }
        if self.pool.plugin.isolation == Isolation::Pooled {
            self.pool.idle.borrow_mut().push(instance);
        }
    }

    /// The call has left work behind, for this instance.
    fn go_on(self, here: Vec<u64>) {
        let pool = self.pool.clone();
        let mut afterwards = pool.afterwards.borrow_mut();
        while afterwards.try_join_next().is_some() {}
        afterwards.spawn_local(self.finish(here));
    }

    async fn finish(mut self, here: Vec<u64>) {
        for token in here {
            let result = self.call_here(token).await;
            if let Err(error) = &result {
                self.pool.report(Phase::Timer, error);
            }
            if !matches!(result, Ok(()) | Err(CallError::Failed(_))) {
                return;
            }
        }
        self.give_back();
    }

    async fn call_here(&mut self, token: u64) -> Result<(), CallError> {
        let deadline = Instant::now() + self.pool.plugin.limits.deadline;
        let call = self.instance()?.call_timer(token, false);
        tokio::time::timeout_at(deadline, call)
            .await
            .unwrap_or(Err(CallError::Deadline))
    }
}

impl Pool {
    /// An empty pool; the first request makes the first instance.
    #[must_use]
    pub fn new(plugin: Arc<Plugin>, worker: WorkerInfo) -> Rc<Self> {
        let permits = Arc::new(Semaphore::new(plugin.limits.instances));
        Rc::new(Self {
            plugin,
            worker,
            idle: RefCell::default(),
            permits,
            waiting: Cell::new(0),
            timers: RefCell::default(),
            afterwards: RefCell::default(),
        })
    }

    /// Takes an instance, makes one, or waits for one until `deadline`.
    ///
    /// # Errors
    /// When too many wait, none comes free in time, or the start fails.
    pub async fn take(self: &Rc<Self>, deadline: Instant) -> Result<Lease, CallError> {
        let permit = match self.permits.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => Box::pin(self.wait(deadline)).await?,
        };
        let idle = self.idle.borrow_mut().pop();
        let instance = match idle {
            Some(instance) => instance,
            None => Box::new(Box::pin(Instance::new(&self.plugin, self.worker.clone())).await?),
        };
        Ok(Lease {
            instance: Some(instance),
            pool: self.clone(),
            _permit: permit,
        })
    }

    async fn wait(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, CallError> {
        struct Waiting<'a>(&'a Cell<usize>);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() - 1);
            }
        }
        if self.waiting.get() >= self.plugin.limits.queue {
            return Err(CallError::Exhausted(
                "too many requests wait (limits.queue)",
            ));
        }
        self.waiting.set(self.waiting.get() + 1);
        let _waiting = Waiting(&self.waiting);
        match tokio::time::timeout_at(deadline, self.permits.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(CallError::Exhausted("the plugin is being replaced")),
            Err(_) => Err(CallError::Exhausted(
                "all are busy until the deadline (limits.instances)",
            )),
        }
    }

    fn arm(self: &Rc<Self>, started: Started) {
        for id in started.cancelled {
            if let Some((_, timer)) = self.timers.borrow_mut().remove(&id) {
                timer.abort();
            }
        }
        for timer in started.new {
            let pool = self.clone();
            let task = tokio::task::spawn_local(async move {
                tokio::time::sleep(timer.delay).await;
                loop {
                    pool.fire(timer.token, false).await;
                    if timer.every.is_zero()
                        || pool
                            .worker
                            .exiting
                            .load(std::sync::atomic::Ordering::Relaxed)
                    {
                        break;
                    }
                    tokio::time::sleep(timer.every).await;
                }
                pool.timers.borrow_mut().remove(&timer.id);
                timers::forget(timer.id);
            });
            self.timers
                .borrow_mut()
                .insert(timer.id, (timer.token, task.abort_handle()));
        }
    }

    async fn fire(self: &Rc<Self>, token: u64, premature: bool) {
        let result = async {
            let mut lease = self
                .take(Instant::now() + self.plugin.limits.deadline)
                .await?;
            let result = lease.instance()?.call_timer(token, premature).await;
            if matches!(result, Ok(()) | Err(CallError::Failed(_))) {
                lease.give_back();
            }
            result
        };
        if let Err(error) = Box::pin(result).await {
            self.report(Phase::Timer, &error);
        }
    }

    fn report(&self, phase: Phase, error: &CallError) {
        let context = Context {
            plugin: Some(&self.plugin.info.name),
            phase: Some(phase.name()),
            ..Context::default()
        };
        error_log::write(Level::Error, &context, error.to_string());
    }

    /// The generation ends: what goes on in instances comes to its end, pending timers fire as premature,
    /// idle instances run `exit-worker`.
    pub async fn close(self: Rc<Self>) {
        loop {
            // Not held while it waits: what ends may leave more behind.
            let mut afterwards = self.afterwards.take();
            if afterwards.is_empty() {
                break;
            }
            while afterwards.join_next().await.is_some() {}
        }
        let pending: Vec<_> = self
            .timers
            .borrow_mut()
            .drain()
            .map(|(_, timer)| timer)
            .collect();
        for (token, task) in pending {
            task.abort();
            self.fire(token, true).await;
        }
        let idle = std::mem::take(&mut *self.idle.borrow_mut());
        if self.plugin.phases().contains(Phase::ExitWorker) {
            for mut instance in idle {
                if let Err(error) = instance.call_plain(Phase::ExitWorker, NO_EXCHANGE).await {
                    self.report(Phase::ExitWorker, &error);
                }
            }
        }
    }
}
