//! `[plugin.NAME]` is resolved before the routes, because their lists name plugins.

use std::ops::Range;
use std::time::Duration;

use super::super::document::{Entry, Fields, Node, Value, nearest};
use super::super::model::{
    Allow, Component, Cosocket, FileGrant, Grant, InnerTarget, Isolation, Limits, LuaHandler,
    Plugin, PluginIndex, RedisRule, SocketRule,
};
use super::super::value::{Origin, is_environment_variable};
use super::{LUA, Resolver};
use crate::phase::Phase;

/// The Lua plugin of a file that uses Lua and says nothing of a plugin.
pub(super) fn implicit_lua(name: &str) -> Plugin {
    Plugin {
        name: name.to_owned(),
        line: 0,
        component: Component::Bundled(LUA.to_owned()),
        config: serde_json::Value::Object(serde_json::Map::new()),
        allow: Allow {
            connect: Grant::All,
            subrequest: Grant::All,
            shared: Grant::All,
            cache: Grant::All,
            lock: Grant::All,
            redis: Grant::All,
            ..Allow::default()
        },
        limits: Limits::default(),
        cosocket: Cosocket::default(),
        isolation: Isolation::Pooled,
        lua: Vec::new(),
    }
}

impl Resolver<'_, '_> {
    /// Fills the resolver's list of plugins.
    pub(super) fn plugins(&mut self, tables: &Fields) {
        for (index, entry) in tables.entries.iter().enumerate() {
            self.check_name(&entry.name, &entry.span);
            let plugin = match entry.node.table() {
                Some(fields) => self.one_plugin(entry, fields, index),
                None => implicit_lua(&entry.name),
            };
            self.plugins.push(plugin);
        }
    }

    fn one_plugin(&mut self, entry: &Entry, fields: &Fields, index: PluginIndex) -> Plugin {
        let component = self.component(entry, fields);
        let empty = Fields::default();
        let (config, lua) = self.plugin_config(fields.table("config").unwrap_or(&empty), index);
        let granted = fields.table("allow").unwrap_or(&empty);
        let mut allow = self.allow(granted);
        // Lua of the configuration's own author sees all that it names, as in OpenResty, unless a
        // list says which; one that is empty says none.
        let given = |key| granted.entry(key).is_some_and(|entry| entry.given);
        let all = |key| component.is_lua() && !given(key);
        allow.shared.widen(all("shared"));
        allow.cache.widen(all("cache"));
        allow.lock.widen(all("lock"));
        allow.connect.widen(all("connect"));
        allow.subrequest.widen(all("subrequest"));
        allow.redis.widen(all("redis"));
        let isolation = match fields.text("isolation") {
            Some(("request", span)) if component.is_lua() => {
                let message = "a Lua plugin holds many requests in one instance: `isolation` stays \"pooled\"";
                self.error(span, message);
                Isolation::Request
            }
            Some(("request", _)) => Isolation::Request,
            _ => Isolation::Pooled,
        };
        Plugin {
            name: entry.name.clone(),
            line: self.reporter.line_of(entry.span.start),
            component,
            config,
            allow,
            limits: limits(fields.table("limits").unwrap_or(&empty)),
            cosocket: self.cosocket(entry, fields.table("cosocket")),
            isolation,
            lua,
        }
    }

    fn component(&mut self, entry: &Entry, fields: &Fields) -> Component {
        let Some((component, span)) = fields.text("component") else {
            if entry.name != LUA && !fields.is_broken {
                let name = &entry.name;
                let message = format!(
                    "[plugin.{name}] needs the key `component`: a Wasm file, or \"bundled:NAME\""
                );
                self.error(&entry.span, message);
            }
            return Component::Bundled(LUA.to_owned());
        };
        if let Some(name) = component.strip_prefix("bundled:") {
            if name.is_empty() {
                self.error(
                    span,
                    "\"bundled:\" lacks a name: write \"bundled:lua\", for example",
                );
            }
            return Component::Bundled(name.to_owned());
        }
        let path = self.path(component);
        if !path.is_file() {
            let message = format!("`{component}`: no such file (looked at {})", path.display());
            self.error(span, message);
        }
        Component::File(path)
    }

    /// The JSON that the plugin gets, and the Lua that the host takes out of it.
    fn plugin_config(
        &mut self,
        fields: &Fields,
        plugin: PluginIndex,
    ) -> (serde_json::Value, Vec<LuaHandler>) {
        let mut config = serde_json::Map::new();
        let mut lua = Vec::new();
        for Entry { name, node, .. } in &fields.entries {
            match (&node.value, Phase::from_name(name)) {
                (Value::Json(value), _) => {
                    config.insert(name.clone(), value.clone());
                }
                (_, Some(phase)) => {
                    let source = self.lua_source(node);
                    lua.extend(source.map(|source| LuaHandler {
                        phase,
                        plugin,
                        source,
                    }));
                }
                (_, None) => {}
            }
        }
        lua.sort_by_key(|handler| handler.phase);
        (config.into(), lua)
    }

    fn allow(&mut self, fields: &Fields) -> Allow {
        let shared = self.grant(fields.list("shared"), |name| Ok(name.to_owned()));
        if let Grant::List(names) = &shared {
            for (name, node) in names.iter().zip(fields.list("shared")) {
                self.check_shared(name, &node.span);
            }
        }
        let cache = self.grant(fields.list("cache"), |name| Ok(name.to_owned()));
        if let Grant::List(names) = &cache {
            for (name, node) in names.iter().zip(fields.list("cache")) {
                self.check_cache(name, &node.span);
            }
        }
        let lock = self.grant(fields.list("lock"), |name| Ok(name.to_owned()));
        if let Grant::List(names) = &lock {
            for (name, node) in names.iter().zip(fields.list("lock")) {
                self.check_lock(name, &node.span);
            }
        }
        let redis = self.grant(fields.list("redis"), RedisRule::parse);
        if let Grant::List(rules) = &redis {
            for (rule, node) in rules.iter().zip(fields.list("redis")) {
                self.check_redis(&rule.redis, &node.span);
            }
        }
        Allow {
            redis,
            connect: self.grant(fields.list("connect"), SocketRule::parse),
            http: self.grant(fields.list("http"), Origin::parse),
            subrequest: self.grant(fields.list("subrequest"), InnerTarget::parse),
            shared,
            cache,
            lock,
            files: fields
                .list("files")
                .iter()
                .filter_map(|node| self.file_grant(node))
                .collect(),
            env: self.grant(fields.list("env"), |name| {
                if is_environment_variable(name) {
                    Ok(name.to_owned())
                } else {
                    Err(format!("`{name}` is not an environment variable's name"))
                }
            }),
        }
    }

    fn cosocket(&mut self, entry: &Entry, fields: Option<&Fields>) -> Cosocket {
        let Some(fields) = fields else {
            return Cosocket::default();
        };
        let (certificate, key) = (self.file(fields, "certificate"), self.file(fields, "key"));
        if certificate.is_some() != key.is_some() {
            let message = "`certificate` and `key` of `cosocket` belong together";
            self.error(&entry.span, message);
        }
        let default = Cosocket::default();
        Cosocket {
            ca: self.file(fields, "ca"),
            certificate,
            key,
            connect_timeout: fields.time("connect_timeout"),
            send_timeout: fields.time("send_timeout"),
            read_timeout: fields.time("read_timeout"),
            receive_limit: fields
                .size("receive_limit")
                .and_then(|size| usize::try_from(size).ok())
                .unwrap_or(default.receive_limit),
            pool_size: fields.count("pool_size").unwrap_or(default.pool_size),
            keepalive_timeout: fields.time("keepalive_timeout"),
            max_idle: fields.count("max_idle").unwrap_or(default.max_idle),
            names: fields.count("names").unwrap_or(default.names),
            names_valid: fields.time("names_valid"),
        }
    }

    fn grant<T>(&mut self, nodes: &[Node], parse: impl Fn(&str) -> Result<T, String>) -> Grant<T> {
        if nodes.iter().any(|node| node.text() == Some("*")) {
            return Grant::All;
        }
        let mut list = Vec::new();
        for node in nodes {
            let Some(text) = node.text() else { continue };
            list.extend(self.parsed(parse(text), &node.span));
        }
        Grant::List(list)
    }

    fn check_shared(&mut self, name: &str, span: &Range<usize>) {
        if self.shared.iter().any(|known| known == name) {
            return;
        }
        let hint = match nearest(name, self.shared.iter().map(String::as_str)) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => format!("add [shared.{name}]"),
        };
        self.error(span, format!("there is no shared dict `{name}`: {hint}"));
    }

    fn file_grant(&mut self, node: &Node) -> Option<FileGrant> {
        let text = node.text()?;
        let (name, write) = match text.rsplit_once(':') {
            Some((name, "ro")) => (name, false),
            Some((name, "rw")) => (name, true),
            _ => {
                let message = format!(
                    "`{text}` does not say what is allowed: write \"{text}:ro\" or \"{text}:rw\""
                );
                self.error(&node.span, message);
                return None;
            }
        };
        let path = self.folder(name, &node.span);
        Some(FileGrant {
            name: name.to_owned(),
            path,
            write,
        })
    }
}

fn limits(fields: &Fields) -> Limits {
    let default = Limits::default();
    let count = |name: &str, default: usize| fields.count(name).unwrap_or(default);
    let time = |name: &str, default: Duration| match fields.time(name) {
        Duration::ZERO => default,
        time => time,
    };
    Limits {
        memory: fields
            .size("memory")
            .and_then(|size| usize::try_from(size).ok()),
        cpu: time("cpu", default.cpu),
        deadline: time("deadline", default.deadline),
        watchdog: time("watchdog", default.watchdog),
        instances: count("instances", default.instances),
        queue: count("queue", default.queue),
    }
}
