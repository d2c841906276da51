//! The path's part of the look-up: exact paths by hash, prefixes by one binary search, regexes in
//! the file's order.

use std::collections::HashMap;

use regex::bytes::Regex;

use super::Found;
use crate::config::value::PathPattern;

/// The paths of one host.
#[derive(Debug, Default)]
pub(super) struct PathTable {
    exact: HashMap<Vec<u8>, Choice>,
    /// Sorted by their bytes once finished.
    prefixes: Vec<Prefix>,
    regexes: Vec<(Regex, Choice)>,
}

#[derive(Debug)]
struct Prefix {
    bytes: Vec<u8>,
    is_final: bool,
    /// The place of the longest other prefix that this one begins with.
    parent: Option<usize>,
    choice: Choice,
}

/// The routes of one path, told apart by their methods.
#[derive(Debug, Default)]
pub(super) struct Choice {
    routes: Vec<(Vec<String>, usize)>,
    /// The route of all other methods.
    rest: Option<usize>,
    allow: String,
}

impl PathTable {
    pub(super) fn insert(&mut self, path: &PathPattern, methods: &[String], route: usize) {
        let choice = match path {
            PathPattern::Exact(path) => self.exact.entry(path.clone().into_bytes()).or_default(),
            PathPattern::Prefix { prefix, is_final } => self.prefix(prefix.as_bytes(), *is_final),
            PathPattern::Regex(regex) => self.regex(regex),
        };
        choice.insert(methods, route);
    }

    fn prefix(&mut self, bytes: &[u8], is_final: bool) -> &mut Choice {
        let known = self
            .prefixes
            .iter()
            .position(|prefix| prefix.bytes == bytes);
        let index = known.unwrap_or_else(|| {
            let (bytes, choice) = (bytes.to_vec(), Choice::default());
            self.prefixes.push(Prefix {
                bytes,
                is_final: false,
                parent: None,
                choice,
            });
            self.prefixes.len() - 1
        });
        let prefix = &mut self.prefixes[index];
        prefix.is_final |= is_final;
        &mut prefix.choice
    }

    /// One expression that stands on several routes is tried once, at its first place.
    fn regex(&mut self, regex: &Regex) -> &mut Choice {
        let known = self
            .regexes
            .iter()
            .position(|(known, _)| known.as_str() == regex.as_str());
        let index = known.unwrap_or_else(|| {
            self.regexes.push((regex.clone(), Choice::default()));
            self.regexes.len() - 1
        });
        &mut self.regexes[index].1
    }

    /// Sorts the prefixes and links each to the next shorter one.
    pub(super) fn finish(&mut self) {
        self.prefixes.sort_by(|one, two| one.bytes.cmp(&two.bytes));
        for index in 0..self.prefixes.len() {
            let (before, rest) = self.prefixes.split_at_mut(index);
            let Some(prefix) = rest.first_mut() else {
                continue;
            };
            // What this one begins with is sorted before it, and so is linked already.
            let mut parent = index.checked_sub(1);
            while let Some(at) = parent {
                if prefix.bytes.starts_with(&before[at].bytes) {
                    break;
                }
                parent = before[at].parent;
            }
            prefix.parent = parent;
        }
    }

    pub(super) fn find(&self, path: &[u8]) -> Option<&Choice> {
        if let Some(choice) = self.exact.get(path) {
            return Some(choice);
        }
        let prefix = self.longest_prefix(path);
        if prefix.is_none_or(|prefix| !prefix.is_final)
            && let Some((_, choice)) = self.regexes.iter().find(|(regex, _)| regex.is_match(path))
        {
            return Some(choice);
        }
        prefix.map(|prefix| &prefix.choice)
    }

    /// Whatever lies between the longest prefix and the path in the sorted list begins with that
    /// prefix, so the way up from the path's neighbour leads to it.
    fn longest_prefix(&self, path: &[u8]) -> Option<&Prefix> {
        let after = self
            .prefixes
            .partition_point(|prefix| prefix.bytes.as_slice() <= path);
        let mut at = after.checked_sub(1);
        while let Some(index) = at {
            let prefix = &self.prefixes[index];
            if path.starts_with(&prefix.bytes) {
                return Some(prefix);
            }
            at = prefix.parent;
        }
        None
    }
}

impl Choice {
    /// The configuration has no two routes for one method; if it had, the first would be taken.
    fn insert(&mut self, methods: &[String], route: usize) {
        if methods.is_empty() {
            self.rest.get_or_insert(route);
            return;
        }
        for method in methods {
            if !self.allow.split(", ").any(|known| known == method) {
                if !self.allow.is_empty() {
                    self.allow.push_str(", ");
                }
                self.allow.push_str(method);
            }
        }
        self.routes.push((methods.to_vec(), route));
    }

    /// The route of a method.
    pub(super) fn pick(&self, method: &str) -> Found<'_> {
        let fits =
            |(methods, _): &&(Vec<String>, usize)| methods.iter().any(|known| known == method);
        let named = self.routes.iter().find(fits).map(|(_, route)| *route);
        match named.or(self.rest) {
            Some(route) => Found::Route(route),
            None => Found::MethodNotAllowed { allow: &self.allow },
        }
    }
}
