//! `[lock.NAME]` is resolved before the plugins, whose `allow` names it.

use std::ops::Range;
use std::sync::Arc;

use super::super::document::{Fields, nearest};
use super::super::model::{Cache, Lock, Redis, RedisKind, RemoteLocks};
use super::Resolver;

impl Resolver<'_, '_> {
    pub(super) fn locks(&mut self, tables: &Fields, redis: &[Arc<Redis>]) -> Vec<Lock> {
        let mut locks = Vec::new();
        for entry in &tables.entries {
            self.check_name(&entry.name, &entry.span);
            if let Some(fields) = entry.node.table() {
                let remote = self.remote_locks(&entry.name, fields, redis);
                if let Some(remote) = &remote {
                    self.check_prefix(remote, fields);
                }
                locks.push(Lock {
                    name: entry.name.clone(),
                    hold: fields.time("hold"),
                    wait: fields.time("wait"),
                    waiters: fields.count("waiters").unwrap_or(0),
                    remote,
                });
            }
        }
        locks
    }

    fn remote_locks(
        &mut self,
        table: &str,
        fields: &Fields,
        redis: &[Arc<Redis>],
    ) -> Option<RemoteLocks> {
        let prefix = fields.text("prefix");
        let Some((name, span)) = fields.text("redis") else {
            if let Some((_, span)) = prefix {
                self.error(
                    span,
                    "`prefix` is for locks in Redis: add `redis`".to_owned(),
                );
            }
            return None;
        };
        self.check_redis(name, span);
        let redis = redis.iter().find(|redis| redis.name == name)?.clone();
        if redis.url.kind == RedisKind::Cluster {
            self.error(
                span,
                format!("`{name}` is a Redis cluster: locks live in one server"),
            );
        }
        Some(RemoteLocks {
            redis,
            prefix: prefix
                .map_or_else(|| format!("lock:{table}:"), |(prefix, _)| prefix.to_owned()),
        })
    }

    /// Values of a cache would be taken for locks, and written over them.
    fn check_prefix(&mut self, locks: &RemoteLocks, fields: &Fields) {
        let same = |cache: &&Cache| {
            let level = cache.l3.as_ref();
            level.is_some_and(|l3| l3.redis.name == locks.redis.name && l3.prefix == locks.prefix)
        };
        let Some((_, span)) = fields.text("prefix").or_else(|| fields.text("redis")) else {
            return;
        };
        if let Some(cache) = self.caches.iter().find(same) {
            let (cache, prefix) = (&cache.name, &locks.prefix);
            let message = format!(
                "the cache `{cache}` has the prefix `{prefix}` in this Redis: choose another one"
            );
            self.error(span, message);
        }
    }

    /// A name in `allow.lock` has to be there.
    pub(super) fn check_lock(&mut self, name: &str, span: &Range<usize>) {
        if self.locks.iter().any(|known| known == name) {
            return;
        }
        let hint = match nearest(name, self.locks.iter().map(String::as_str)) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => format!("add [lock.{name}]"),
        };
        self.error(span, format!("there is no lock `{name}`: {hint}"));
    }
}
