//! `[[route]]` is resolved last: it names plugins, Lua runtimes and other routes, and two routes
//! may contradict each other.

use std::ops::Range;

use super::super::document::{Entry, Fields, Node, Value};
use super::super::model::{ErrorPage, LuaHandler, Route, Server, SetValue, SetVariable};
use super::super::value::{HostPattern, PathPattern, is_variable_name};
use super::Resolver;
use super::server::body_limit;
use crate::phase::Phase;

/// What HTTP's registry and nginx know; anything else in capitals is taken as it is.
const METHODS: &[&str] = &[
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "OPTIONS",
    "PATCH",
    "TRACE",
    "CONNECT",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
];

impl Resolver<'_, '_> {
    /// Notes the routes' names, so that what stands before a route can name it.
    pub(super) fn name_routes(&mut self, nodes: &[Node]) {
        for (index, node) in nodes.iter().enumerate() {
            let Some((name, span)) = node.table().and_then(|fields| fields.text("name")) else {
                continue;
            };
            if let Some(plain) = name.strip_prefix('@') {
                self.error(
                    span,
                    format!("a name is written without `@` here: \"{plain}\""),
                );
                continue;
            }
            self.check_name(name, span);
            if let Some(first) = self.route_names.get(name) {
                let line = self.reporter.line_of(nodes[*first].span.start);
                let message = format!("the route on line {line} has the name `{name}` already");
                self.error(span, message);
            } else {
                self.route_names.insert(name.to_owned(), index);
            }
        }
    }

    pub(super) fn routes(&mut self, nodes: &[Node], server: &Server) -> Vec<Route> {
        let mut routes: Vec<Route> = Vec::with_capacity(nodes.len());
        for node in nodes {
            let Some(fields) = node.table() else { continue };
            let route = self.route(node, fields, server);
            self.check_duplicate(&route, &routes, fields, &node.span);
            routes.push(route);
        }
        routes
    }

    fn route(&mut self, node: &Node, fields: &Fields, server: &Server) -> Route {
        let path = self.route_path(fields, &node.span);
        let host = match fields.text("host") {
            Some((text, span)) => self.parsed(HostPattern::parse(text), span),
            None => None,
        };
        let lua = self.lua_handlers(fields.table("lua"));
        let (content, lua): (Vec<_>, Vec<_>) = lua
            .into_iter()
            .partition(|handler| handler.phase == Phase::Content);
        Route {
            name: fields.text("name").map(|(name, _)| name.to_owned()),
            internal: fields.boolean("internal"),
            line: self.reporter.line_of(node.span.start),
            host: host.unwrap_or(HostPattern::Any),
            path,
            methods: self.methods(fields.list("methods")),
            plugins: self.plugin_list(fields.list("plugins"), &server.plugins),
            set: self.set(fields.table("set")),
            lua: with_inherited(lua, &server.lua),
            content: self.content(fields, content.into_iter().next()),
            cache: fields.node("cache").and_then(|node| self.http_cache(node)),
            body_limit: body_limit(fields).unwrap_or(server.body_limit),
            error_page: inherit_pages(self.error_page(fields), &server.error_page),
        }
    }

    fn route_path(&mut self, fields: &Fields, span: &Range<usize>) -> Option<PathPattern> {
        let is_final = fields.boolean("final");
        match (fields.text("path"), fields.text("regex")) {
            (Some(_), Some((_, span))) => {
                self.error(
                    span,
                    "a route has `path` or `regex`, not both: take one out",
                );
                None
            }
            (Some((path, span)), None) => self.parsed(PathPattern::parse(path, is_final), span),
            (None, regex) => {
                if let (true, Some(entry)) = (is_final, fields.entry("final")) {
                    let message = "`final` is for a prefix: it needs `path` with `*` at its end";
                    self.error(&entry.span, message);
                }
                if let Some((regex, span)) = regex {
                    return self.parsed(PathPattern::parse_regex(regex), span);
                }
                self.check_named_only(fields, span);
                None
            }
        }
    }

    /// A route without a path must have a name, and then nothing that looks at the request.
    fn check_named_only(&mut self, fields: &Fields, span: &Range<usize>) {
        if fields.entry("name").is_none() {
            if !fields.is_broken {
                self.error(
                    span,
                    "a route needs `path`, `regex` or `name`: add path = \"/\", for example",
                );
            }
            return;
        }
        for name in ["host", "methods"] {
            if let Some(entry) = fields.entry(name).filter(|entry| entry.given) {
                let message = format!(
                    "`{name}` means nothing on a route that is reached by name only: add `path`, or take it out"
                );
                self.error(&entry.span, message);
            }
        }
    }

    pub(super) fn methods(&mut self, nodes: &[Node]) -> Vec<String> {
        let mut methods: Vec<String> = Vec::new();
        for node in nodes {
            let Some(text) = node.text() else { continue };
            let upper = text.to_ascii_uppercase();
            let is_token = !text.is_empty() && text.bytes().all(is_token_byte);
            if !is_token {
                self.error(
                    &node.span,
                    format!("`{text}` is not a method: write \"GET\", for example"),
                );
            } else if text != upper && METHODS.contains(&upper.as_str()) {
                let message =
                    format!("`{text}` is not a method: methods are in capitals; write \"{upper}\"");
                self.error(&node.span, message);
            } else if methods.iter().any(|method| method == text) {
                self.error(
                    &node.span,
                    format!("`{text}` is in this list twice: take one out"),
                );
            } else {
                methods.push(text.to_owned());
            }
        }
        let has = |name: &str| methods.iter().any(|method| method == name);
        if has("GET") && !has("HEAD") {
            methods.push("HEAD".to_owned());
        }
        methods
    }

    fn set(&mut self, table: Option<&Fields>) -> Vec<SetVariable> {
        let mut variables = Vec::new();
        for entry in table.map_or(&[][..], |table| &table.entries) {
            let name = &entry.name;
            if !is_variable_name(name) {
                let message = format!(
                    "`{name}` is not a variable's name: use letters, digits and `_`, without `$`"
                );
                self.error(&entry.span, message);
            }
            let value = self.set_value(entry);
            variables.extend(value.map(|value| SetVariable {
                name: name.clone(),
                value,
            }));
        }
        variables
    }

    fn set_value(&mut self, entry: &Entry) -> Option<SetValue> {
        let fields = match &entry.node.value {
            Value::Template(template) => return Some(SetValue::Template(template.clone())),
            Value::Table(fields) => fields,
            _ => return None,
        };
        match (fields.node("lua"), fields.text("plugin")) {
            (Some(node), None) => self
                .lua_handler(node, Phase::Set, fields.text("vm"))
                .map(SetValue::Lua),
            (None, Some((name, span))) => {
                if let Some(entry) = fields.entry("vm") {
                    self.error(&entry.span, "`vm` is for `lua`: take it out");
                }
                self.plugin_index(name, span).map(SetValue::Plugin)
            }
            (Some(_), Some(_)) => {
                self.error(
                    &entry.node.span,
                    "a variable has `lua` or `plugin`, not both: take one out",
                );
                None
            }
            (None, None) => {
                let message = "expected a string, { lua = \"return …\" } or { plugin = \"NAME\" }";
                if !fields.is_broken {
                    self.error(&entry.node.span, message);
                }
                None
            }
        }
    }

    fn check_duplicate(
        &mut self,
        route: &Route,
        others: &[Route],
        fields: &Fields,
        span: &Range<usize>,
    ) {
        if route.path.is_none() {
            return;
        }
        let same = |other: &&Route| {
            other.host == route.host
                && same_path(other.path.as_ref(), route.path.as_ref())
                && shares_method(&other.methods, &route.methods)
        };
        let Some(other) = others.iter().find(same) else {
            return;
        };
        let place = fields.entry("path").or_else(|| fields.entry("regex"));
        let place = place.map_or(span, |entry| &entry.node.span);
        let what = match (&route.host, route.methods.is_empty()) {
            (HostPattern::Any, true) => "this path",
            (HostPattern::Any, false) => "this path and method",
            (_, true) => "this host and path",
            (_, false) => "this host, path and method",
        };
        let line = other.line;
        self.error(
            place,
            format!("the route on line {line} has {what} already: only one can answer"),
        );
    }
}

/// `final` makes no difference to which requests a prefix fits.
fn same_path(one: Option<&PathPattern>, two: Option<&PathPattern>) -> bool {
    match (one, two) {
        (
            Some(PathPattern::Prefix { prefix: one, .. }),
            Some(PathPattern::Prefix { prefix: two, .. }),
        ) => one == two,
        (one, two) => one == two,
    }
}

/// A route for all methods takes those that a route for some leaves, so these two may stand
/// together.
fn shares_method(one: &[String], two: &[String]) -> bool {
    match (one.is_empty(), two.is_empty()) {
        (true, true) => true,
        (false, false) => one.iter().any(|method| two.contains(method)),
        (true, false) | (false, true) => false,
    }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The server's Lua, then the route's, phase by phase; what runs before a route is found stays with
/// the server.
fn with_inherited(own: Vec<LuaHandler>, server: &[LuaHandler]) -> Vec<LuaHandler> {
    let inherited = server
        .iter()
        .filter(|handler| handler.phase != Phase::ServerRewrite);
    let mut all: Vec<_> = inherited.cloned().chain(own).collect();
    // The sort is stable: the server's stays first.
    all.sort_by_key(|handler| handler.phase);
    all
}

fn inherit_pages(mut own: Vec<ErrorPage>, server: &[ErrorPage]) -> Vec<ErrorPage> {
    for page in server {
        if !own.iter().any(|known| known.status == page.status) {
            own.push(page.clone());
        }
    }
    own
}
