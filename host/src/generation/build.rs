//! Builds a generation beside the one that serves; a failure changes nothing.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::Generation;
use super::plans::Planner;
use super::program::Program;
use crate::access_log::{AccessLog, Format};
use crate::api::PluginInfo;
use crate::cache::Cache;
use crate::config::model::{
    AccessLogFormat, Component, Config, Cosocket, LogTarget, Plugin as PluginConfig, Route,
    SharedDict,
};
use crate::config::{Diagnostic, Diagnostics};
use crate::cosocket;
use crate::lock::Locks;
use crate::observe::log_file::Target;
use crate::phase::{Phase, PhaseSet};
use crate::plugin::elsewhere::OtherThreads;
use crate::plugin::{Loaded, Plugin, Runtime, WorkerHandlers, image};
use crate::router::{RouteKey, Router};
use crate::shared_dict::{Dicts, Registry, Wanted};
use crate::tls_client::Trust;

/// The components that are part of the server.
const BUNDLED: &[(&str, &[u8])] = &[
    ("lua", include_bytes!("../../../plugins/bundled/lua.wasm")),
    ("demo", include_bytes!("../../../plugins/bundled/demo.wasm")),
];

/// Why a generation could not be built: everything that is wrong, with its place.
#[derive(Debug)]
pub struct BuildError(pub Diagnostics);

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for BuildError {}

/// Builds generations, one after the other; what outlives a generation is here.
pub struct Builder {
    runtime: Arc<Runtime>,
    dicts: Registry,
    /// Those of the generation that is being built.
    opened: Arc<Dicts>,
    opened_caches: Vec<Arc<Cache>>,
    opened_locks: Vec<Arc<Locks>>,
    caches: crate::cache::Registry,
    locks: crate::lock::Registry,
    seed: u64,
    built: u64,
    access: Option<(LogTarget, Arc<AccessLog>)>,
}

struct Part {
    bytes: Vec<u8>,
    loaded: Loaded,
    bundled: bool,
}

impl Builder {
    /// A builder for a process.
    #[must_use]
    pub fn new(runtime: Arc<Runtime>, seed: u64) -> Self {
        Self {
            runtime,
            dicts: Registry::new(),
            opened: Arc::default(),
            opened_caches: Vec::new(),
            opened_locks: Vec::new(),
            caches: crate::cache::Registry::default(),
            locks: crate::lock::Registry::default(),
            seed,
            built: 0,
            access: None,
        }
    }

    /// Builds.
    ///
    /// # Errors
    /// All that is wrong with components, plans and `init` handlers.
    pub async fn build(&mut self, config: Config) -> Result<Arc<Generation>, BuildError> {
        let dicts: Vec<_> = config.shared_dicts.iter().map(wanted).collect();
        self.opened = self.dicts.open(&dicts);
        let caches = self.open_caches(&config)?;
        self.opened_caches.clone_from(&caches.caches);
        self.opened_locks = self.locks.open_all(&config.locks);
        let parts = self.load_all(&config)?;
        let phases: Vec<PhaseSet> = parts.iter().map(|part| part.loaded.phases).collect();
        let mut planner = Planner {
            config: &config,
            phases: &phases,
            caches: &caches.caches,
            programs: Vec::new(),
        };
        planner
            .programs
            .resize_with(config.plugins.len(), Program::default);
        let (plans, fallback) = plan_all(&config, &mut planner)?;
        let programs = planner.programs;
        let plugins = self.finish_all(&config, parts, programs).await?;
        let access = self.access(&config)?;
        let keys: Vec<_> = config
            .routes
            .iter()
            .map(|route| RouteKey {
                host: &route.host,
                path: route.path.as_ref(),
                methods: &route.methods,
            })
            .collect();
        let router = Router::new(&keys);
        let named = config
            .routes
            .iter()
            .enumerate()
            .filter_map(|(place, route)| Some((route.name.clone()?, place)))
            .collect();
        self.dicts.settle(&self.opened, &dicts);
        self.built += 1;
        let number = self.built;
        Ok(Arc::new(Generation {
            number,
            router,
            plans,
            named,
            fallback,
            plugins,
            access,
            caches,
            config,
        }))
    }

    /// Leaves what is on disk alone: a server may use it.
    #[must_use]
    pub fn dry(mut self) -> Self {
        self.caches = crate::cache::Registry::dry();
        self
    }

    fn open_caches(&self, config: &Config) -> Result<crate::cache::Opened, BuildError> {
        self.caches.open_all(&config.caches).map_err(|unusable| {
            let wrong = of_line(config, unusable.line, unusable.why);
            BuildError(Diagnostics(vec![wrong]))
        })
    }

    fn load_all(&self, config: &Config) -> Result<Vec<Part>, BuildError> {
        let mut parts = Vec::new();
        let mut wrong = Vec::new();
        for plugin in &config.plugins {
            match self.load(plugin) {
                Ok(part) => parts.push(part),
                Err(error) => wrong.push(of_plugin(config, plugin, &error)),
            }
        }
        if wrong.is_empty() {
            Ok(parts)
        } else {
            Err(BuildError(Diagnostics(wrong)))
        }
    }

    fn load(&self, plugin: &PluginConfig) -> anyhow::Result<Part> {
        let bytes = match &plugin.component {
            Component::File(path) => {
                std::fs::read(path).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?
            }
            Component::Bundled(name) => {
                let Some((_, bytes)) = BUNDLED.iter().find(|(known, _)| known == name) else {
                    let known: Vec<_> = BUNDLED.iter().map(|(name, _)| *name).collect();
                    anyhow::bail!(
                        "no component is bundled as `{name}`; there is: {}",
                        known.join(", ")
                    );
                };
                bytes.to_vec()
            }
        };
        // Our own runtime polices itself; a file called lua.wasm stands in for the bundled one.
        let bundled = plugin.component.is_lua();
        let loaded = Loaded::new(&self.runtime, &bytes, bundled)?;
        Ok(Part {
            bytes,
            loaded,
            bundled,
        })
    }

    async fn finish_all(
        &self,
        config: &Config,
        parts: Vec<Part>,
        programs: Vec<Program>,
    ) -> Result<Vec<Arc<Plugin>>, BuildError> {
        let mut plugins = Vec::new();
        let mut wrong = Vec::new();
        for (place, (part, mut program)) in parts.into_iter().zip(programs).enumerate() {
            let plugin = &config.plugins[place];
            match self.finish(config, place, part, &mut program).await {
                Ok(plugin) => plugins.push(Arc::new(plugin)),
                Err(error) => wrong.push(of_init(config, plugin, &error)),
            }
        }
        if wrong.is_empty() {
            Ok(plugins)
        } else {
            Err(BuildError(Diagnostics(wrong)))
        }
    }

    async fn finish(
        &self,
        config: &Config,
        place: usize,
        part: Part,
        program: &mut Program,
    ) -> anyhow::Result<Plugin> {
        let plugin = &config.plugins[place];
        for handler in &plugin.lua {
            program.handler(handler, None)?;
        }
        let reactor = part.loaded.pump.is_some();
        let info = Arc::new(PluginInfo {
            name: Arc::from(plugin.name.as_str()),
            config: plugin.config.to_string(),
            allow: plugin.allow.clone(),
            program: if reactor {
                program.json(config, place, self.seed)
            } else {
                String::new()
            },
            dicts: self.opened.clone(),
            caches: self.opened_caches.clone(),
            locks: self.opened_locks.clone(),
            redis: config.redis.clone(),
            http_client: crate::http_client::Settings {
                idle: config.http_client.keepalive,
                idle_timeout: config.http_client.keepalive_timeout,
                connect_timeout: config.http_client.connect_timeout,
                http2: config.http_client.http2,
                ca: config.http_client.ca.clone(),
                connections: config.http_client.connections,
            },
            cosocket: cosocket_settings(&plugin.cosocket)?,
            prefix: absolute(&config.root),
            module_path: plugin.module_path(),
            elsewhere: std::sync::OnceLock::new(),
        });
        let memory = plugin.limits.memory(reactor);
        let mut loaded = part.loaded;
        loaded.prepares = reactor && !program.has_init();
        if loaded.prepares {
            image::rehearse(&loaded, info.clone(), memory).await?;
        } else if reactor || loaded.phases.contains(Phase::Init) {
            let (bytes, bundled) = (&part.bytes, part.bundled);
            let most = (memory, plugin.limits.watchdog);
            let how = (bundled, self.seed);
            let image = image::snapshot(&self.runtime, bytes, info.clone(), most, how).await?;
            loaded = Loaded::new(&self.runtime, &image, bundled)?;
        }
        if let Some(threads) = OtherThreads::of(&loaded, &info, &plugin.limits) {
            // Nobody else has seen this plugin.
            let _first = info.elsewhere.set(Box::new(threads)).is_ok();
        }
        let worker_handlers: WorkerHandlers = program.worker.clone();
        Ok(Plugin {
            info,
            limits: plugin.limits.clone(),
            isolation: plugin.isolation,
            loaded,
            worker_handlers,
        })
    }

    /// The access log; the same file goes on over a reload.
    fn access(&mut self, config: &Config) -> Result<Option<(Arc<AccessLog>, Format)>, BuildError> {
        let log = &config.server.access_log;
        let target = match &log.target {
            LogTarget::Off => return Ok(None),
            LogTarget::Standard => Target::Stdout,
            LogTarget::File(path) => Target::File(path.clone()),
        };
        let open = match &self.access {
            Some((known, open)) if *known == log.target => open.clone(),
            _ => AccessLog::open(target)
                .map_err(|e| BuildError(of_file(config, format!("access_log: {e}"))))?,
        };
        self.access = Some((log.target.clone(), open.clone()));
        let format = match &log.format {
            AccessLogFormat::Combined => Format::combined(),
            AccessLogFormat::Json => Format::Json,
            AccessLogFormat::Template(template) => Format::Template(template.clone()),
        };
        Ok(Some((open, format)))
    }
}

fn wanted(dict: &SharedDict) -> Wanted<'_> {
    Wanted {
        name: &dict.name,
        capacity: dict.size,
        waiters: dict.waiters,
    }
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path)
        .unwrap_or_else(|_| path.to_owned())
        .display()
        .to_string()
}

type Plans = (Vec<Arc<crate::engine::Plan>>, Arc<crate::engine::Plan>);

fn plan_all(config: &Config, planner: &mut Planner<'_>) -> Result<Plans, BuildError> {
    let mut plans = Vec::new();
    let mut wrong = Vec::new();
    for route in &config.routes {
        match planner.route(route) {
            Ok(plan) => plans.push(Arc::new(plan)),
            Err(error) => wrong.push(of_route(config, route, &error)),
        }
    }
    match planner.fallback() {
        Ok(fallback) if wrong.is_empty() => return Ok((plans, Arc::new(fallback))),
        Ok(_) => {}
        Err(error) => wrong.extend(of_file(config, format!("{error:#}")).0),
    }
    Err(BuildError(Diagnostics(wrong)))
}

fn of_file(config: &Config, message: String) -> Diagnostics {
    Diagnostics::of_file(&config.path.display().to_string(), message)
}

/// Marks a whole line of the configuration.
fn of_line(config: &Config, line: usize, message: String) -> Diagnostic {
    let file = config.path.display().to_string();
    let text = std::fs::read_to_string(&config.path).unwrap_or_default();
    let source = text
        .lines()
        .nth(line.saturating_sub(1))
        .unwrap_or("")
        .to_owned();
    let column = source.len() - source.trim_start().len() + 1;
    let width = source.trim().chars().count().max(1);
    Diagnostic {
        file,
        line,
        column,
        message,
        source,
        width,
    }
}

fn cosocket_settings(config: &Cosocket) -> anyhow::Result<cosocket::Settings> {
    let trust = Trust::load(
        config.ca.as_deref(),
        config.certificate.as_deref(),
        config.key.as_deref(),
    );
    Ok(cosocket::Settings {
        trust: trust.map_err(|e| anyhow::anyhow!("cosocket: {e}"))?,
        pool_size: config.pool_size,
        max_idle: config.max_idle,
        names: cosocket::NameBounds {
            most: config.names,
            fresh: config.names_valid,
        },
    })
}

fn of_plugin(config: &Config, plugin: &PluginConfig, error: &anyhow::Error) -> Diagnostic {
    let what = match &plugin.component {
        Component::File(path) => path.display().to_string(),
        Component::Bundled(name) => format!("bundled:{name}"),
    };
    of_line(
        config,
        plugin.line,
        format!("plugin `{}`, component {what}: {error:#}", plugin.name),
    )
}

fn of_route(config: &Config, route: &Route, error: &anyhow::Error) -> Diagnostic {
    of_line(config, route.line, format!("{error:#}"))
}

/// Lua's own messages begin with file and line: they are the place. Lua knows no columns; the token
/// that it names is looked for in its line.
fn of_init(config: &Config, plugin: &PluginConfig, error: &anyhow::Error) -> Diagnostic {
    let text = format!("{error:#}");
    let place = text.split('\n').next().and_then(lua_place);
    let Some((file, line, message)) = place else {
        return of_line(
            config,
            plugin.line,
            format!("plugin `{}`: {text}", plugin.name),
        );
    };
    let path = config.root.join(file);
    let content = std::fs::read_to_string(&path)
        .or_else(|_| std::fs::read_to_string(&config.path))
        .unwrap_or_default();
    let source = content
        .lines()
        .nth(line.saturating_sub(1))
        .unwrap_or("")
        .to_owned();
    let near = message
        .rsplit_once("near '")
        .map(|(_, rest)| rest.trim_end_matches('\''));
    let found = near.and_then(|token| Some((source.find(token)?, token.chars().count())));
    let (at, width) = found.unwrap_or((
        source.len() - source.trim_start().len(),
        source.trim().chars().count().max(1),
    ));
    let message = format!(
        "Lua does not load: {}",
        text.split_once(&format!("{file}:{line}: "))
            .map_or(text.as_str(), |(_, rest)| rest)
    );
    let column = source.get(..at).map_or(0, |s| s.chars().count()) + 1;
    let shown = if Path::new(file) == Path::new(config.path.file_name().unwrap_or_default()) {
        config.path.display().to_string()
    } else {
        file.to_owned()
    };
    Diagnostic {
        file: shown,
        line,
        column,
        message,
        source,
        width,
    }
}

/// `FILE:LINE: message`.
fn lua_place(text: &str) -> Option<(&str, usize, &str)> {
    let (head, message) = text.split_once(": ")?;
    let (file, line) = head.rsplit_once(':')?;
    Some((file, line.parse().ok()?, message))
}
