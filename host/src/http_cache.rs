//! Answers of routes in a `[cache.NAME]`, by HTTP's rules: what they are kept under, whether and how
//! long they may be kept, and what a client gets of one that is kept. The engine decides when.

pub mod conditions;
pub mod entry;
pub mod policy;
pub mod uses;
pub mod vary;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;

use crate::cache::{Cache, CacheError, Options, Purge, Ticket};
use crate::config::model::HttpCache as Rules;
use crate::config::template::Template;
use crate::exchange::{Exchange, variable};
use crate::time_cache;
use entry::{Answer, Vary};
use uses::Uses;

/// Keeps answers apart from what plugins keep in the same cache.
const ANSWERS: &[u8] = b"\0http\0";
/// The same for pieces of long bodies.
const PIECES: &[u8] = b"\0body\0";
/// The longest key that a request may make; the rest of what a cache takes is for `Vary`.
const KEY: usize = 32 << 10;

/// `cache` of a route.
#[derive(Debug)]
pub struct HttpCache {
    /// Holds the answers.
    pub cache: Arc<Cache>,
    /// What the configuration says.
    pub rules: Rules,
    /// The header that tells what the cache did.
    pub status_header: Option<HeaderName>,
    uses: Option<Uses>,
}

impl HttpCache {
    /// A route's cache.
    #[must_use]
    pub fn new(cache: Arc<Cache>, rules: Rules) -> Self {
        let uses = (rules.min_uses > 1).then(Uses::default);
        let status_header = rules.status_header.as_ref();
        Self {
            status_header: status_header.and_then(|name| name.parse().ok()),
            cache,
            rules,
            uses,
        }
    }

    /// Whether a key has been asked for often enough to be kept.
    #[must_use]
    pub fn is_used(&self, key: &[u8]) -> bool {
        let uses = self.uses.as_ref();
        uses.is_none_or(|uses| uses.count(key) >= self.rules.min_uses)
    }

    /// The key of a request; `None` when it is too long for one. `GET` and `HEAD` share theirs.
    pub fn key(&self, x: &mut Exchange) -> Option<Vec<u8>> {
        let mut key = ANSWERS.to_vec();
        match &self.rules.key {
            Some(template) => template.render(&mut key, |name, out| {
                variable::write(x, name, out);
            }),
            None => {
                variable::write(x, "scheme", &mut key);
                key.extend_from_slice(b"://");
                key.extend_from_slice(x.request.host().to_ascii_lowercase().as_bytes());
                // As it was sent: two paths that a source may tell apart are two keys.
                key.extend_from_slice(x.request.target.as_str().as_bytes());
            }
        }
        (key.len() <= KEY).then_some(key)
    }

    /// Whether an answer under the URI's key has been purged.
    #[must_use]
    pub fn is_purged(&self, key: &[u8], answer: &Answer) -> bool {
        let tags = answer.tags.iter().map(|tag| &tag[..]);
        self.cache.is_purged(key, tags, answer.times.begun)
    }

    /// Stores what a flight brought, and gives it to all who wait. Nobody depends on its being kept:
    /// it may have been purged meanwhile, or be too long, and its client has it even so.
    ///
    /// # Errors
    /// When it is not kept.
    pub async fn fill(
        &self,
        ticket: &mut Ticket,
        value: Bytes,
        left: u64,
    ) -> Result<(), CacheError> {
        let left = Some(left.max(1));
        let stored = self.cache.fill(ticket, Some(value), left).await;
        stored.map(|_| ())
    }

    /// Stores what nobody waits for; tells whether it is kept.
    pub async fn set(&self, key: &[u8], value: Bytes, left: u64) -> bool {
        let options = Options {
            ttl: Some(left.max(1)),
            ..Options::default()
        };
        self.cache.set(key, Some(value), options).await.is_ok()
    }

    /// Takes away what is under a key; tells whether it could be a key.
    pub async fn delete(&self, key: &[u8]) -> bool {
        self.cache.delete(key).await.is_ok()
    }

    /// How long it is remembered that an answer may not be kept, in milliseconds.
    #[must_use]
    pub fn uncacheable(&self) -> u64 {
        u64::try_from(self.rules.uncacheable.as_millis()).unwrap_or(u64::MAX)
    }

    /// The tags that an answer names.
    #[must_use]
    pub fn tags(&self, headers: &http::HeaderMap) -> Vec<Bytes> {
        let mut tags = Vec::new();
        for name in &self.rules.tags {
            for value in headers.get_all(name) {
                let words = value
                    .as_bytes()
                    .split(|byte| byte.is_ascii_whitespace() || *byte == b',');
                let words = words.filter(|tag| !tag.is_empty());
                tags.extend(words.map(Bytes::copy_from_slice));
            }
        }
        tags
    }
}

/// Whether one of these is neither empty nor `0` (nginx: `proxy_cache_bypass`).
pub fn is_any_true(templates: &[Template], x: &mut Exchange) -> bool {
    templates.iter().any(|template| {
        let mut text = Vec::new();
        template.render(&mut text, |name, out| {
            variable::write(x, name, out);
        });
        !text.is_empty() && text != b"0"
    })
}

/// The key of one of a URI's answers.
#[must_use]
pub fn variant_key(uri: &[u8], vary: &Vary, values: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(uri.len() + 9 + values.len());
    key.extend_from_slice(uri);
    key.push(0);
    key.extend_from_slice(&vary.id.to_be_bytes());
    key.extend_from_slice(values);
    key
}

/// The key of a piece of a long body.
#[must_use]
pub fn piece_key(id: u64, number: u32) -> Vec<u8> {
    let mut key = PIECES.to_vec();
    key.extend_from_slice(&id.to_be_bytes());
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// What a purge hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purged<'p> {
    /// The answers to one URI: `http://example.com/path?query`, or what `key` makes of it.
    Key(&'p [u8]),
    /// All whose key begins so.
    Prefix(&'p [u8]),
    /// All with this tag.
    Tag(&'p [u8]),
}

/// Waits until the millisecond of a purge is over, so that what is asked for after it is not taken for
/// what was asked for before.
async fn past(moment: u64) {
    while time_cache::clock_ms() <= moment {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Purges answers; no worker serves them when this returns, and what is on its way from before is not
/// stored.
///
/// # Errors
/// When the key is too long.
pub async fn purge(cache: &Cache, what: Purged<'_>) -> Result<(), CacheError> {
    let full = |text: &[u8]| [ANSWERS, text].concat();
    match what {
        Purged::Key(key) => {
            cache.delete(&full(key)).await?;
        }
        Purged::Prefix(prefix) => {
            past(cache.purge_answers(Purge::Prefix(&full(prefix))).await).await
        }
        Purged::Tag(tag) => past(cache.purge_answers(Purge::Tag(tag)).await).await,
    }
    Ok(())
}
