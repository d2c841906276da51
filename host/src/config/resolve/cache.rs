//! `[cache.NAME]` is resolved before the plugins, whose `allow` names it.

use std::ops::Range;
use std::time::Duration;

use super::super::document::{Entry, Fields, nearest};
use super::super::model::Cache;
use super::Resolver;

impl Resolver<'_, '_> {
    pub(super) fn caches(&mut self, tables: &Fields) -> Vec<Cache> {
        let mut caches = Vec::new();
        for entry in &tables.entries {
            self.check_name(&entry.name, &entry.span);
            if let Some(fields) = entry.node.table() {
                caches.push(one_cache(entry, fields));
            }
        }
        caches
    }

    /// A name in `allow.cache` has to be there.
    pub(super) fn check_cache(&mut self, name: &str, span: &Range<usize>) {
        if self.caches.iter().any(|known| known == name) {
            return;
        }
        let hint = match nearest(name, self.caches.iter().map(String::as_str)) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => format!("add [cache.{name}]"),
        };
        self.error(span, format!("there is no cache `{name}`: {hint}"));
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn one_cache(entry: &Entry, fields: &Fields) -> Cache {
    let empty = Fields::default();
    let l1 = fields.table("l1").unwrap_or(&empty);
    let l2 = fields.table("l2").unwrap_or(&empty);
    let count = |fields: &Fields, name: &str| fields.integer(name).unwrap_or(0);
    Cache {
        name: entry.name.clone(),
        items: u32::try_from(count(l1, "items")).unwrap_or(0),
        size: l2.size("size").unwrap_or(0),
        ttl: millis(fields.time("ttl")),
        negative_ttl: millis(fields.time("negative_ttl")),
        stale: millis(fields.time("stale")),
        retry: millis(fields.time("retry")),
        revalidate: millis(fields.time("revalidate")),
        refresh_ahead: millis(fields.time("refresh_ahead")),
        jitter: u64::try_from(count(fields, "jitter")).unwrap_or(0),
        wait: fields.time("wait"),
        waiters: usize::try_from(count(fields, "waiters")).unwrap_or(0),
        lease: fields.time("lease"),
    }
}
