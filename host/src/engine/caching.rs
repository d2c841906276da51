//! A route's cache stands right before its content: what content made is kept, and header filters,
//! body filters and `log` run on each answer, kept or not, as with nginx's `proxy_cache`.
//!
//! [`look`] finds an answer or decides that content has to make one; [`settle`] decides, when its head
//! is there, what becomes of it; [`keep`] stores its body while the client gets it.

use std::sync::Arc;

use http::HeaderMap;

use super::{Engine, Flow};
use crate::cache::Ticket;
use crate::exchange::{self, Exchange};
use crate::http_cache::HttpCache;
use crate::http_cache::entry::{Answer, Vary};
use crate::phase::Phase;

mod keep;
mod look;
mod refresh;
mod serve;
mod settle;

use look::Looked;

/// nginx's words for what the cache did.
mod status {
    pub(super) const HIT: &str = "HIT";
    pub(super) const MISS: &str = "MISS";
    pub(super) const EXPIRED: &str = "EXPIRED";
    pub(super) const STALE: &str = "STALE";
    pub(super) const UPDATING: &str = "UPDATING";
    pub(super) const REVALIDATED: &str = "REVALIDATED";
    pub(super) const BYPASS: &str = "BYPASS";
}

/// One of a URI's answers that differ.
pub(super) struct Variant {
    vary: Vary,
    values: Vec<u8>,
    key: Vec<u8>,
}

/// An answer that content is to make for the cache.
pub(super) struct Caching {
    http: Arc<HttpCache>,
    /// The URI's key.
    key: Vec<u8>,
    /// Its answers differ, and this one is asked for.
    variant: Option<Variant>,
    /// Others may wait for it.
    ticket: Option<Ticket>,
    /// What is kept and past its time.
    old: Option<Box<Answer>>,
    status: &'static str,
    /// When it was asked for.
    begun: u64,
    /// Whether it may be kept at all.
    store: bool,
    /// The client wants the head only; content makes all.
    head: bool,
    /// The client's own conditions, which content does not see.
    conditions: HeaderMap,
    /// Content was asked whether what is kept is still right.
    validating: bool,
    /// No client gets it.
    background: bool,
    /// Content failed.
    failed: bool,
    /// A successful answer means that what is kept is wrong now.
    invalidates: bool,
}

impl Caching {
    fn new(http: &Arc<HttpCache>, key: Vec<u8>, status: &'static str) -> Self {
        Self {
            http: http.clone(),
            key,
            variant: None,
            ticket: None,
            old: None,
            status,
            begun: crate::time_cache::clock_ms(),
            store: false,
            head: false,
            conditions: HeaderMap::new(),
            validating: false,
            background: false,
            failed: false,
            invalidates: false,
        }
    }

    /// Where the ticket's answer goes.
    fn place(&self) -> &[u8] {
        match &self.variant {
            Some(variant) => &variant.key,
            None => &self.key,
        }
    }
}

impl Engine {
    /// What the plan's cache says before content; `None`: the step is to run.
    pub(super) async fn look_before(&mut self, phase: Phase) -> Option<Flow> {
        if phase != Phase::Content || self.caching.is_some() {
            return None;
        }
        let cache = self.plan.cache.clone()?;
        match Box::pin(self.look(&cache)).await {
            Looked::Served => Some(Flow::Answered),
            Looked::Status(status) => Some(Flow::Status(status)),
            Looked::Make => None,
        }
    }

    /// The request goes on elsewhere: this route's content does not answer it.
    pub(super) async fn leave_cache(&mut self) {
        if let Some(mut caching) = self.caching.take() {
            Box::pin(self.release(&mut caching, 200)).await;
            exchange::with(self.id, |x| x.storing = false);
        }
    }

    /// Whether what is kept serves in place of a status that content came to.
    pub(super) async fn is_rescued(&mut self, status: u16) -> bool {
        let Some(mut caching) = self.caching.take_if(|_| settle::is_error(status)) else {
            return false;
        };
        caching.failed = true;
        exchange::with(self.id, |x| settle::restore(x, &mut caching));
        if !Box::pin(self.rescue(&mut caching)).await {
            self.caching = Some(caching);
            return false;
        }
        self.publish(true).await;
        true
    }
}

/// Tells what the cache did.
fn tell(x: &mut Exchange, http: &HttpCache, status: &'static str) {
    x.cache_status = Some(status);
    if let Some(name) = &http.status_header {
        let value = http::HeaderValue::from_static(status);
        x.response.headers.insert(name, value);
    }
}
