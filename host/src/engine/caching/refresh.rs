//! Brings a new answer while what is kept serves (`stale-while-revalidate`): an exchange of its own,
//! like the client's one and without a client, that runs the content alone.

use std::cell::RefCell;
use std::rc::Rc;

use super::super::{Engine, filter};
use super::Caching;
use super::look::validate;
use crate::exchange::{self, RequestBody};

impl Engine {
    /// Begins to bring a new answer for this request.
    pub(super) fn refresh(&self, mut caching: Box<Caching>) {
        let (head, connection, variables, traits) = exchange::with(self.id, |x| {
            let target = x.request.target.as_str().to_owned();
            let traits = (x.request_number, x.serial, x.started_ms, x.request_id);
            (
                x.request.inner(&target),
                x.connection.clone(),
                x.variables.copy(),
                traits,
            )
        });
        // A target that is there is one.
        let Ok(mut head) = head else { return };
        head.method = http::Method::GET;
        caching.background = true;
        let id = exchange::begin(|x| {
            x.request = head;
            x.body = RequestBody::new(None);
            x.connection = connection;
            (x.request_number, x.serial, x.started_ms, x.request_id) = traits;
            x.variables = variables;
            x.family.depth = 1;
            x.storing = true;
            validate(x, &mut caching);
        });
        let mut engine = Self {
            id,
            routes: self.routes.clone(),
            plan: self.plan.clone(),
            answered: Rc::new(RefCell::new(self.plan.clone())),
            plugin: None,
            caching: Some(caching),
            background: true,
        };
        tokio::task::spawn_local(async move {
            let plan = engine.plan.clone();
            Box::pin(engine.run(Some(Ok(plan)))).await;
            filter::release(id);
        });
    }
}
