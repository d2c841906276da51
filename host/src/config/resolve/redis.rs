//! `[redis.NAME]` is resolved before the plugins, whose `allow` names it.

use std::ops::Range;

use super::super::document::{Entry, Fields, nearest};
use super::super::model::{Redis, RedisUrl};
use super::Resolver;

impl Resolver<'_, '_> {
    pub(super) fn redis_servers(&mut self, tables: &Fields) -> Vec<Redis> {
        let mut servers = Vec::new();
        for entry in &tables.entries {
            self.check_name(&entry.name, &entry.span);
            servers.extend(
                entry
                    .node
                    .table()
                    .and_then(|fields| self.one_redis(entry, fields)),
            );
        }
        servers
    }

    fn one_redis(&mut self, entry: &Entry, fields: &Fields) -> Option<Redis> {
        let (url, span) = fields.text("url")?;
        let url = self.parsed(RedisUrl::parse(url), span)?;
        let count = |fields: &Fields, name: &str| fields.count(name).unwrap_or(1);
        let ca = self.file(fields, "ca");
        let empty = Fields::default();
        let breaker = fields.table("breaker").unwrap_or(&empty);
        Some(Redis {
            name: entry.name.clone(),
            url,
            timeout: fields.time("timeout"),
            connect_timeout: fields.time("connect_timeout"),
            reply_limit: fields
                .size("reply_limit")
                .and_then(|size| usize::try_from(size).ok())
                .unwrap_or(usize::MAX),
            queue: count(fields, "queue"),
            subscriptions: count(fields, "subscriptions"),
            backlog: count(fields, "backlog"),
            failures: u32::try_from(count(breaker, "failures")).unwrap_or(u32::MAX),
            pause: breaker.time("pause"),
            protocol: match fields.text("protocol") {
                Some(("resp2", _)) => Some(2),
                Some(("resp3", _)) => Some(3),
                _ => None,
            },
            ca,
        })
    }

    /// A name in `allow.redis` has to be there.
    pub(super) fn check_redis(&mut self, name: &str, span: &Range<usize>) {
        if self.redis.iter().any(|known| known == name) {
            return;
        }
        let hint = match nearest(name, self.redis.iter().map(String::as_str)) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => format!("add [redis.{name}]"),
        };
        self.error(span, format!("there is no redis `{name}`: {hint}"));
    }
}
