//! `[cache.NAME]` is resolved before the plugins, whose `allow` names it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::super::document::{Entry, Fields, nearest};
use super::super::model::{Cache, DiskLevel, Redis, RedisKind, RemoteLevel, SharedDict};
use super::Resolver;

impl Resolver<'_, '_> {
    pub(super) fn caches(&mut self, tables: &Fields, redis: &[Arc<Redis>]) -> Vec<Cache> {
        let mut caches: Vec<Cache> = Vec::new();
        for entry in &tables.entries {
            self.check_name(&entry.name, &entry.span);
            if let Some(fields) = entry.node.table() {
                let disk = fields
                    .table("disk")
                    .and_then(|disk| self.disk_level(disk, &caches));
                let l3 = fields
                    .table("l3")
                    .and_then(|l3| self.remote_level(&entry.name, l3, redis));
                let levels = Behind { disk, l3 };
                let cache = one_cache(entry, fields, levels);
                if cache.negative > cache.size / 2 {
                    let message = "`l2`: `negative` is more than half of `size`";
                    self.error(&entry.span, message.to_owned());
                }
                caches.push(cache);
            }
        }
        caches
    }

    fn disk_level(&mut self, fields: &Fields, before: &[Cache]) -> Option<DiskLevel> {
        let (text, span) = fields.text("path")?;
        if text.is_empty() {
            self.error(span, "the path is empty: name a folder");
            return None;
        }
        let path = self.root.join(text);
        let of = |cache: &Cache| Some((cache.name.clone(), cache.disk.clone()?.path));
        for (name, other) in before.iter().filter_map(of) {
            if path.starts_with(&other) || other.starts_with(&path) {
                let message = format!(
                    "the folder of [cache.{name}] is `{}`: each cache has one of its own",
                    other.display()
                );
                self.error(span, message);
            }
        }
        Some(DiskLevel {
            path,
            size: fields.size("size").unwrap_or(0),
            min_ttl: millis(fields.time("min_ttl")),
            queue: fields
                .size("queue")
                .and_then(|size| usize::try_from(size).ok())
                .unwrap_or(0),
            timeout: fields.time("timeout"),
            line: self.reporter.line_of(span.start),
        })
    }

    fn remote_level(
        &mut self,
        cache: &str,
        fields: &Fields,
        redis: &[Arc<Redis>],
    ) -> Option<RemoteLevel> {
        let (name, span) = fields.text("redis")?;
        self.check_redis(name, span);
        let redis = redis.iter().find(|redis| redis.name == name)?.clone();
        if redis.url.kind == RedisKind::Cluster {
            self.error(
                span,
                format!("`{name}` is a Redis cluster: a cache shares its values in one server"),
            );
        }
        let (prefix, place) = match fields.text("prefix") {
            Some((prefix, place)) => (prefix.to_owned(), place),
            None => (format!("{cache}:"), span),
        };
        self.own_prefix(name, &prefix, format!("cache.{cache}"), place);
        Some(RemoteLevel {
            redis,
            prefix,
            compress: fields
                .size("compress")
                .and_then(|size| usize::try_from(size).ok())
                .unwrap_or(usize::MAX),
            queues: matches!(fields.text("away"), Some(("queue", _))),
            queue: fields.size("queue").unwrap_or(0),
            cluster: fields.boolean("cluster"),
            lease: fields.time("lease"),
        })
    }

    /// A name in `allow.cache` has to be there.
    pub(super) fn check_cache(&mut self, name: &str, span: &Range<usize>) {
        if self.caches.iter().any(|known| known.name == name) {
            return;
        }
        let hint = match nearest(name, self.caches.iter().map(|cache| cache.name.as_str())) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => format!("add [cache.{name}]"),
        };
        self.error(span, format!("there is no cache `{name}`: {hint}"));
    }
}

/// What keys without a value may take where nobody says it.
fn negative_part(size: u64) -> u64 {
    size / 8
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A cache for each shared dict that has no `[cache.NAME]` of its name: what code written for
/// OpenResty keeps in a dict through `resty.mlcache`. `allow.cache` cannot name it.
pub(super) fn add_those_of_dicts(caches: &mut Vec<Cache>, dicts: &[SharedDict]) {
    for dict in dicts {
        if caches.iter().any(|cache| cache.name == dict.name) {
            continue;
        }
        caches.push(Cache {
            name: dict.name.clone(),
            items: 100,
            longest: 1 << 20,
            size: dict.size.try_into().unwrap_or(u64::MAX),
            negative: negative_part(dict.size.try_into().unwrap_or(u64::MAX)),
            ttl: 30_000,
            negative_ttl: 5_000,
            stale: 0,
            retry: 1_000,
            revalidate: 0,
            refresh_ahead: 0,
            jitter: 0,
            wait: Duration::from_secs(5),
            waiters: 65_536,
            lease: Duration::from_secs(30),
            disk: None,
            l3: None,
        });
    }
}

/// The levels behind memory.
struct Behind {
    disk: Option<DiskLevel>,
    l3: Option<RemoteLevel>,
}

fn one_cache(entry: &Entry, fields: &Fields, levels: Behind) -> Cache {
    let empty = Fields::default();
    let l1 = fields.table("l1").unwrap_or(&empty);
    let l2 = fields.table("l2").unwrap_or(&empty);
    let count = |fields: &Fields, name: &str| fields.integer(name).unwrap_or(0);
    let size = l2.size("size").unwrap_or(0);
    Cache {
        name: entry.name.clone(),
        items: u32::try_from(count(l1, "items")).unwrap_or(0),
        longest: l1.size("longest").unwrap_or(0),
        size,
        negative: l2.size("negative").unwrap_or(negative_part(size)),
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
        disk: levels.disk,
        l3: levels.l3,
    }
}
