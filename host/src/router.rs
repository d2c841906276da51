//! Finds the route of a request by host, path and method: a pure look-up without allocation, made
//! once per configuration.
//!
//! The order is nginx's. The host decides first: the exact one, else the longest wildcard. Within a
//! host an exact path wins; else the longest prefix is remembered, and the first regex of the file
//! that matches wins over it, unless that prefix is `final`. Routes without a host belong to every
//! host: they are asked when the host's own routes have nothing for the path (nginx would answer
//! 404, since a `server` block inherits no locations; here a route without host is written once for
//! all). The method is looked at last: a path that is found for other methods only is 405, not
//! another path's route.

use crate::config::value::{HostPattern, PathPattern};

mod host;
mod path;
#[cfg(test)]
mod tests;

use host::HostTable;

/// What the router needs to know of a route.
#[derive(Debug, Clone, Copy)]
pub struct RouteKey<'k> {
    /// Which hosts.
    pub host: &'k HostPattern,
    /// Which paths; `None` is never found, as it is reached by name.
    pub path: Option<&'k PathPattern>,
    /// Which methods; empty: those that no other route of the same path names.
    pub methods: &'k [String],
}

/// What a look-up finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'r> {
    /// The route, by its place in the list that the router was made of.
    Route(usize),
    /// The path is there for other methods.
    MethodNotAllowed {
        /// The methods, for the header `Allow`.
        allow: &'r str,
    },
    /// No route.
    None,
}

/// All routes, laid out for look-up.
#[derive(Debug, Default)]
pub struct Router {
    hosts: HostTable,
}

impl Router {
    /// Lays the routes out; their order counts for regexes only.
    #[must_use]
    pub fn new(routes: &[RouteKey<'_>]) -> Self {
        let mut hosts = HostTable::default();
        for (index, route) in routes.iter().enumerate() {
            if let Some(path) = route.path {
                hosts.group(route.host).insert(path, route.methods, index);
            }
        }
        hosts.finish();
        Self { hosts }
    }

    /// Finds a route. `host` is the request's, in any case, with or without port; `path` is the
    /// decoded and normalised path, which may be any bytes.
    pub fn find(&self, host: &str, path: impl AsRef<[u8]>, method: &str) -> Found<'_> {
        let path = path.as_ref();
        let own = self.hosts.find(host).and_then(|group| group.find(path));
        match own.or_else(|| self.hosts.any().find(path)) {
            Some(choice) => choice.pick(method),
            None => Found::None,
        }
    }
}
