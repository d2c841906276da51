//! The configuration as it is meant exists as its own types, so that no later step sees a name that
//! does not resolve, a default that is missing or a value that nobody checked.
//!
//! Names are bound: a plugin is its place in [`Config::plugins`], a route its place in
//! [`Config::routes`]. Only `resolve` makes these values.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::look::Look;
use super::value::{Cidr, HostPattern, PathPattern, Template};
use crate::observe::error_log::Level;

mod cache;
mod http_cache;
mod http_client;
mod lock;
mod plugin;
mod redis;

pub use cache::{Cache, DiskLevel, RemoteLevel};
pub use http_cache::HttpCache;
pub use http_client::HttpClient;
pub use lock::{Lock, RemoteLocks};
pub use redis::{Redis, RedisAddress, RedisKind, RedisRule, RedisUrl};

pub use plugin::{
    Allow, Component, Cosocket, FileGrant, Grant, InnerTarget, Isolation, Limits, LuaHandler,
    LuaSource, Plugin, SocketRule,
};

/// A plugin's place in [`Config::plugins`].
pub type PluginIndex = usize;
/// A route's place in [`Config::routes`].
pub type RouteIndex = usize;

/// A checked configuration: every name bound, every default filled in.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that it was read from.
    pub path: PathBuf,
    /// What that file looked like when it was read.
    pub look: Option<Look>,
    /// The folder of that file: what relative paths start from.
    pub root: PathBuf,
    /// `[server]`.
    pub server: Server,
    /// `[shared.NAME]`, in the file's order.
    pub shared_dicts: Vec<SharedDict>,
    /// `[cache.NAME]`, in the file's order.
    pub caches: Vec<Cache>,
    /// `[lock.NAME]`, in the file's order.
    pub locks: Vec<Lock>,
    /// `[redis.NAME]`, in the file's order.
    pub redis: Vec<std::sync::Arc<Redis>>,
    /// `[http_client]`.
    pub http_client: HttpClient,
    /// `[plugin.NAME]`, in the file's order. The bundled Lua plugin is there when Lua is used,
    /// written in the file or not.
    pub plugins: Vec<Plugin>,
    /// `[[route]]`, in the file's order.
    pub routes: Vec<Route>,
}

impl Config {
    /// Every file that it depends on: itself, components and Lua; what a watcher watches. Those that
    /// have been read with what they looked like then.
    pub fn files(&self) -> impl Iterator<Item = (&Path, Option<Look>)> {
        let components = self
            .plugins
            .iter()
            .filter_map(|plugin| match &plugin.component {
                Component::File(path) => Some((path.as_path(), None)),
                Component::Bundled(_) => None,
            });
        let lua = self.lua_handlers().filter_map(|handler| {
            let source = &handler.source;
            Some((source.file.as_deref()?, source.look))
        });
        std::iter::once((self.path.as_path(), self.look))
            .chain(components)
            .chain(lua)
    }

    /// The folders in which `require` looks for modules, each once.
    #[must_use]
    pub fn module_folders(&self) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        for plugin in self.plugins.iter().filter(|p| p.component.is_lua()) {
            for pattern in plugin.module_path().split(';') {
                let Some((before, _)) = pattern.split_once('?') else {
                    continue;
                };
                let folder = before.rsplit_once('/').map_or("", |(folder, _)| folder);
                let folder = self.root.join(folder);
                if !folders.contains(&folder) {
                    folders.push(folder);
                }
            }
        }
        folders
    }

    /// All Lua of the file.
    pub fn lua_handlers(&self) -> impl Iterator<Item = &LuaHandler> {
        let of_plugins = self.plugins.iter().flat_map(|plugin| &plugin.lua);
        let of_routes = self.routes.iter().flat_map(|route| {
            let content = match &route.content {
                Some(Content::Lua(handler)) => Some(handler),
                _ => None,
            };
            let set = route
                .set
                .iter()
                .filter_map(|variable| match &variable.value {
                    SetValue::Lua(handler) => Some(handler),
                    SetValue::Template(_) | SetValue::Plugin(_) => None,
                });
            set.chain(&route.lua).chain(content)
        });
        of_plugins.chain(&self.server.lua).chain(of_routes)
    }

    /// The place of a plugin of this name.
    #[must_use]
    pub fn plugin(&self, name: &str) -> Option<PluginIndex> {
        self.plugins.iter().position(|plugin| plugin.name == name)
    }

    /// The place of the route of this name, without `@`.
    #[must_use]
    pub fn route(&self, name: &str) -> Option<RouteIndex> {
        self.routes
            .iter()
            .position(|route| route.name.as_deref() == Some(name))
    }
}

/// `[server]`.
#[derive(Debug, Clone)]
pub struct Server {
    /// Where to listen; never empty.
    pub listen: Vec<Listen>,
    /// How many workers; `None` is one per core.
    pub workers: Option<NonZeroUsize>,
    /// Plugins of every route, before the route's own.
    pub plugins: Vec<PluginIndex>,
    /// Reload when the file, a component or a Lua file changes.
    pub watch: bool,
    /// Compiled code on disk.
    pub compile_cache: CompileCache,
    /// Where the pid file lies.
    pub pid: PidPlace,
    /// The longest request body in bytes; `u64::MAX` when it has no limit.
    pub body_limit: u64,
    /// The longest request head in bytes.
    pub header_limit: usize,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// How long a request's head may take.
    pub header_timeout: Duration,
    /// The longest pause between two reads of a request's body.
    pub body_timeout: Duration,
    /// The longest pause between two writes of an answer.
    pub send_timeout: Duration,
    /// The longest silence of a connection that has left HTTP; zero is no limit.
    pub tunnel_timeout: Duration,
    /// How long requests in progress may take when the server ends.
    pub drain: Duration,
    /// Open client connections per worker.
    pub max_connections: usize,
    /// Requests per connection before it is closed.
    pub keepalive_requests: u64,
    /// How deep subrequests may nest.
    pub subrequest_depth: u32,
    /// Subrequests of one request at a time.
    pub subrequests: u32,
    /// The longest body of a subrequest's answer; 0 is no limit.
    pub subrequest_body_limit: u64,
    /// One line per request.
    pub access_log: AccessLog,
    /// What the server and its plugins have to say.
    pub error_log: ErrorLog,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Cidr>,
    /// Lua of every route, in the order of the phases (`server_rewrite` too).
    pub lua: Vec<LuaHandler>,
    /// Error pages of routes that have none of their own.
    pub error_page: Vec<ErrorPage>,
}

/// A bound address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// Address and port.
    pub address: SocketAddr,
    /// Waiting connections that the kernel keeps.
    pub backlog: u32,
}

/// `compile_cache`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileCache {
    /// Its folder; `None` is the usual one.
    pub path: Option<PathBuf>,
    /// Its bytes; 0 is no cache.
    pub size: u64,
}

/// `pid`: the file that holds the server's number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PidPlace {
    /// A place that follows from the configuration's path.
    #[default]
    Default,
    /// `"off"`: there is none.
    Off,
    /// This file.
    File(PathBuf),
}

/// Where a log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// `"-"`: standard output for the access log, standard error for the error log.
    Standard,
    /// `"off"`: nowhere.
    Off,
    /// A file, opened for appending.
    File(PathBuf),
}

/// `access_log`.
#[derive(Debug, Clone)]
pub struct AccessLog {
    /// Where it goes.
    pub target: LogTarget,
    /// What a line looks like.
    pub format: AccessLogFormat,
}

/// What a line of the access log looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// nginx's `combined`.
    Combined,
    /// One JSON object per line.
    Json,
    /// A template with `$variables`.
    Template(Template),
}

/// `error_log`.
#[derive(Debug, Clone)]
pub struct ErrorLog {
    /// Where it goes.
    pub target: LogTarget,
    /// The least severe level that is written.
    pub level: Level,
    /// What a line looks like.
    pub format: ErrorLogFormat,
}

/// What a line of the error log looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorLogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// `[shared.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedDict {
    /// `ngx.shared.NAME`.
    pub name: String,
    /// Its bytes.
    pub size: usize,
    /// How many may wait at it.
    pub waiters: usize,
}

/// `[[route]]`.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its name, without `@`.
    pub name: Option<String>,
    /// Clients do not reach it: `exec`, `error_page`, a changed URI and subrequests do.
    pub internal: bool,
    /// Its line in the file.
    pub line: usize,
    /// Which hosts.
    pub host: HostPattern,
    /// Which paths; `None` when it is reached by name only.
    pub path: Option<PathPattern>,
    /// Which methods; empty: all. `HEAD` is in the list whenever `GET` is.
    pub methods: Vec<String>,
    /// The server's plugins, then its own.
    pub plugins: Vec<PluginIndex>,
    /// Its variables, in the file's order.
    pub set: Vec<SetVariable>,
    /// Its Lua but for the content, in the order of the phases; the server's comes first in each
    /// phase.
    pub lua: Vec<LuaHandler>,
    /// What makes the answer; `None` is 404.
    pub content: Option<Content>,
    /// What keeps the answers.
    pub cache: Option<HttpCache>,
    /// The longest request body in bytes, the server's if the route has none; `u64::MAX` when it
    /// has no limit.
    pub body_limit: u64,
    /// Its error pages, then the server's for the statuses that it does not name.
    pub error_page: Vec<ErrorPage>,
}

/// A variable of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetVariable {
    /// Its name, without `$`.
    pub name: String,
    /// Its value.
    pub value: SetValue,
}

/// Where a variable's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetValue {
    /// Text with `$variables`.
    Template(Template),
    /// Lua that returns it (phase `set`).
    Lua(LuaHandler),
    /// A plugin that exports `set`.
    Plugin(PluginIndex),
}

/// What makes a route's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A fixed answer.
    Respond(Respond),
    /// Files of a folder.
    Files(Files),
    /// A plugin that exports `content`.
    Plugin(PluginIndex),
    /// A server that is asked.
    Proxy(Proxy),
    /// Lua.
    Lua(LuaHandler),
}

/// `proxy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// `http` or `https`.
    pub scheme: String,
    /// Host and port.
    pub authority: String,
    /// The path that takes the place of what the route matched; `None` passes the path as it came.
    pub base: Option<String>,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// The longest pause between two writes of the request.
    pub send_timeout: Duration,
    /// The longest pause between two reads of the answer.
    pub read_timeout: Duration,
    /// Idle connections per worker.
    pub keepalive: usize,
    /// How long they are kept.
    pub keepalive_timeout: Duration,
    /// Authorities of TLS, as a PEM file.
    pub ca: Option<PathBuf>,
}

/// `respond`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Respond {
    /// The status.
    pub status: u16,
    /// Headers, in the file's order; `content_type` is among them.
    pub headers: Vec<(String, Template)>,
    /// The body.
    pub body: Template,
}

/// `files`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The folder, which existed when the configuration was read.
    pub root: PathBuf,
    /// What to look for in a folder, in this order.
    pub index: Vec<String>,
    /// Whether a folder without index is listed.
    pub listing: bool,
}

/// `error_page`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorPage {
    /// The status that it replaces.
    pub status: u16,
    /// What answers instead.
    pub target: ErrorTarget,
}

/// What answers instead of an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorTarget {
    /// `"@name"`.
    Route(RouteIndex),
    /// A URI of this server.
    Uri(String),
}
