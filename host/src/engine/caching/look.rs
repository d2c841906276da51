//! Before content: is there an answer, is one on its way, or has this request to bring it?

use std::sync::Arc;

use http::Method;
use http::header::{AUTHORIZATION, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};

use super::super::Engine;
use super::{Caching, Variant, status};
use crate::cache::{CacheError, Level, Options, Outcome};
use crate::exchange::{self, Exchange};
use crate::http_cache::entry::{Answer, Stored};
use crate::http_cache::{HttpCache, conditions, is_any_true, policy, variant_key, vary};
use crate::time_cache;

/// How often a look-up may find something else than it waited for.
const STEPS: usize = 8;

/// What is to be done about a request.
pub(in super::super) enum Looked {
    /// It has its answer.
    Served,
    /// Content makes it.
    Make,
    /// Whoever made it for all who waited failed.
    Status(u16),
}

/// A request as the cache sees it.
struct Ask {
    key: Vec<u8>,
    authorized: bool,
    store: bool,
    head: bool,
}

enum Find {
    Serve(Box<Answer>, &'static str),
    Make(Box<Caching>),
    Fail(u16),
}

/// What a request is to the cache before any key is looked up.
enum Kind {
    Asks(Ask),
    Makes(Box<Caching>),
    Other,
}

fn kind(http: &Arc<HttpCache>, x: &mut Exchange) -> Kind {
    let method = x.request.method.clone();
    let rules = &http.rules;
    let Some(key) = http.key(x) else {
        return Kind::Other;
    };
    if !rules.methods.iter().any(|own| own == method.as_str()) {
        if method.is_safe() {
            return Kind::Other;
        }
        let mut caching = Caching::new(http, key, status::BYPASS);
        caching.invalidates = true;
        return Kind::Makes(Box::new(caching));
    }
    let get = method == Method::GET || method == Method::HEAD;
    if (get && x.body.unread()) || conditions::is_for_source(&x.request.headers) {
        return Kind::Makes(Box::new(Caching::new(http, key, status::BYPASS)));
    }
    let forbids = rules.client_directives && policy::client_forbids(&x.request.headers);
    let store = !forbids && !is_any_true(&rules.no_store, x);
    if is_any_true(&rules.bypass, x) {
        let mut caching = Caching::new(http, key, status::BYPASS);
        caching.store = store;
        return Kind::Makes(Box::new(caching));
    }
    Kind::Asks(Ask {
        key,
        authorized: x.request.headers.contains_key(AUTHORIZATION),
        store,
        head: method == Method::HEAD,
    })
}

impl Engine {
    /// Looks for an answer, or makes ready for content to make one.
    pub(in super::super) async fn look(&mut self, http: &Arc<HttpCache>) -> Looked {
        let ask = match exchange::with(self.id, |x| kind(http, x)) {
            Kind::Asks(ask) => ask,
            Kind::Makes(caching) => {
                self.make_ready(caching);
                return Looked::Make;
            }
            Kind::Other => return Looked::Make,
        };
        let mut force = false;
        loop {
            match self.find_answer(http, &ask, force).await {
                Find::Serve(answer, status) => {
                    if self.serve(http, &answer, status, false).await {
                        self.publish(true).await;
                        return Looked::Served;
                    }
                    // A piece of its body has been pushed out.
                    force = true;
                }
                Find::Make(mut caching) => {
                    let directives = http.rules.client_directives;
                    let only = |x: &mut Exchange| policy::only_stored(&x.request.headers);
                    if directives && exchange::with(self.id, only) {
                        return Looked::Status(504);
                    }
                    caching.head = ask.head;
                    self.make_ready(caching);
                    return Looked::Make;
                }
                Find::Fail(status) => return Looked::Status(status),
            }
        }
    }

    async fn find_answer(&self, http: &Arc<HttpCache>, ask: &Ask, mut force: bool) -> Find {
        let cache = &http.cache;
        let mut caching = Box::new(Caching::new(http, ask.key.clone(), status::MISS));
        caching.store = ask.store;
        for _ in 0..STEPS {
            let key = caching.place().to_vec();
            let hit = if force { None } else { cache.hit(&key) };
            let (value, landed) = match hit {
                Some(found) => (found.value, false),
                // An answer to one who shows a password is seldom for others: nobody waits for it.
                None if ask.authorized => return Find::Make(caching),
                None => match cache.get(&key, Options::default(), force).await {
                    Ok(Outcome::Hit(found)) => (found.value, found.level == Level::Callback),
                    Ok(Outcome::Miss(ticket)) => return self.fly(caching, *ticket),
                    Err(_) => return unwaited(caching),
                },
            };
            match value.and_then(Stored::decode) {
                None => force = true,
                Some(Stored::Pass) => return Find::Make(caching),
                Some(Stored::Failed(status)) if landed => return Find::Fail(status),
                Some(Stored::Failed(_)) => force = true,
                Some(Stored::Vary(_)) if caching.variant.is_some() => return unwaited(caching),
                Some(Stored::Vary(own)) => {
                    let values =
                        exchange::with(self.id, |x| vary::values(&own.names, &x.request.headers));
                    let Some(values) = values else {
                        return unwaited(caching);
                    };
                    force = !own.known.contains(&vary::number(&values));
                    caching.variant = Some(Variant {
                        key: variant_key(&ask.key, &own, &values),
                        vary: own,
                        values,
                    });
                }
                Some(Stored::Answer(answer)) => {
                    match self.judge(caching, answer, ask, (force, landed)).await {
                        Ok(find) => return find,
                        Err(again) => caching = again,
                    }
                    force = true;
                }
            }
        }
        unwaited(caching)
    }

    /// What an answer is good for now; an error: a new one is to be brought. Whether this request
    /// has waited for it, and whether it came in while it waited, makes a difference.
    async fn judge(
        &self,
        mut caching: Box<Caching>,
        answer: Box<Answer>,
        ask: &Ask,
        (waited, landed): (bool, bool),
    ) -> Result<Find, Box<Caching>> {
        let http = caching.http.clone();
        if http.is_purged(&ask.key, &answer) {
            caching.old = None;
            return Err(caching);
        }
        if ask.authorized && !answer.public {
            caching.status = status::BYPASS;
            return Ok(Find::Make(caching));
        }
        let now = time_cache::clock_ms();
        let times = answer.times;
        if landed {
            return Ok(Find::Serve(answer, status::HIT));
        }
        let left =
            i64::try_from(times.fresh).unwrap_or(i64::MAX) - i64::try_from(now).unwrap_or(i64::MAX);
        let takes = !http.rules.client_directives
            || exchange::with(self.id, |x| {
                policy::client_takes(&x.request.headers, times.age_at(now), left)
            });
        if takes && now < times.fresh {
            return Ok(Find::Serve(answer, status::HIT));
        }
        if now < times.retry && now < times.stale {
            return Ok(Find::Serve(answer, status::STALE));
        }
        if takes && now < times.revalidate {
            let at_once = Options {
                wait: Some(0),
                ..Options::default()
            };
            let status = match http.cache.get(caching.place(), at_once, true).await {
                Ok(Outcome::Miss(ticket)) => {
                    caching.ticket = Some(*ticket);
                    caching.old = Some(answer.clone());
                    self.refresh(caching);
                    status::STALE
                }
                _ => status::UPDATING,
            };
            return Ok(Find::Serve(answer, status));
        }
        if waited {
            // It took too long to bring a new one.
            return Ok(unwaited(caching));
        }
        caching.status = status::EXPIRED;
        caching.old = Some(answer);
        Err(caching)
    }

    fn fly(&self, mut caching: Box<Caching>, mut ticket: crate::cache::Ticket) -> Find {
        let http = caching.http.clone();
        if caching.old.is_none() && !http.is_used(&caching.key) {
            // Nobody is to wait for what is not kept.
            let _lost = http
                .cache
                .pass(&mut ticket, Some(&Stored::pass()))
                .is_err_and(|error| error == CacheError::Lost);
            return unwaited(caching);
        }
        if !caching.store {
            return unwaited(caching);
        }
        caching.ticket = Some(ticket);
        Find::Make(caching)
    }

    /// Content is to make a whole: it sees no conditions of the client, but the cache's own.
    fn make_ready(&mut self, mut caching: Box<Caching>) {
        exchange::with(self.id, |x| {
            if caching.invalidates {
                return;
            }
            x.cache_status = Some(caching.status);
            if caching.ticket.is_none() {
                return;
            }
            x.storing = caching.http.rules.finish;
            validate(x, &mut caching);
        });
        self.caching = Some(caching);
    }
}

/// Takes the client's conditions out and puts in those of what is kept.
pub(super) fn validate(x: &mut Exchange, caching: &mut Caching) {
    if caching.head {
        x.request.method = Method::GET;
    }
    let headers = &mut x.request.headers;
    for name in conditions::CONDITIONS {
        for value in headers.get_all(&name) {
            caching.conditions.append(&name, value.clone());
        }
        headers.remove(&name);
    }
    let Some(old) = &caching.old else { return };
    for (own, theirs) in [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)] {
        if let Some(value) = old.headers.get(own) {
            headers.insert(theirs, value.clone());
            caching.validating = true;
        }
    }
}

/// Content makes it for this request alone.
fn unwaited(mut caching: Box<Caching>) -> Find {
    caching.ticket = None;
    caching.old = None;
    caching.store = false;
    Find::Make(caching)
}
