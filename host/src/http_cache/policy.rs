//! Whether an answer may be stored, and for how long: RFC 9111 by the crate `http-cache-semantics`,
//! nginx's `X-Accel-Expires`, and what the route's configuration says where the answer says nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{
    AGE, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, DATE, EXPIRES, HeaderName, LAST_MODIFIED,
    PRAGMA, SET_COOKIE, VARY,
};
use http::{HeaderMap, HeaderValue, Method};
use http_cache_semantics::{CacheOptions, CachePolicy};

use super::vary::{self, Says};
use crate::config::model::HttpCache as Rules;

/// nginx's own word of an answer.
pub const X_ACCEL_EXPIRES: HeaderName = HeaderName::from_static("x-accel-expires");

/// What the crate looks at.
const SEEN: [HeaderName; 6] = [EXPIRES, PRAGMA, DATE, AGE, LAST_MODIFIED, VARY];

/// No answer lives longer: ten years.
const LONGEST: u64 = 10 * 365 * 86_400_000;

/// How long an answer serves, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// How old it came.
    pub age: u64,
    /// As fresh.
    pub fresh: u64,
    /// Past that, while a new one is brought.
    pub revalidate: u64,
    /// Past that, when none can be brought.
    pub stale: u64,
    /// Whether who shows a password may get it, too.
    pub public: bool,
}

/// What counts of a request.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'r> {
    /// Its method.
    pub method: &'r Method,
    /// Whether it shows a password.
    pub authorized: bool,
}

/// The directives of a `Cache-Control`, with their values.
pub fn directives(headers: &HeaderMap) -> impl Iterator<Item = (&str, Option<&str>)> {
    headers
        .get_all(CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|part| match part.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
            None => (part.trim(), None),
        })
}

/// A directive's seconds, as milliseconds.
fn seconds(headers: &HeaderMap, name: &str) -> Option<u64> {
    let (_, value) = directives(headers).find(|(own, _)| own.eq_ignore_ascii_case(name))?;
    let seconds: u64 = value?.parse().ok()?;
    Some(seconds.saturating_mul(1000).min(LONGEST))
}

fn has(headers: &HeaderMap, names: &[&str]) -> bool {
    directives(headers).any(|(own, _)| names.iter().any(|name| own.eq_ignore_ascii_case(name)))
}

/// The answer's headers as far as they decide.
fn deciding(rules: &Rules, headers: &HeaderMap) -> HeaderMap {
    let ignored = |name: &HeaderName| rules.ignore.iter().any(|own| own == name.as_str());
    let mut seen = HeaderMap::new();
    for name in SEEN {
        if !ignored(&name) {
            for value in headers.get_all(&name) {
                seen.append(&name, value.clone());
            }
        }
    }
    if !ignored(&CACHE_CONTROL) {
        // The crate takes names as they are written, and `proxy-revalidate` for "never fresh".
        let mut all = String::new();
        for (name, value) in directives(headers) {
            let name = name.to_ascii_lowercase();
            if name.is_empty() || name == "proxy-revalidate" {
                continue;
            }
            if !all.is_empty() {
                all.push_str(", ");
            }
            all.push_str(&name);
            if let Some(value) = value {
                all.push('=');
                all.push_str(value);
            }
        }
        if let Ok(all) = HeaderValue::from_str(&all)
            && !all.is_empty()
        {
            seen.insert(CACHE_CONTROL, all);
        }
    }
    seen
}

/// `X-Accel-Expires`: seconds, or `@` and a moment; nginx puts it before all else.
fn accelerated(rules: &Rules, headers: &HeaderMap, now: u64) -> Option<u64> {
    if rules.ignore.iter().any(|own| own == "x-accel-expires") {
        return None;
    }
    let text = headers.get(X_ACCEL_EXPIRES)?.to_str().ok()?;
    let millis = |text: &str| text.parse::<u64>().ok()?.checked_mul(1000);
    match text.strip_prefix('@') {
        Some(moment) => Some(millis(moment)?.saturating_sub(now)),
        None => millis(text),
    }
}

struct Policy<'a> {
    asked: Asked<'a>,
    seen: &'a HeaderMap,
    rules: &'a Rules,
    now: SystemTime,
}

impl Policy<'_> {
    /// How long an answer with this status is fresh, if it may be stored.
    fn fresh(&self, status: u16) -> Option<u64> {
        let mut request = http::Request::new(());
        *request.method_mut() = self.asked.method.clone();
        if self.asked.authorized {
            let some = HeaderValue::from_static("some");
            request.headers_mut().insert(AUTHORIZATION, some);
        }
        let mut answer = http::Response::new(());
        *answer.status_mut() = http::StatusCode::from_u16(status).ok()?;
        *answer.headers_mut() = self.seen.clone();
        let options = CacheOptions {
            shared: true,
            cache_heuristic: f32::from(self.rules.heuristic) / 100.0,
            ..CacheOptions::default()
        };
        let policy = CachePolicy::new_options(&request, &answer, self.now, options);
        if !policy.is_storable() {
            return None;
        }
        let fresh = policy.time_to_live(self.now).as_millis();
        Some(u64::try_from(fresh).unwrap_or(LONGEST).min(LONGEST))
    }
}

/// How long an answer may be kept; `None`: it may not.
#[must_use]
pub fn judge(
    rules: &Rules,
    asked: Asked<'_>,
    status: u16,
    headers: &HeaderMap,
    now: u64,
) -> Option<Lifetime> {
    let ignored = |name: &str| rules.ignore.iter().any(|own| own == name);
    // A part, or a word about what the client has: no answer for others.
    if status < 200 || status == 206 || status == 304 {
        return None;
    }
    if headers.contains_key(SET_COOKIE) && !ignored("set-cookie") {
        return None;
    }
    if !ignored("vary") && vary::says(headers) == Says::Any {
        return None;
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|l| l.to_str().ok());
    if length.and_then(|l| l.parse::<u64>().ok()) > Some(rules.body_limit) {
        return None;
    }
    let seen = deciding(rules, headers);
    let policy = Policy {
        asked,
        seen: &seen,
        rules,
        now: UNIX_EPOCH + Duration::from_millis(now),
    };
    let says = seen.contains_key(EXPIRES) || has(&seen, &["max-age", "s-maxage"]);
    let valid = rules
        .valid
        .iter()
        .find(|(own, _)| own.is_none_or(|own| own == status));
    let fresh = match (accelerated(rules, headers, now), valid) {
        (Some(fresh), _) => fresh,
        (None, Some((_, fresh))) if !says => {
            // The status is the configuration's choice; the rest is the answer's.
            policy.fresh(200)?;
            if has(&seen, &["no-cache"]) || seen.contains_key(PRAGMA) {
                return None;
            }
            *fresh
        }
        (None, _) => policy.fresh(status)?,
    };
    let never = has(&seen, &["no-cache", "must-revalidate"]) || has(headers, &["proxy-revalidate"]);
    let shared = has(&seen, &["s-maxage"]);
    let window = |name: &str, rule: u64| match (never, seconds(&seen, name)) {
        (true, _) => 0,
        (false, Some(own)) => own,
        // `s-maxage` forbids what is stale unless the answer itself allows it.
        (false, None) if shared => 0,
        (false, None) => rule,
    };
    let revalidate = window("stale-while-revalidate", rules.revalidate);
    if fresh == 0 && revalidate == 0 {
        return None;
    }
    let age = headers.get(AGE).and_then(|age| age.to_str().ok());
    let age = age.and_then(|age| age.parse::<u64>().ok()).unwrap_or(0);
    Some(Lifetime {
        age: age.saturating_mul(1000).min(LONGEST),
        fresh: fresh.min(LONGEST),
        revalidate,
        stale: window("stale-if-error", rules.stale),
        public: has(&seen, &["public", "s-maxage", "must-revalidate"]),
    })
}

/// Whether a client's directives let it have an answer of this age (RFC 9111, section 5.2.1).
#[must_use]
pub fn client_takes(request: &HeaderMap, age: u64, fresh_for: i64) -> bool {
    if has(request, &["no-cache"])
        || (!request.contains_key(CACHE_CONTROL)
            && request
                .get(PRAGMA)
                .is_some_and(|pragma| pragma.as_bytes() == b"no-cache"))
    {
        return false;
    }
    let signed = |millis: u64| i64::try_from(millis).unwrap_or(i64::MAX);
    seconds(request, "max-age").is_none_or(|most| age.saturating_mul(1000) <= most)
        && seconds(request, "min-fresh").is_none_or(|least| fresh_for >= signed(least))
}

/// Whether a client wants nothing but a stored answer.
#[must_use]
pub fn only_stored(request: &HeaderMap) -> bool {
    has(request, &["only-if-cached"])
}

/// Whether a client does not want its answer stored.
#[must_use]
pub fn client_forbids(request: &HeaderMap) -> bool {
    has(request, &["no-store"])
}

#[cfg(test)]
mod tests;
