//! A plugin as it is meant: its component, what it gets, what it may do and use up, and the Lua that
//! it runs.

use std::path::PathBuf;
use std::time::Duration;

use super::{PluginIndex, RedisRule};
use crate::config::look::Look;
use crate::config::value::{HostPort, Origin};
use crate::phase::Phase;

/// `[plugin.NAME]`.
#[derive(Debug, Clone)]
pub struct Plugin {
    /// Its name.
    pub name: String,
    /// Its line in the file; 0 for the Lua plugin that the file does not name.
    pub line: usize,
    /// Its component.
    pub component: Component,
    /// Its `config` table, a JSON object. Of a Lua plugin without `init`, `init_worker` and
    /// `exit_worker`: they are in [`Self::lua`].
    pub config: serde_json::Value,
    /// What it may do.
    pub allow: Allow,
    /// What it may use up.
    pub limits: Limits,
    /// Its sockets.
    pub cosocket: Cosocket,
    /// How instances and requests go together.
    pub isolation: Isolation,
    /// Lua of `config`, in the order of the phases (`init`, `init_worker`, `exit_worker`); only of
    /// a Lua plugin.
    pub lua: Vec<LuaHandler>,
}

/// Modules are looked for in `lua/` unless the configuration says where.
const MODULES: &str = "lua/?.lua;lua/?/init.lua";

impl Plugin {
    /// `config.path`; `;;` in it stands for the default, as in `lua_package_path`.
    #[must_use]
    pub fn module_path(&self) -> String {
        let path = self.config.get("path").and_then(serde_json::Value::as_str);
        path.unwrap_or(MODULES)
            .replace(";;", &format!(";{MODULES};"))
    }
}

/// Where a component comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Component {
    /// A file, which existed when the configuration was read.
    File(PathBuf),
    /// One that is part of the server: `"bundled:NAME"`.
    Bundled(String),
}

impl Component {
    /// Whether this is a Lua runtime: the bundled one, or a file called `lua.wasm`.
    #[must_use]
    pub fn is_lua(&self) -> bool {
        match self {
            Self::Bundled(name) => name == "lua",
            Self::File(path) => path.file_name().is_some_and(|name| name == "lua.wasm"),
        }
    }
}

/// How instances and requests go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// An instance serves one request after the other.
    #[default]
    Pooled,
    /// A fresh instance for every request.
    Request,
}

/// What a plugin may use up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory in bytes; `None` takes the default, see [`Self::memory`].
    pub memory: Option<usize>,
    /// CPU time of one call of a handler.
    pub cpu: Duration,
    /// Wall-clock time of one exchange in this plugin, waiting included.
    pub deadline: Duration,
    /// How long a language runtime may hold its worker at a stretch before it is given up.
    pub watchdog: Duration,
    /// Instances per worker.
    pub instances: usize,
    /// Requests per worker that wait for an instance; more get 503.
    pub queue: usize,
}

impl Default for Limits {
    /// What the directives' defaults say; a test compares the two.
    fn default() -> Self {
        Self {
            memory: None,
            cpu: Duration::from_millis(50),
            deadline: Duration::from_secs(60),
            watchdog: Duration::from_secs(10),
            instances: 64,
            queue: 1024,
        }
    }
}

impl Limits {
    /// Linear memory of an ordinary component when the file says nothing.
    pub const MEMORY: usize = 64 << 20;
    /// Linear memory of a reactor when the file says nothing: it holds many requests.
    pub const MEMORY_REACTOR: usize = 256 << 20;

    /// The limit of linear memory in bytes.
    #[must_use]
    pub fn memory(&self, reactor: bool) -> usize {
        let default = if reactor {
            Self::MEMORY_REACTOR
        } else {
            Self::MEMORY
        };
        self.memory.unwrap_or(default)
    }
}

/// `[plugin.NAME] cosocket`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosocket {
    /// Authorities; `None`: the public ones.
    pub ca: Option<PathBuf>,
    /// For servers that ask; with its key.
    pub certificate: Option<PathBuf>,
    /// There when the certificate is.
    pub key: Option<PathBuf>,
    /// How long a connection or a handshake may take.
    pub connect_timeout: Duration,
    /// The longest pause between two writes.
    pub send_timeout: Duration,
    /// The longest pause between two reads.
    pub read_timeout: Duration,
    /// The most that one `receive` of Lua gathers.
    pub receive_limit: usize,
    /// Idle connections that a pool keeps.
    pub pool_size: usize,
    /// How long a connection stays idle; zero is no limit.
    pub keepalive_timeout: Duration,
    /// Idle connections of all its pools, per worker.
    pub max_idle: usize,
    /// Names whose addresses a worker remembers.
    pub names: usize,
    /// How long it does.
    pub names_valid: Duration,
}

impl Default for Cosocket {
    /// What the directives' defaults say; a test compares the two.
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self {
            ca: None,
            certificate: None,
            key: None,
            connect_timeout: minute,
            send_timeout: minute,
            read_timeout: minute,
            receive_limit: 16 << 20,
            pool_size: 30,
            keepalive_timeout: minute,
            max_idle: 4096,
            names: 1024,
            names_valid: Duration::from_secs(5),
        }
    }
}

/// What a plugin may do; nothing unless it is named here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allow {
    /// Hosts and ports, and unix sockets, for cosockets.
    pub connect: Grant<SocketRule>,
    /// Origins for the HTTP client.
    pub http: Grant<Origin>,
    /// Shared dicts, by name.
    pub shared: Grant<String>,
    /// Caches, by name.
    pub cache: Grant<String>,
    /// Locks, by name.
    pub lock: Grant<String>,
    /// Targets of requests inside the server.
    pub subrequest: Grant<InnerTarget>,
    /// Redis commands.
    pub redis: Grant<RedisRule>,
    /// Folders.
    pub files: Vec<FileGrant>,
    /// Environment variables, by name.
    pub env: Grant<String>,
}

/// Where sockets may go: a host's port, a unix socket, or all unix sockets below a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketRule {
    /// A host and a port.
    Address(HostPort),
    /// A path, or the beginning of all that are allowed.
    Unix {
        /// Absolute.
        path: String,
        /// Whether more may follow.
        prefix: bool,
    },
}

impl SocketRule {
    /// `"HOST:PORT"`, `"unix:/path"`, `"unix:/folder/*"`.
    ///
    /// # Errors
    /// A text for whoever wrote something else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(path) = text.strip_prefix("unix:") else {
            return HostPort::parse(text).map(Self::Address);
        };
        let (plain, prefix) = match path.strip_suffix("/*") {
            Some(folder) => (format!("{folder}/"), true),
            None => (path.to_owned(), false),
        };
        if !plain.starts_with('/') || plain.contains('*') || has_dots(&plain) {
            return Err(format!(
                "`{text}` is no unix socket: write \"unix:/run/app.sock\" or \"unix:/run/app/*\""
            ));
        }
        Ok(Self::Unix {
            path: plain,
            prefix,
        })
    }

    /// Whether a connection is covered; a host `unix:/path` is a unix socket, and never a host.
    #[must_use]
    pub fn fits(&self, host: &str, port: u16) -> bool {
        match (self, host.strip_prefix("unix:")) {
            (Self::Address(rule), None) => rule.fits(host, port),
            (
                Self::Unix {
                    path,
                    prefix: false,
                },
                Some(asked),
            ) => path == asked,
            (Self::Unix { path, prefix: true }, Some(asked)) => {
                asked.starts_with(path.as_str()) && !has_dots(asked)
            }
            (Self::Address(_), Some(_)) | (Self::Unix { .. }, None) => false,
        }
    }
}

/// Whether a path goes up again.
fn has_dots(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

/// A route by its name, a path, or all paths that begin so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InnerTarget {
    text: String,
    prefix: bool,
}

impl InnerTarget {
    /// `"@name"`, `"/path"`, `"/path/*"`.
    ///
    /// # Errors
    /// A text for whoever wrote something else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (plain, prefix) = match text.strip_suffix('*') {
            Some(plain) => (plain, true),
            None => (text, false),
        };
        let fine = plain.starts_with('/') || plain.starts_with('@') && plain.len() > 1 && !prefix;
        if !fine || plain.contains('*') {
            return Err(format!(
                "`{text}` is no target inside the server: write \"/path\", \"/path/*\" or \"@name\""
            ));
        }
        Ok(Self {
            text: plain.to_owned(),
            prefix,
        })
    }

    /// Whether it covers `@name` or a path as it is routed.
    #[must_use]
    pub fn fits(&self, target: &[u8]) -> bool {
        if self.prefix {
            target.starts_with(self.text.as_bytes())
        } else {
            target == self.text.as_bytes()
        }
    }
}

/// What is allowed of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant<T> {
    /// `"*"`: everything.
    All,
    /// What the list names.
    List(Vec<T>),
}

impl<T> Default for Grant<T> {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl<T> Grant<T> {
    /// Allows all, if it is to.
    pub fn widen(&mut self, all: bool) {
        if all {
            *self = Self::All;
        }
    }

    /// Whether all is allowed, or something of the list fits.
    pub fn allows(&self, fits: impl Fn(&T) -> bool) -> bool {
        match self {
            Self::All => true,
            Self::List(list) => list.iter().any(fits),
        }
    }
}

/// A folder that a plugin sees under the name that the file gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileGrant {
    /// The folder's name for the plugin, as written.
    pub name: String,
    /// The folder.
    pub path: PathBuf,
    /// Whether it may be written to (`:rw`).
    pub write: bool,
}

/// Lua code and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LuaSource {
    /// Lua's chunk name: `@phasor.toml`, `@lua/access.lua`.
    pub chunk: String,
    /// The line of that file on which `source` begins.
    pub line: usize,
    /// The code.
    pub source: String,
    /// The file that it was read from; `None` when it is inline.
    pub file: Option<PathBuf>,
    /// What that file looked like then.
    pub look: Option<Look>,
}

/// Lua that runs in a phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LuaHandler {
    /// When.
    pub phase: Phase,
    /// In which Lua plugin.
    pub plugin: PluginIndex,
    /// What.
    pub source: LuaSource,
}

#[cfg(test)]
mod tests {
    use super::SocketRule;

    fn fits(rule: &str, host: &str, port: u16) -> bool {
        SocketRule::parse(rule).unwrap().fits(host, port)
    }

    #[test]
    fn a_path_is_no_host_and_a_host_no_path() {
        assert!(fits("*:*", "example.com", 80) && !fits("*:*", "unix:/run/s", 0));
        assert!(fits("unix:/run/s", "unix:/run/s", 0) && !fits("unix:/run/s", "unix:/run/so", 0));
        assert!(fits("unix:/run/*", "unix:/run/a/s", 0) && !fits("unix:/run/*", "unix:/runs", 0));
        assert!(!fits("unix:/run/*", "unix:/run/../etc/s", 0));
        assert!(!fits("unix:/run/*", "run", 0));
        for wrong in ["unix:run", "unix:", "unix:/a*", "unix:/a/../b", "no port"] {
            assert!(SocketRule::parse(wrong).is_err(), "{wrong}");
        }
    }
}
