//! The head of an answer that content made for the cache is there: is it kept, does it say that what
//! is kept is right, does what is kept serve in its place, or is there nothing to wait for?

use http::header::{
    AGE, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, SET_COOKIE, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::super::Engine;
use super::{Caching, status, tell};
use crate::exchange::tee::Share;
use crate::exchange::{self, Exchange};
use crate::http_cache::HttpCache;
use crate::http_cache::entry::{Answer, Stored, Times};
use crate::http_cache::policy::{self, Asked, Lifetime, X_ACCEL_EXPIRES};
use crate::time_cache;

/// What speaks of a connection, or is made anew for each client.
const NOT_KEPT: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    CONTENT_LENGTH,
    AGE,
    X_ACCEL_EXPIRES,
];

/// RFC 5861: what a stale answer may stand in for.
pub(super) fn is_error(status: u16) -> bool {
    matches!(status, 500 | 502 | 503 | 504)
}

/// A head as content made it.
pub(super) struct Made {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) method: Method,
    pub(super) authorized: bool,
}

/// The request is as the client sent it again.
pub(super) fn restore(x: &mut Exchange, caching: &mut Caching) {
    if std::mem::take(&mut caching.validating) {
        x.request.headers.remove(IF_NONE_MATCH);
        x.request.headers.remove(IF_MODIFIED_SINCE);
    }
    let mut last = None;
    for (name, value) in std::mem::take(&mut caching.conditions) {
        last = name.or(last);
        if let Some(name) = &last {
            x.request.headers.append(name, value);
        }
    }
}

/// The times of an answer that came now.
pub(super) fn times(begun: u64, now: u64, life: Lifetime) -> Times {
    let fresh = now.saturating_add(life.fresh);
    Times {
        begun,
        received: now,
        age: life.age,
        fresh,
        revalidate: fresh.saturating_add(life.revalidate),
        stale: fresh.saturating_add(life.stale),
        retry: 0,
    }
}

/// The headers that are kept.
pub(super) fn kept(http: &HttpCache, headers: &HeaderMap, now: u64) -> HeaderMap {
    let mut kept = headers.clone();
    for name in NOT_KEPT {
        kept.remove(name);
    }
    // One client's cookie is for nobody else, whatever may be ignored.
    kept.remove(SET_COOKIE);
    if let Some(name) = &http.status_header {
        kept.remove(name);
    }
    if let Ok(date) = HeaderValue::from_str(&time_cache::http_date_of(now / 1000)) {
        kept.entry(DATE).or_insert(date);
    }
    kept
}

impl Engine {
    /// Decides about an answer whose head is there; the head may be another after this.
    pub(in super::super) async fn settle(&mut self, mut caching: Box<Caching>) {
        let validating = caching.validating;
        let made = exchange::with(self.id, |x| {
            let made = Made {
                status: x.response.status,
                headers: x.response.headers.clone(),
                method: x.request.method.clone(),
                authorized: x.request.headers.contains_key(http::header::AUTHORIZATION),
            };
            restore(x, &mut caching);
            x.response.headers.remove(X_ACCEL_EXPIRES);
            made
        });
        if caching.invalidates {
            // RFC 9111, section 4.4: the source says that it has changed.
            if (200..400).contains(&made.status) {
                let _done = caching.http.delete(&caching.key).await;
            }
            return;
        }
        let validated = validating && made.status == 304;
        if validated && let Some(old) = caching.old.take() {
            return Box::pin(self.validated(caching, old, &made)).await;
        }
        if is_error(made.status) && self.rescue(&mut caching).await {
            return;
        }
        let life = caching
            .store
            .then(|| self.lifetime(&caching, &made))
            .flatten();
        match life {
            Some(life) => self.keep(caching, made, life).await,
            None => {
                self.release(&mut caching, made.status).await;
                self.pass_through(&caching);
            }
        }
    }

    fn lifetime(&self, caching: &Caching, made: &Made) -> Option<Lifetime> {
        if made.method == Method::HEAD {
            return None;
        }
        let asked = Asked {
            method: &made.method,
            authorized: made.authorized,
        };
        let now = time_cache::clock_ms();
        let rules = &caching.http.rules;
        policy::judge(rules, asked, made.status, &made.headers, now)
    }

    /// The client gets what content made, and nobody keeps it.
    pub(super) fn pass_through(&self, caching: &Caching) {
        exchange::with(self.id, |x| {
            x.storing = false;
            tell(x, &caching.http, caching.status);
            if caching.background || x.output.left {
                x.output.split(None, Share::Nothing);
            } else if caching.head {
                x.request.method = Method::HEAD;
                headless(x);
                x.output.split(None, Share::Nothing);
            }
        });
    }

    /// Whoever waits need not any more.
    pub(super) async fn release(&self, caching: &mut Caching, status: u16) {
        let Some(mut ticket) = caching.ticket.take() else {
            return;
        };
        let cache = &caching.http.cache;
        let told = if caching.failed {
            cache.pass(&mut ticket, Some(&Stored::failed(status)))
        } else if status >= 500 {
            cache.pass(&mut ticket, Some(&Stored::pass()))
        } else {
            let time = caching.http.uncacheable();
            caching.http.fill(&mut ticket, Stored::pass(), time).await
        };
        // A flight that is lost has nobody who waits.
        let _told = told.is_ok();
    }

    /// What is kept serves in place of an error, if it may; its source is left alone for a while.
    pub(in super::super) async fn rescue(&mut self, caching: &mut Caching) -> bool {
        let now = time_cache::clock_ms();
        let Some(mut old) = caching.old.take().filter(|old| now < old.times.stale) else {
            return false;
        };
        if caching.http.is_purged(&caching.key, &old) {
            return false;
        }
        let http = caching.http.clone();
        old.times.retry = now.saturating_add(http.rules.retry);
        if let Some(mut ticket) = caching.ticket.take() {
            let left = old.times.keep().saturating_sub(now);
            let _kept = http.fill(&mut ticket, old.encode(), left).await.is_ok();
        }
        self.hand_over(caching, &old, status::STALE).await
    }

    /// Gives a kept answer while content is at work.
    async fn hand_over(
        &mut self,
        caching: &Caching,
        answer: &Answer,
        status: &'static str,
    ) -> bool {
        exchange::with(self.id, |x| {
            x.storing = false;
            x.output.left |= caching.background;
            if caching.head {
                x.request.method = Method::HEAD;
            }
        });
        self.serve(&caching.http, answer, status, true).await
    }

    /// The source says that what is kept is right: its head is brought up to date.
    async fn validated(&mut self, mut caching: Box<Caching>, mut old: Box<Answer>, made: &Made) {
        let http = caching.http.clone();
        for name in made.headers.keys() {
            if [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE].contains(name) {
                continue;
            }
            old.headers.remove(name);
            for value in made.headers.get_all(name) {
                old.headers.append(name, value.clone());
            }
        }
        let now = time_cache::clock_ms();
        let method = Method::GET;
        let asked = Asked {
            method: &method,
            authorized: made.authorized,
        };
        match policy::judge(&http.rules, asked, old.status, &old.headers, now) {
            Some(life) => {
                old.times = times(caching.begun, now, life);
                old.headers = kept(&http, &old.headers, now);
                old.public = life.public;
                let left = old.times.keep().saturating_sub(now);
                super::keep::prolong(&http, &old.body, left).await;
                if let Some(mut ticket) = caching.ticket.take() {
                    let _kept = http.fill(&mut ticket, old.encode(), left).await.is_ok();
                }
            }
            None => self.release(&mut caching, made.status).await,
        }
        if !self.hand_over(&caching, &old, status::REVALIDATED).await {
            // A piece of its body is gone: the client asks again, and then it is brought whole.
            let _gone = http.delete(caching.place()).await;
            super::super::answer::status(self.id, 503);
        }
    }
}

/// The head of an answer whose body the client does not get.
pub(super) fn headless(x: &mut Exchange) {
    if x.output.ended {
        let length = HeaderValue::from(x.output.queued());
        x.response.headers.entry(CONTENT_LENGTH).or_insert(length);
    }
}
