//! `cache` of a route as it is meant.

use std::time::Duration;

use super::super::value::Template;

/// `cache` of a route. Times that an answer may say itself are in milliseconds, as in [`super::Cache`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCache {
    /// The cache's place in [`super::Config::caches`].
    pub cache: usize,
    /// What answers are told apart by.
    pub key: Option<Template>,
    /// Whose answers are kept; `HEAD` counts where `GET` does.
    pub methods: Vec<String>,
    /// Where one is true, the stored answer is not used.
    pub bypass: Vec<Template>,
    /// Where one is true, the answer is not stored.
    pub no_store: Vec<Template>,
    /// How long answers live that say nothing of it; no status is any.
    pub valid: Vec<(Option<u16>, u64)>,
    /// Percent of the time since an answer was modified.
    pub heuristic: u8,
    /// How long past its end an answer serves while a new one is brought.
    pub revalidate: u64,
    /// How long past its end an answer serves when none can be brought.
    pub stale: u64,
    /// How long what failed is left alone.
    pub retry: u64,
    /// How long it is remembered that an answer may not be stored.
    pub uncacheable: Duration,
    /// How often an answer is asked for before it is stored.
    pub min_uses: u8,
    /// Headers that do not decide, in lower case.
    pub ignore: Vec<String>,
    /// The longest body.
    pub body_limit: u64,
    /// The most answers by `Vary`.
    pub variants: usize,
    /// Headers that name tags, in lower case.
    pub tags: Vec<String>,
    /// The header that tells what the cache did, in lower case.
    pub status_header: Option<String>,
    /// Whether a client's directives count.
    pub client_directives: bool,
    /// Whether an answer without its client is brought to its end.
    pub finish: bool,
}
