//! Where a request begins: its plan, taken on; and the plans that are walked without a task.

use std::sync::Arc;

use super::plan::{Plan, Run};
use super::{Routes, answer};
use crate::error::{ErrorKind, RequestError};
use crate::exchange::{self, ExchangeId};

/// Where an exchange begins: with the steps of `server_rewrite`, or at the route that was found.
pub type Start = Option<Result<Arc<Plan>, RequestError>>;

/// Finds where an exchange begins.
pub fn start(id: ExchangeId, routes: &(impl Routes + ?Sized)) -> Start {
    routes.fallback().steps.is_empty().then(|| routes.find(id))
}

/// Answers an exchange whose plan has nothing to wait for; false when it has.
pub fn at_once(id: ExchangeId, plan: &Plan) -> bool {
    if !plan.is_immediate() || exchange::with(id, |x| x.body.unread()) || take_on(id, plan).is_err()
    {
        return false;
    }
    for step in &plan.steps {
        exchange::with(id, |x| x.phase = step.phase);
        match &step.run {
            Run::Set { variable, value } => answer::set(id, variable, value),
            Run::Respond(respond) => answer::respond(id, respond),
            _ => {}
        }
    }
    exchange::with(id, |x| {
        x.response.ready = true;
        x.response.sent = true;
    });
    true
}

/// The exchange goes by this plan from here on.
pub(super) fn take_on(id: ExchangeId, plan: &Plan) -> Result<(), RequestError> {
    exchange::with(id, |x| {
        x.route = plan.route.clone();
        x.settable = plan.settable.clone();
        x.document_root.clone_from(&plan.document_root);
        x.body.limit = plan.body_limit;
        x.keeps_on = plan.keeps_on;
        if let Some(deadline) = plan.deadline {
            x.deadline = x.started + deadline;
        }
        if plan.body_limit != 0
            && x.body.unread()
            && x.body.announced.is_some_and(|n| n > plan.body_limit)
        {
            return Err(RequestError::new(ErrorKind::BodyTooLarge));
        }
        Ok(())
    })
}
