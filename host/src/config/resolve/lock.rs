//! `[lock.NAME]` is resolved before the plugins, whose `allow` names it.

use std::ops::Range;
use std::sync::Arc;

use super::super::document::{Fields, nearest};
use super::super::model::{Lock, Redis, RedisKind, RemoteLocks};
use super::Resolver;

impl Resolver<'_, '_> {
    pub(super) fn locks(&mut self, tables: &Fields, redis: &[Arc<Redis>]) -> Vec<Lock> {
        let mut locks = Vec::new();
        for entry in &tables.entries {
            self.check_name(&entry.name, &entry.span);
            if let Some(fields) = entry.node.table() {
                let remote = self.remote_locks(&entry.name, fields, redis);
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
        let (prefix, place) = match prefix {
            Some((prefix, place)) => (prefix.to_owned(), place),
            None => (format!("lock:{table}:"), span),
        };
        self.own_prefix(name, &prefix, format!("lock.{table}"), place);
        Some(RemoteLocks { redis, prefix })
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
