//! A generation in one worker: its pools and runtimes, and how a request finds its way. A reload puts
//! a new one in its place; requests go on with the one on which they began.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Generation;
use crate::access_log::Buffer;
use crate::api::WorkerInfo;
use crate::engine::{Plan, Routes, Runner, filter, subrequest};
use crate::error::{ErrorKind, RequestError};
use crate::exchange::closing::Close;
use crate::exchange::subrequest::{Answer, Begin, Order, Refused};
use crate::exchange::{self, ExchangeId, variable};
use crate::plugin::{Pool, Pump};
use crate::router::Found;
use crate::time_cache;

/// A generation as one worker serves it.
pub struct Served {
    /// What is served.
    pub generation: Arc<Generation>,
    runners: Vec<Runner>,
    access: Option<RefCell<Buffer>>,
    /// The access log has a column made of the answer's headers.
    pub logs_sent_head: bool,
    exiting: Arc<AtomicBool>,
}

impl Served {
    /// Starts the generation's runtimes in this worker.
    #[must_use]
    pub fn start(generation: Arc<Generation>, mut worker: WorkerInfo) -> Rc<Self> {
        let exiting = Arc::new(AtomicBool::new(false));
        worker.exiting = exiting.clone();
        let runners = generation
            .plugins
            .iter()
            .map(|plugin| match plugin.is_reactor() {
                true => Runner::Pump(Pump::start(plugin.clone(), worker.clone())),
                false => Runner::Pool(Pool::new(plugin.clone(), worker.clone())),
            })
            .collect();
        let access = generation
            .access
            .as_ref()
            .map(|(log, _)| RefCell::new(Buffer::new(log.clone())));
        let logs_sent_head = generation
            .access
            .as_ref()
            .is_some_and(|(_, format)| format.reads(variable::is_of_sent_head));
        Rc::new(Self {
            generation,
            logs_sent_head,
            runners,
            access,
            exiting,
        })
    }

    /// Hands over what the access log's buffer has held long enough.
    pub fn tick(&self) {
        if let Some(buffer) = &self.access {
            buffer.borrow_mut().tick(time_cache::now_ms());
        }
    }

    /// Hands over all of the access log's buffer.
    pub fn flush(&self) {
        if let Some(buffer) = &self.access {
            buffer.borrow_mut().flush();
        }
    }

    /// Tells the plugins that the end is near.
    pub fn retire(&self) {
        self.exiting.store(true, Ordering::Relaxed);
    }

    /// No request is left: runs `exit_worker` handlers and ends the runtimes.
    pub async fn close(&self) {
        self.retire();
        for runner in &self.runners {
            match runner {
                Runner::Pool(pool) => pool.clone().close().await,
                Runner::Pump(pump) => pump.clone().close().await,
            }
        }
        self.flush();
    }
}

impl Close for Served {
    fn close(self: Rc<Self>, id: ExchangeId, plugin: usize) {
        let routes: Rc<dyn Routes> = self;
        filter::logged(id, plugin, &routes);
    }
}

impl Routes for Served {
    fn fallback(&self) -> &Arc<Plan> {
        &self.generation.fallback
    }

    fn find(&self, id: ExchangeId) -> Result<Arc<Plan>, RequestError> {
        exchange::with(id, |x| {
            if !x.request.has_host() {
                // RFC 9112, section 3.2: an HTTP/1.1 request without it is answered 400.
                return Err(RequestError::because(
                    ErrorKind::BadRequest,
                    "no Host header",
                ));
            }
            let path = variable::normal_path(&x.request);
            let path = path.ok_or_else(|| RequestError::new(ErrorKind::BadRequest))?;
            match self
                .generation
                .router
                .find(x.request.host(), &path, x.request.method.as_str())
            {
                Found::Route(place) => {
                    let plan = &self.generation.plans[place];
                    if plan.internal && !x.request.internal {
                        return Err(RequestError::new(ErrorKind::NotFound));
                    }
                    Ok(plan.clone())
                }
                Found::None => Err(RequestError::new(ErrorKind::NotFound)),
                Found::MethodNotAllowed { allow } => {
                    if let Ok(allow) = http::HeaderValue::from_str(allow) {
                        x.response.headers.insert(http::header::ALLOW, allow);
                    }
                    Err(RequestError::new(ErrorKind::MethodNotAllowed))
                }
            }
        })
    }

    fn route(&self, place: usize) -> Option<Arc<Plan>> {
        self.generation.plans.get(place).cloned()
    }

    fn named(&self, name: &str) -> Option<Arc<Plan>> {
        self.route(*self.generation.named.get(name)?)
    }

    fn runner(&self, plugin: usize) -> &Runner {
        &self.runners[plugin]
    }

    fn subrequests(self: Rc<Self>) -> Rc<dyn Begin> {
        self
    }

    fn access(&self, id: ExchangeId) {
        let (Some(buffer), Some((_, format))) = (&self.access, &self.generation.access) else {
            return;
        };
        exchange::with(id, |x| {
            buffer
                .borrow_mut()
                .write(format, time_cache::now_ms(), |name, out| {
                    variable::write(x, name, out);
                });
        });
    }
}

impl Begin for Served {
    fn begin(self: Rc<Self>, parent: ExchangeId, order: Order) -> Result<Answer, Refused> {
        let declared = |name: &str| {
            let routes = self.generation.config.routes.iter();
            routes
                .flat_map(|route| &route.set)
                .any(|set| set.name == name)
        };
        if let Some((name, _)) = order.variables.iter().find(|(name, _)| !declared(name)) {
            return Err(Refused::Variable(name.clone()));
        }
        let server = &self.generation.config.server;
        let limits = subrequest::Limits {
            depth: server.subrequest_depth,
            count: server.subrequests,
            body: server.subrequest_body_limit,
        };
        subrequest::begin(self, parent, order, limits)
    }
}
