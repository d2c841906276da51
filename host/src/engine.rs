//! The one loop that drives a request through its plan.
//!
//! The loop never sends: it makes the head `sent` when it is final, fills the exchange's output, and
//! leaves the rest to the connection, which polls it. Where a request goes next (`rewrite`, `exec`,
//! an error page) is asked of [`Routes`], which the generation implements.

use std::rc::Rc;
use std::sync::Arc;
use tokio::time::Instant;

use crate::error::{ErrorKind, RequestError};
use crate::exchange::body::BodyError;
use crate::exchange::subrequest::Begin;
use crate::exchange::{self, ExchangeId};
use crate::observe::error_log::{Context, Level};
use crate::phase::{Phase, Verdict};
use crate::plugin::{CallError, Pool, Pump};
use caching::Caching;

mod answer;
mod caching;
mod file;
pub mod filter;
pub mod plan;
mod proxy;
mod segment;
mod start;
pub mod subrequest;
mod tunnel;

pub use plan::{Plan, Run, Step, Target};
use start::take_on;
pub use start::{Start, at_once, start};

/// How often a request may be routed anew (nginx: 10 internal redirects).
const REROUTES: usize = 10;

/// A worker's way to run a plugin.
#[derive(Clone)]
pub enum Runner {
    /// An ordinary component.
    Pool(Rc<Pool>),
    /// A language runtime.
    Pump(Rc<Pump>),
}

impl Runner {
    fn name(&self) -> &str {
        match self {
            Self::Pool(pool) => &pool.plugin.info.name,
            Self::Pump(pump) => &pump.plugin.info.name,
        }
    }
}

/// What the engine asks of the generation.
pub trait Routes {
    /// Steps of the phase `server_rewrite`, and what answers when no route is found.
    fn fallback(&self) -> &Arc<Plan>;
    /// Finds the exchange's route.
    ///
    /// # Errors
    /// 404, or 405 with the methods that are there.
    fn find(&self, id: ExchangeId) -> Result<Arc<Plan>, RequestError>;
    /// A route by its place.
    fn route(&self, place: usize) -> Option<Arc<Plan>>;
    /// A route by its name.
    fn named(&self, name: &str) -> Option<Arc<Plan>>;
    /// How to run a plugin.
    fn runner(&self, plugin: usize) -> &Runner;
    /// The request is over: its line in the access log.
    fn access(&self, id: ExchangeId);
    /// Who begins subrequests of a request that goes by these routes.
    fn subrequests(self: Rc<Self>) -> Rc<dyn Begin>;
}

/// How a pass over a plan's steps ended.
enum Flow {
    /// The answer is made, or is being made.
    Answered,
    /// This status is the answer.
    Status(u16),
    /// The request goes on elsewhere.
    Elsewhere(Option<String>),
}

/// Drives an exchange until its answer is complete. The plan that answered is left in `answered`
/// (also when the future is dropped), for the phase `log`.
pub async fn run(
    id: ExchangeId,
    routes: Rc<dyn Routes>,
    answered: Rc<std::cell::RefCell<Arc<Plan>>>,
    start: Start,
) {
    let plan = answered.borrow().clone();
    let begin = routes.clone().subrequests();
    exchange::with(id, |x| x.family.begin = Some(begin));
    let mut engine = Engine {
        id,
        routes,
        plan,
        answered,
        plugin: None,
        caching: None,
        background: false,
    };
    engine.run(start).await;
    exchange::with(id, |x| {
        x.deadline = exchange::never(x.started);
    });
}

struct Engine {
    id: ExchangeId,
    routes: Rc<dyn Routes>,
    plan: Arc<Plan>,
    answered: Rc<std::cell::RefCell<Arc<Plan>>>,
    /// Whose step runs, or ran last.
    plugin: Option<plan::PluginIndex>,
    /// The answer is being made for a cache, too.
    caching: Option<Box<Caching>>,
    /// The content alone is to run, for a cache.
    background: bool,
}

impl Engine {
    async fn run(&mut self, start: Start) {
        let mut flow = match start {
            Some(plan) => self.enter(plan).await,
            None => {
                exchange::with(self.id, |x| x.body.limit = self.plan.body_limit);
                self.pass().await
            }
        };
        let mut moves = 0;
        loop {
            flow = match flow {
                Ok(Flow::Answered) => return,
                Ok(Flow::Status(status)) if self.is_rescued(status).await => return,
                Ok(Flow::Status(status)) => match self.error_page(status) {
                    Some(Target::Route(place)) => {
                        self.leave_cache().await;
                        self.enter(self.routes.route(place).ok_or_else(not_found))
                            .await
                    }
                    Some(Target::Uri(uri)) => Ok(Flow::Elsewhere(Some(uri))),
                    None => {
                        answer::status(self.id, status);
                        return self.publish(true).await;
                    }
                },
                Ok(Flow::Elsewhere(_)) if moves > REROUTES => {
                    Err(RequestError::new(ErrorKind::RerouteLimit))
                }
                Ok(Flow::Elsewhere(target)) => {
                    self.leave_cache().await;
                    moves += 1;
                    self.plugin = None;
                    let plan = self.find(target.as_deref());
                    self.enter(plan).await
                }
                Err(error) => match self.fail(&self.blame(error)) {
                    Some(status) => Ok(Flow::Status(status)),
                    None => return,
                },
            };
        }
    }

    /// An error page's target, unless one is being made already.
    fn error_page(&self, status: u16) -> Option<Target> {
        let (_, target) = self.plan.error_pages.iter().find(|(s, _)| *s == status)?;
        exchange::with(self.id, |x| {
            if x.response.sent || x.error_status.is_some() {
                return None;
            }
            x.error_status = Some(status);
            x.request.internal = true;
            Some(target.clone())
        })
    }

    fn find(&self, target: Option<&str>) -> Result<Arc<Plan>, RequestError> {
        if let Some(target) = target {
            exchange::with(self.id, |x| x.request.internal = true);
            if let Some(name) = target.strip_prefix('@') {
                return self.routes.named(name).ok_or_else(|| {
                    RequestError::because(ErrorKind::Host, format!("no route is named `{name}`"))
                });
            }
            let set = exchange::with(self.id, |x| x.request.set_target(target));
            set.map_err(|_| {
                RequestError::because(ErrorKind::Host, format!("`{target}` is no URI"))
            })?;
        }
        self.routes.find(self.id)
    }

    /// Takes a plan on and passes over its steps.
    async fn enter(&mut self, plan: Result<Arc<Plan>, RequestError>) -> Result<Flow, RequestError> {
        self.plan = plan?;
        self.answered.replace(self.plan.clone());
        take_on(self.id, &self.plan)?;
        self.pass().await
    }

    /// **The loop.** What is long and rare is boxed: the driver's future is made for each request.
    async fn pass(&mut self) -> Result<Flow, RequestError> {
        let plan = self.plan.clone();
        let mut skip = None;
        for step in &plan.steps {
            if skip == Some(step.phase) || (self.background && step.phase != Phase::Content) {
                continue;
            }
            skip = None;
            let inner = exchange::with(self.id, |x| {
                x.phase = step.phase;
                x.family.depth != 0
            });
            // As in nginx, access is checked for the request that a client sent.
            if inner && step.phase == Phase::Access && matches!(step.run, Run::Call { .. }) {
                continue;
            }
            self.plugin = step.run.plugin();
            if let Some(flow) = self.look_before(step.phase).await {
                return Ok(flow);
            }
            let verdict = match &step.run {
                Run::Set { variable, value } => {
                    answer::set(self.id, variable, value);
                    Verdict::Next
                }
                Run::SetCall { plugin, variable } => {
                    Box::pin(self.set_call(*plugin, variable)).await?
                }
                // Large, and its own allocation is what a runtime's segments are spared.
                Run::Call { plugin } => Box::pin(self.call(step.phase, *plugin)).await?,
                Run::Segment(segment) => match self.segment(segment).await? {
                    Some(verdict) => verdict,
                    None => return Ok(Flow::Answered),
                },
                Run::Respond(respond) => {
                    answer::respond(self.id, respond);
                    Verdict::Next
                }
                Run::Files(root) => match Box::pin(answer::files(self.id, root)).await {
                    Ok(body) => return Box::pin(self.send_file(body)).await,
                    Err(status) => Verdict::Exit(status),
                },
                Run::Proxy(proxy) => return Box::pin(self.proxy(proxy)).await,
                Run::Nothing => return Err(not_found()),
            };
            if let Some(target) = self.elsewhere() {
                return Ok(Flow::Elsewhere(target));
            }
            match verdict {
                Verdict::Next if step.phase != Phase::Content => {}
                Verdict::Done if step.phase != Phase::Content => skip = Some(step.phase),
                Verdict::Next | Verdict::Done | Verdict::Exit(0) => {
                    self.complete().await;
                    return Ok(Flow::Answered);
                }
                Verdict::Exit(status) if status >= 300 && !self.has_output() => {
                    return Ok(Flow::Status(status));
                }
                Verdict::Exit(status) => {
                    exchange::with(self.id, |x| {
                        if !x.response.sent {
                            x.response.status = status
                        }
                    });
                    self.complete().await;
                    return Ok(Flow::Answered);
                }
            }
        }
        // Only `server_rewrite` ends here: every route has a content step.
        Ok(Flow::Elsewhere(None))
    }

    /// Where a handler sent the request, if it did.
    fn elsewhere(&self) -> Option<Option<String>> {
        exchange::with(self.id, |x| {
            if x.response.sent {
                return None;
            }
            if let Some(target) = x.exec.take() {
                x.reroute = false;
                return Some(Some(target));
            }
            let reroute = std::mem::take(&mut x.reroute);
            x.request.internal |= reroute;
            // Before a route is known there is nothing to find again.
            (reroute && x.phase != Phase::ServerRewrite).then_some(None)
        })
    }

    fn has_output(&self) -> bool {
        exchange::with(self.id, |x| {
            x.response.ready || x.output.queued() > 0 || x.output.taken > 0
        })
    }

    /// The handlers are done: what they wrote is the whole answer.
    async fn complete(&mut self) {
        exchange::with(self.id, |x| {
            if x.response.status == 0 && !x.downstream.headless() {
                x.response.status = 200;
            }
            if !x.output.ended {
                x.output.whole |= !x.response.sent;
                x.output.end();
            }
        });
        self.publish(true).await;
    }

    async fn set_call(&self, plugin: usize, variable: &str) -> Result<Verdict, RequestError> {
        let Runner::Pool(pool) = self.routes.runner(plugin) else {
            return Ok(Verdict::Next);
        };
        let mut lease = pool.take(self.deadline()).await?;
        let value = lease.instance()?.call_set(self.id, variable).await?;
        lease.give_back();
        if let Some(value) = value {
            exchange::with(self.id, |x| x.variables.set(variable, value));
        }
        Ok(Verdict::Next)
    }

    fn deadline(&self) -> Instant {
        exchange::with(self.id, |x| x.deadline)
    }

    /// Calls an ordinary plugin's handler. When it writes, the head goes out while it is at work.
    async fn call(&mut self, phase: Phase, plugin: usize) -> Result<Verdict, RequestError> {
        let Runner::Pool(pool) = self.routes.runner(plugin).clone() else {
            return Ok(Verdict::Next);
        };
        let mut lease = pool.take(self.deadline()).await?;
        let id = self.id;
        let result = {
            let mut call = std::pin::pin!(lease.instance()?.call(phase, id));
            loop {
                let step = std::future::poll_fn(|cx| match call.as_mut().poll(cx) {
                    std::task::Poll::Ready(result) => std::task::Poll::Ready(Some(result)),
                    std::task::Poll::Pending
                        if exchange::with(id, |x| x.response.ready && !x.response.sent) =>
                    {
                        std::task::Poll::Ready(None)
                    }
                    std::task::Poll::Pending => std::task::Poll::Pending,
                })
                .await;
                match step {
                    Some(result) => break result,
                    None => self.publish(false).await,
                }
            }
        };
        match result {
            Ok(verdict) => {
                lease.give_back();
                Ok(verdict)
            }
            Err(CallError::Failed(text)) => {
                lease.give_back();
                Err(RequestError::because(
                    ErrorKind::PluginFailed,
                    CallError::Failed(text),
                ))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the head final: header filters (unless they have run), then the connection may take it.
    async fn publish(&mut self, filters: bool) {
        if exchange::with(self.id, |x| {
            std::mem::replace(&mut x.response.ready, true) && x.response.sent
        }) {
            return;
        }
        if let Some(caching) = self.caching.take() {
            Box::pin(self.settle(caching)).await;
        }
        if filters && !self.background && self.plan.filters() {
            Box::pin(filter::head(self.id, &self.plan, &self.routes)).await;
        }
        let filtered = filters && !self.background && !self.plan.body_filters.is_empty();
        exchange::with(self.id, |x| {
            if let Some(status) = x.error_status {
                x.response.status = status;
            }
            x.response.sent = true;
            if filtered {
                x.filtered = Some(Box::default());
                x.holds += 1;
            }
        });
        if filtered {
            tokio::task::spawn_local(filter::body(
                self.id,
                self.plan.clone(),
                self.routes.clone(),
            ));
        }
    }

    /// A handler that failed over a body which the client did not send as it should is not to blame.
    fn blame(&self, error: RequestError) -> RequestError {
        if error.kind != ErrorKind::PluginFailed {
            return error;
        }
        match exchange::with(self.id, |x| x.body.failure()) {
            Some(BodyError::TooLarge) => RequestError::new(ErrorKind::BodyTooLarge),
            Some(BodyError::Timeout) => RequestError::new(ErrorKind::RequestTimeout),
            Some(BodyError::Closed) => RequestError::new(ErrorKind::ClientClosed),
            Some(BodyError::Taken) | None => error,
        }
    }

    /// Logs an error and gives the status that answers it; `None` when the head has gone already:
    /// then the connection breaks off, so that the client sees that the answer is not whole.
    fn fail(&self, error: &RequestError) -> Option<u16> {
        let status = crate::response::error_page::status(error);
        let level = match error.source {
            crate::error::Source::Client => Level::Info,
            crate::error::Source::Upstream
            | crate::error::Source::Plugin
            | crate::error::Source::Host => Level::Error,
        };
        let phase = exchange::with(self.id, |x| x.phase);
        let context = Context {
            plugin: self.plugin.map(|place| self.routes.runner(place).name()),
            phase: Some(phase.name()),
            ..Context::default()
        };
        exchange::log(self.id, level, context, &error.to_string());
        exchange::with(self.id, |x| {
            if x.response.sent {
                x.outgoing().break_off();
                x.output.break_off();
                return None;
            }
            x.output.reset();
            Some(status)
        })
    }
}

fn not_found() -> RequestError {
    RequestError::new(ErrorKind::NotFound)
}
