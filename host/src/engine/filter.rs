//! What runs behind the content: header filters, body filters, and the phase `log`.

use std::rc::Rc;
use std::sync::Arc;
use tokio::time::Instant;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;

use super::plan::{Filter, Plan};
use super::{Routes, Runner, answer};
use crate::exchange::closing::{Close, Closing};
use crate::exchange::{self, ExchangeId, Outcome};
use crate::observe::error_log::{Context, Level};
use crate::phase::{Phase, Verdict};
use crate::plugin::instance::ChunkVerdict;
use crate::plugin::{CallError, Pump};
use crate::reactor;
use crate::time_cache;

fn report(id: ExchangeId, phase: Phase, plugin: &str, message: &str) {
    let context = Context {
        plugin: Some(plugin),
        phase: Some(phase.name()),
        ..Context::default()
    };
    exchange::log(id, Level::Error, context, message);
}

/// Runs the header filters; a failing one makes the answer a 500.
pub(super) async fn head(id: ExchangeId, plan: &Plan, routes: &Rc<dyn Routes>) {
    if !plan.body_filters.is_empty() {
        exchange::with(id, |x| x.response.headers.remove(CONTENT_LENGTH));
    }
    for filter in &plan.header_filters {
        exchange::with(id, |x| x.phase = Phase::HeaderFilter);
        let runner = routes.runner(filter.plugin).clone();
        match one_head(id, filter, &runner).await {
            Ok(Verdict::Next | Verdict::Exit(0)) => {}
            Ok(Verdict::Done) => break,
            Ok(Verdict::Exit(status)) => answer::status(id, status),
            Err(text) => {
                report(id, Phase::HeaderFilter, runner.name(), &text);
                answer::status(id, 500);
            }
        }
    }
}

async fn one_head(id: ExchangeId, filter: &Filter, runner: &Runner) -> Result<Verdict, String> {
    match runner {
        Runner::Pool(pool) => {
            let mut lease = pool.take(deadline(id)).await.map_err(|e| e.to_string())?;
            let result = lease
                .instance()
                .map_err(|e| e.to_string())?
                .call(Phase::HeaderFilter, id)
                .await;
            if matches!(result, Ok(_) | Err(CallError::Failed(_))) {
                lease.give_back();
            }
            result.map_err(|e| e.to_string())
        }
        Runner::Pump(pump) => {
            let Some(segment) = filter.segment else {
                return Ok(Verdict::Next);
            };
            reactor::run(
                pump.reactor(),
                id,
                reactor::Call { segment, from: 0 },
                false,
            );
            match wait(id).await {
                Outcome::Finish { verdict: 2, code } => Ok(Verdict::Exit(code)),
                Outcome::Finish { .. }
                | Outcome::Respond { .. }
                | Outcome::End
                | Outcome::Chunk(_) => Ok(Verdict::Next),
                Outcome::Fail(text) => Err(text),
                Outcome::Lost => Err("the runtime that ran this request is gone".to_owned()),
            }
        }
    }
}

fn deadline(id: ExchangeId) -> Instant {
    exchange::with(id, |x| x.deadline)
}

async fn wait(id: ExchangeId) -> Outcome {
    exchange::wait(id, |x| {
        x.outcome.take().or_else(|| x.abort.map(|_| Outcome::Lost))
    })
    .await
}

/// Passes the body through its filters, piece by piece, as a task of the worker: the handler writes
/// on one side, the connection reads on the other.
pub(super) async fn body(id: ExchangeId, plan: Arc<Plan>, routes: Rc<dyn Routes>) {
    if let Err(text) = filter_all(id, &plan, &routes).await {
        let name = plan
            .body_filters
            .first()
            .map_or("", |f| routes.runner(f.plugin).name());
        report(id, Phase::BodyFilter, name, &text);
        exchange::with(id, |x| {
            x.outgoing().break_off();
            x.output.leave();
        });
    }
    exchange::let_go(id);
}

async fn filter_all(id: ExchangeId, plan: &Plan, routes: &Rc<dyn Routes>) -> Result<(), String> {
    for filter in &plan.body_filters {
        if let (Runner::Pump(pump), Some(segment)) = (routes.runner(filter.plugin), filter.segment)
        {
            reactor::run(
                pump.reactor(),
                id,
                reactor::Call { segment, from: 0 },
                false,
            );
            exchange::with(id, |x| x.handler_running = false);
        }
    }
    loop {
        let piece = std::future::poll_fn(|cx| exchange::with(id, |x| x.output.poll_take(cx))).await;
        let last = piece.is_none();
        let mut bytes = piece.unwrap_or_default();
        for filter in &plan.body_filters {
            exchange::with(id, |x| x.phase = Phase::BodyFilter);
            bytes = one_piece(id, routes.runner(filter.plugin), bytes, last).await?;
        }
        let open = exchange::with(id, |x| {
            let outgoing = x.outgoing();
            outgoing.push(bytes);
            if last {
                outgoing.end();
            }
            !outgoing.broken
        });
        if last || !open {
            return Ok(());
        }
        if !std::future::poll_fn(|cx| exchange::with(id, |x| x.outgoing().poll_room(cx))).await {
            exchange::with(id, |x| x.output.leave());
            return Ok(());
        }
    }
}

async fn one_piece(
    id: ExchangeId,
    runner: &Runner,
    bytes: Bytes,
    last: bool,
) -> Result<Bytes, String> {
    match runner {
        Runner::Pool(pool) => {
            let mut lease = pool.take(deadline(id)).await.map_err(|e| e.to_string())?;
            let instance = lease.instance().map_err(|e| e.to_string())?;
            let verdict = instance
                .call_chunk(id, bytes.to_vec(), last)
                .await
                .map_err(|e| e.to_string())?;
            lease.give_back();
            Ok(match verdict {
                ChunkVerdict::Pass => bytes,
                ChunkVerdict::Replace(bytes) => Bytes::from(bytes),
            })
        }
        Runner::Pump(pump) => {
            reactor::chunk(pump.reactor(), id, &bytes, last);
            match wait(id).await {
                Outcome::Chunk(bytes) => Ok(bytes),
                Outcome::Fail(text) => Err(text),
                other => Err(format!("the runtime gave no chunk back: {other:?}")),
            }
        }
    }
}

/// The phase `log`, then the line in the access log, then the slot is free.
pub async fn log(id: ExchangeId, plan: Arc<Plan>, routes: Rc<dyn Routes>) {
    exchange::with(id, |x| {
        x.phase = Phase::Log;
        x.abort = None;
        x.handler_running = false;
    });
    for filter in &plan.log {
        let runner = routes.runner(filter.plugin).clone();
        if let Err(text) = one_log(id, filter, &runner).await {
            report(id, Phase::Log, runner.name(), &text);
        }
    }
    over(id, &routes);
}

/// Begins the phase `log` where one runtime runs all of it: then the exchange is closed when the
/// runtime says that it is through ([`logged`]), and needs no task. False when [`log`] has to do it.
pub fn begin_log(id: ExchangeId, plan: &Plan, routes: &dyn Routes, by: Rc<dyn Close>) -> bool {
    let [filter] = &*plan.log else { return false };
    let (Runner::Pump(pump), Some(segment)) = (routes.runner(filter.plugin), filter.segment) else {
        return false;
    };
    exchange::with(id, |x| {
        x.phase = Phase::Log;
        x.abort = None;
        x.handler_running = false;
        x.closing = Some(Closing {
            id,
            by,
            plugin: filter.plugin,
        });
    });
    log_in_reactor(id, pump, segment);
    true
}

/// The other end of [`begin_log`].
pub fn logged(id: ExchangeId, plugin: usize, routes: &Rc<dyn Routes>) {
    let outcome = exchange::with(id, |x| x.outcome.take()).unwrap_or(Outcome::Lost);
    if let Err(text) = log_end(outcome) {
        report(id, Phase::Log, routes.runner(plugin).name(), &text);
    }
    over(id, routes);
}

/// The request is over: nothing of it runs any more.
pub fn over(id: ExchangeId, routes: &Rc<dyn Routes>) {
    routes.access(id);
    release(id);
}

/// Gives back what the exchange has.
pub(super) fn release(id: ExchangeId) {
    let jobs = exchange::with(id, |x| std::mem::take(&mut x.jobs));
    for reactor in jobs {
        reactor::release(reactor, id);
    }
    exchange::end(id);
}

async fn log_in_pool(id: ExchangeId, pool: &Rc<crate::plugin::Pool>) -> Result<(), String> {
    let until = Instant::now() + pool.plugin.limits.deadline;
    exchange::with(id, |x| x.deadline = until);
    let mut lease = pool.take(until).await.map_err(|e| e.to_string())?;
    let result = lease
        .instance()
        .map_err(|e| e.to_string())?
        .call_plain(Phase::Log, id)
        .await;
    if matches!(result, Ok(()) | Err(CallError::Failed(_))) {
        lease.give_back();
    }
    result.map_err(|e| e.to_string())
}

async fn one_log(id: ExchangeId, filter: &Filter, runner: &Runner) -> Result<(), String> {
    match runner {
        Runner::Pool(pool) => Box::pin(log_in_pool(id, pool)).await,
        Runner::Pump(pump) => {
            let Some(segment) = filter.segment else {
                return Ok(());
            };
            log_in_reactor(id, pump, segment);
            log_end(wait(id).await)
        }
    }
}

fn log_in_reactor(id: ExchangeId, pump: &Pump, segment: u16) {
    let reactor = pump.reactor();
    let known = exchange::with(id, |x| {
        x.deadline = time_cache::instant() + pump.plugin.limits.deadline;
        x.jobs.contains(&reactor)
    });
    if known {
        reactor::log(reactor, id);
    } else {
        reactor::run(reactor, id, reactor::Call { segment, from: 0 }, false);
        exchange::with(id, |x| x.handler_running = false);
    }
}

fn log_end(outcome: Outcome) -> Result<(), String> {
    match outcome {
        Outcome::Fail(text) => Err(text),
        Outcome::Lost => Err("the runtime did not end the log phase".to_owned()),
        Outcome::End | Outcome::Finish { .. } | Outcome::Respond { .. } | Outcome::Chunk(_) => {
            Ok(())
        }
    }
}
