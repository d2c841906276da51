//! As written becomes as meant: names are bound, paths looked up, texts given their types, and what
//! contradicts itself is reported.
//!
//! A value that is wrong has a stand-in, so that the rest of the file is still checked; a
//! configuration with a fault never leaves this module's caller.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::diagnostic::Reporter;
use super::document::{Fields, Node, Value, nearest};
use super::look::Look;
use super::model::{Config, LuaHandler, LuaSource, Plugin, PluginIndex, SharedDict};
use crate::phase::Phase;

mod cache;
mod content;
mod http_cache;
mod http_client;
mod lock;
mod plugin;
mod proxy;
mod redis;
mod route;
mod server;

/// The name of the plugin that runs Lua when nothing else is said.
const LUA: &str = "lua";

/// Binds the names of a file.
pub(super) fn resolve(document: &Fields, path: &Path, reporter: &mut Reporter<'_>) -> Config {
    let root = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => PathBuf::from("."),
    };
    let empty = Fields::default();
    let file = path
        .file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy();
    let mut resolver = Resolver {
        reporter,
        chunk: format!("@{file}"),
        root: root.clone(),
        shared: Vec::new(),
        caches: Vec::new(),
        locks: Vec::new(),
        redis: Vec::new(),
        prefixes: Vec::new(),
        plugins: Vec::new(),
        route_names: HashMap::new(),
    };
    let shared_dicts = resolver.shared_dicts(document.table("shared").unwrap_or(&empty));
    resolver.shared = shared_dicts.iter().map(|dict| dict.name.clone()).collect();
    let redis = document.table("redis").unwrap_or(&empty);
    resolver.redis = redis.entries.iter().map(|e| e.name.clone()).collect();
    let redis = resolver.redis_servers(redis);
    let redis: Vec<_> = redis.into_iter().map(std::sync::Arc::new).collect();
    let mut caches = resolver.caches(document.table("cache").unwrap_or(&empty), &redis);
    resolver.caches.clone_from(&caches);
    cache::add_those_of_dicts(&mut caches, &shared_dicts);
    let locks = resolver.locks(document.table("lock").unwrap_or(&empty), &redis);
    resolver.locks = locks.iter().map(|lock| lock.name.clone()).collect();
    let http_client = resolver.http_client(document.table("http_client").unwrap_or(&empty));
    resolver.plugins(document.table("plugin").unwrap_or(&empty));
    let routes = document.list("route");
    resolver.name_routes(routes);
    let server = resolver.server(document.table("server").unwrap_or(&empty));
    let routes = resolver.routes(routes, &server);
    let plugins = resolver.plugins;
    Config {
        path: path.to_owned(),
        look: None,
        root,
        server,
        shared_dicts,
        caches,
        locks,
        http_client,
        redis,
        plugins,
        routes,
    }
}

/// What is known while names are bound.
struct Resolver<'r, 't> {
    reporter: &'r mut Reporter<'t>,
    /// Lua's name for the file itself.
    chunk: String,
    root: PathBuf,
    shared: Vec<String>,
    caches: Vec<super::model::Cache>,
    locks: Vec<String>,
    redis: Vec<String>,
    /// Whose the prefixes of keys are: the Redis, the prefix, the table.
    prefixes: Vec<(String, String, String)>,
    plugins: Vec<Plugin>,
    /// A route's place by its name.
    route_names: HashMap<String, usize>,
}

impl Resolver<'_, '_> {
    fn error(&mut self, span: &Range<usize>, message: impl Into<String>) {
        self.reporter.error(span, message);
    }

    /// What one table writes another would take for its own.
    fn own_prefix(&mut self, redis: &str, prefix: &str, table: String, span: &Range<usize>) {
        let of = |(name, taken, _): &&(String, String, String)| name == redis && taken == prefix;
        if let Some((.., owner)) = self.prefixes.iter().find(of) {
            let message = format!(
                "[{owner}] has the prefix `{prefix}` in that Redis: each table has one of its own"
            );
            self.error(span, message);
        }
        let taken = (redis.to_owned(), prefix.to_owned(), table);
        self.prefixes.push(taken);
    }

    /// The value of a parse; a fault goes to the reporter.
    fn parsed<T>(&mut self, outcome: Result<T, String>, span: &Range<usize>) -> Option<T> {
        outcome
            .map_err(|message| self.reporter.error(span, message))
            .ok()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The file that a key names; it has to exist.
    fn file(&mut self, fields: &Fields, key: &str) -> Option<PathBuf> {
        let (path, span) = fields.text(key)?;
        let full = self.path(path);
        if !full.is_file() {
            let message = format!("`{path}`: no such file (looked at {})", full.display());
            self.error(span, message);
        }
        Some(full)
    }

    /// A folder that has to exist.
    fn folder(&mut self, path: &str, span: &Range<usize>) -> PathBuf {
        let full = self.path(path);
        if !full.is_dir() {
            let what = if full.exists() {
                "not a folder"
            } else {
                "no such folder"
            };
            self.error(
                span,
                format!("`{path}`: {what} (looked at {})", full.display()),
            );
        }
        full
    }

    fn shared_dicts(&mut self, tables: &Fields) -> Vec<SharedDict> {
        let mut dicts = Vec::new();
        for entry in &tables.entries {
            self.check_name(&entry.name, &entry.span);
            let size = entry
                .node
                .table()
                .and_then(|fields| fields.size("size"))
                .unwrap_or(0);
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            let waiters = entry
                .node
                .table()
                .and_then(|fields| fields.integer("waiters"))
                .unwrap_or(0);
            dicts.push(SharedDict {
                name: entry.name.clone(),
                size,
                waiters: usize::try_from(waiters).unwrap_or(0),
            });
        }
        dicts
    }

    /// Names stand in URLs, logs and metrics, so they are kept plain.
    fn check_name(&mut self, name: &str, span: &Range<usize>) {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || !name.bytes().all(fits) {
            let message = format!("`{name}` is not a name: use letters, digits, `-`, `_` and `.`");
            self.error(span, message);
        }
    }

    /// The plugin of a name.
    fn plugin_index(&mut self, name: &str, span: &Range<usize>) -> Option<PluginIndex> {
        let found = self.plugins.iter().position(|plugin| plugin.name == name);
        if found.is_none() {
            let known = self.plugins.iter().map(|plugin| plugin.name.as_str());
            let hint = match nearest(name, known) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => format!("add [plugin.{name}]"),
            };
            self.error(span, format!("there is no plugin `{name}`: {hint}"));
        }
        found
    }

    /// A list of plugins; `inherited` run already.
    fn plugin_list(&mut self, nodes: &[Node], inherited: &[PluginIndex]) -> Vec<PluginIndex> {
        let mut list: Vec<PluginIndex> = inherited.to_vec();
        for node in nodes {
            let Some(name) = node.text() else { continue };
            let Some(index) = self.plugin_index(name, &node.span) else {
                continue;
            };
            if inherited.contains(&index) {
                let message = format!("`{name}` runs on every route already: [server] names it");
                self.error(&node.span, message);
            } else if list.contains(&index) {
                self.error(
                    &node.span,
                    format!("`{name}` is in this list twice: take one out"),
                );
            } else {
                list.push(index);
            }
        }
        list
    }

    /// The Lua of a `lua` table in the order of the phases.
    fn lua_handlers(&mut self, table: Option<&Fields>) -> Vec<LuaHandler> {
        let Some(table) = table else {
            return Vec::new();
        };
        let vm = table.text("vm");
        let mut handlers = Vec::new();
        for phase in Phase::ALL {
            let Some(node) = table.node(phase.name()) else {
                continue;
            };
            handlers.extend(self.lua_handler(node, phase, vm));
        }
        if let (Some((_, span)), true) = (vm, handlers.is_empty()) {
            self.error(
                span,
                "`vm` chooses who runs Lua, but there is no Lua here: take it out",
            );
        }
        handlers
    }

    /// Lua of one phase.
    fn lua_handler(
        &mut self,
        node: &Node,
        phase: Phase,
        vm: Option<(&str, &Range<usize>)>,
    ) -> Option<LuaHandler> {
        let source = self.lua_source(node)?;
        let plugin = match vm {
            Some((name, span)) if name != LUA => {
                let index = self.plugin_index(name, span)?;
                self.must_be_lua(index, span)?
            }
            _ => self.default_lua(&node.span)?,
        };
        Some(LuaHandler {
            phase,
            plugin,
            source,
        })
    }

    fn must_be_lua(&mut self, index: PluginIndex, span: &Range<usize>) -> Option<PluginIndex> {
        if self.plugins[index].component.is_lua() {
            return Some(index);
        }
        let name = &self.plugins[index].name;
        let message =
            format!("`{name}` does not run Lua: its `component` would be \"bundled:lua\"");
        self.error(span, message);
        None
    }

    /// The plugin `lua`, which need not be written in the file.
    fn default_lua(&mut self, span: &Range<usize>) -> Option<PluginIndex> {
        if let Some(index) = self.plugins.iter().position(|plugin| plugin.name == LUA) {
            return self.must_be_lua(index, span);
        }
        self.plugins.push(plugin::implicit_lua(LUA));
        Some(self.plugins.len() - 1)
    }

    fn lua_source(&mut self, node: &Node) -> Option<LuaSource> {
        match &node.value {
            Value::LuaInline(source, line) => Some(LuaSource {
                chunk: self.chunk.clone(),
                line: *line,
                source: source.clone(),
                file: None,
                look: None,
            }),
            Value::LuaFile(path) => {
                let full = self.path(path);
                match Look::read(&full) {
                    Ok((source, look)) => Some(LuaSource {
                        chunk: format!("@{path}"),
                        line: 1,
                        source,
                        file: Some(full),
                        look,
                    }),
                    Err(error) => {
                        let message =
                            format!("cannot read the Lua file {}: {error}", full.display());
                        self.error(&node.span, message);
                        None
                    }
                }
            }
            _ => None,
        }
    }
}
