//! The host's part of the look-up: exact names by hash, wildcards from the longest to the shortest.

use std::collections::HashMap;

use super::path::PathTable;
use crate::config::value::HostPattern;

/// The longest name that DNS allows; a longer host matches no pattern.
const HOST_MAX: usize = 255;

/// The paths of each host.
#[derive(Debug, Default)]
pub(super) struct HostTable {
    exact: HashMap<String, PathTable>,
    /// `.example.com` and its paths, the longest first.
    wildcards: Vec<(String, PathTable)>,
    any: PathTable,
}

impl HostTable {
    /// The paths of a pattern, to add to.
    pub(super) fn group(&mut self, host: &HostPattern) -> &mut PathTable {
        match host {
            HostPattern::Any => &mut self.any,
            HostPattern::Exact(name) => self.exact.entry(name.clone()).or_default(),
            HostPattern::Wildcard(suffix) => {
                let known = self.wildcards.iter().position(|(known, _)| known == suffix);
                let index = known.unwrap_or_else(|| {
                    self.wildcards.push((suffix.clone(), PathTable::default()));
                    self.wildcards.len() - 1
                });
                &mut self.wildcards[index].1
            }
        }
    }

    /// Puts everything in the order that look-ups need.
    pub(super) fn finish(&mut self) {
        self.wildcards
            .sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        self.any.finish();
        self.exact.values_mut().for_each(PathTable::finish);
        self.wildcards
            .iter_mut()
            .for_each(|(_, paths)| paths.finish());
    }

    /// The paths of the pattern that fits a host best.
    pub(super) fn find(&self, host: &str) -> Option<&PathTable> {
        if self.exact.is_empty() && self.wildcards.is_empty() {
            return None;
        }
        let mut buffer = [0; HOST_MAX];
        let host = normalize(host, &mut buffer)?;
        self.exact.get(host).or_else(|| {
            let fits = |(suffix, _): &&(String, PathTable)| {
                host.len() > suffix.len() && host.ends_with(suffix.as_str())
            };
            self.wildcards.iter().find(fits).map(|(_, paths)| paths)
        })
    }

    /// The paths of every host.
    pub(super) fn any(&self) -> &PathTable {
        &self.any
    }
}

/// A host as patterns are written: lower case, no port, no dot at the end.
fn normalize<'b>(host: &'b str, buffer: &'b mut [u8; HOST_MAX]) -> Option<&'b str> {
    let host = match host.rfind(':') {
        // A colon inside brackets is IPv6's.
        Some(at) if !host[at..].contains(']') => &host[..at],
        _ => host,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if !host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Some(host);
    }
    let lower = buffer.get_mut(..host.len())?;
    lower.copy_from_slice(host.as_bytes());
    lower.make_ascii_lowercase();
    std::str::from_utf8(lower).ok()
}
