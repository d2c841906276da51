//! `[lock.NAME]` is resolved before the plugins, whose `allow` names it.

use std::ops::Range;

use super::super::document::{Fields, nearest};
use super::super::model::Lock;
use super::Resolver;

impl Resolver<'_, '_> {
    pub(super) fn locks(&mut self, tables: &Fields) -> Vec<Lock> {
        let mut locks = Vec::new();
        for entry in &tables.entries {
            self.check_name(&entry.name, &entry.span);
            if let Some(fields) = entry.node.table() {
                locks.push(Lock {
                    name: entry.name.clone(),
                    hold: fields.time("hold"),
                    wait: fields.time("wait"),
                    waiters: fields.count("waiters").unwrap_or(0),
                });
            }
        }
        locks
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
