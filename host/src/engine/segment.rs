//! A segment of a language runtime: handed over, waited for, and watched while the handler behind a
//! sent answer goes on.

use super::{Engine, Runner, plan};
use crate::error::{ErrorKind, RequestError};
use crate::exchange::{self, Abort, Outcome};
use crate::phase::Verdict;
use crate::plugin::CallError;
use crate::reactor;

impl Engine {
    /// Runs a segment of a language runtime; `None` when its answer is on its way.
    pub(super) async fn segment(
        &mut self,
        segment: &plan::Segment,
    ) -> Result<Option<Verdict>, RequestError> {
        let Runner::Pump(pump) = self.routes.runner(segment.plugin).clone() else {
            return Ok(Some(Verdict::Next));
        };
        let reactor = pump.reactor();
        reactor::run(
            reactor,
            self.id,
            reactor::Call {
                segment: segment.number,
                from: 0,
            },
            segment.forgets,
        );
        match self.outcome(reactor).await? {
            Outcome::Finish { verdict: 0, .. } => Ok(Some(Verdict::Next)),
            Outcome::Finish { verdict: 1, .. } => Ok(Some(Verdict::Done)),
            Outcome::Finish { code, .. } => Ok(Some(Verdict::Exit(code))),
            Outcome::Respond { filtered } => {
                if segment.fused && self.plan.filters() && !filtered {
                    // What a filter would take out must not leave because a runtime forgot it.
                    return Err(self.unexpected(Outcome::Respond { filtered }));
                }
                if self.plan.gathers {
                    self.gather(reactor).await?;
                    self.publish(true).await;
                    return Ok(None);
                }
                self.publish(!segment.fused).await;
                self.behind_answer(reactor, usize::MAX).await?;
                Ok(None)
            }
            // It answered with the client's own connection.
            Outcome::End => Ok(None),
            other => Err(self.unexpected(other)),
        }
    }

    /// Waits until the handler has written all, for its runtime cannot run the filters meanwhile.
    async fn gather(&self, reactor: u32) -> Result<(), RequestError> {
        let drained = exchange::with(self.id, |x| {
            x.output.gathers = true;
            std::mem::take(&mut x.output.tell_drained)
        });
        for other in drained {
            reactor::drained(other, self.id);
        }
        let cache = self.plan.cache.as_ref();
        let most = cache.map_or(u64::MAX, |cache| cache.rules.body_limit);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        self.behind_answer(reactor, most).await
    }

    /// Waits while the handler goes on writing; more than `most` bytes that nobody has taken are an
    /// error.
    async fn behind_answer(&self, reactor: u32, most: usize) -> Result<(), RequestError> {
        let end = exchange::wait(self.id, |x| {
            if x.abort.is_some() {
                return Some(Err(RequestError::new(ErrorKind::PluginDeadline)));
            }
            if x.output.queued() > most {
                let text = "the body is longer than `body_limit` of the route's cache, and its \
                            filters wait for its end";
                return Some(Err(RequestError::because(ErrorKind::PluginFailed, text)));
            }
            match x.outcome.take() {
                Some(Outcome::Fail(text)) => {
                    Some(Err(RequestError::because(ErrorKind::PluginFailed, text)))
                }
                Some(Outcome::Lost) => Some(Err(RequestError::new(ErrorKind::PluginTrap))),
                _ if !x.handler_running && x.output.ended => Some(Ok(())),
                _ if !x.handler_running => {
                    x.output.end();
                    Some(Ok(()))
                }
                _ => None,
            }
        })
        .await;
        if end.is_err() && exchange::with(self.id, |x| x.handler_running) {
            reactor::cancel(reactor, self.id);
        }
        end
    }

    /// Waits for what a reactor says of a job.
    async fn outcome(&self, reactor: u32) -> Result<Outcome, RequestError> {
        let outcome = exchange::wait(self.id, |x| match (x.outcome.take(), x.abort) {
            (Some(outcome), _) => Some(Ok(outcome)),
            (None, Some(abort)) => Some(Err(abort)),
            (None, None) if !x.handler_running && x.downstream.headless() => Some(Ok(Outcome::End)),
            (None, None) => None,
        })
        .await;
        outcome.map_err(|abort| {
            reactor::cancel(reactor, self.id);
            exchange::with(self.id, |x| x.handler_running = false);
            match abort {
                Abort::Deadline => CallError::Deadline.into(),
                Abort::ClientLeft => CallError::ClientLeft.into(),
            }
        })
    }

    fn unexpected(&self, outcome: Outcome) -> RequestError {
        match outcome {
            Outcome::Fail(text) => RequestError::because(ErrorKind::PluginFailed, text),
            Outcome::Lost => RequestError::because(
                ErrorKind::PluginTrap,
                "the runtime that ran this request is gone",
            ),
            other => RequestError::because(
                ErrorKind::PluginTrap,
                format!("the runtime broke the protocol: {other:?}"),
            ),
        }
    }
}
