//! Routes become plans: which step runs in which order, and which neighbouring steps of one language
//! runtime are one segment.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::program::{Program, SegmentHandlers};
use crate::config::model::{
    Config, Content, ErrorPage, ErrorTarget, LuaHandler, Proxy as ProxyConfig,
    Respond as RespondConfig, Route, SetValue,
};
use crate::config::template::Template;
use crate::config::value::PathPattern;
use crate::engine::plan::{Filter, Plan, Respond, Run, Segment, Step, Target, Text};
use crate::http_cache::HttpCache;
use crate::http_client;
use crate::phase::{Phase, PhaseSet};
use crate::response::files::Root;
use crate::upstream::Proxy;

/// What a plan is made from.
struct Parts<'c> {
    plugins: &'c [usize],
    lua: &'c [LuaHandler],
    content: Option<&'c Content>,
    /// What content makes is kept: nothing else is a part of it.
    kept: bool,
}

/// A step before neighbours are joined.
enum Raw {
    Run(Run),
    Lua { plugin: usize, handler: u16 },
}

/// Makes plans, and the programs of the language runtimes as it goes.
pub(super) struct Planner<'c> {
    pub(super) config: &'c Config,
    /// The phases that each plugin's component exports.
    pub(super) phases: &'c [PhaseSet],
    /// The caches, in the configuration's order.
    pub(super) caches: &'c [Arc<crate::cache::Cache>],
    /// One for each plugin; empty for ordinary ones.
    pub(super) programs: Vec<Program>,
}

impl Planner<'_> {
    /// The plan of a route.
    pub(super) fn route(&mut self, route: &Route) -> anyhow::Result<Plan> {
        let parts = Parts {
            plugins: &route.plugins,
            lua: &route.lua,
            content: route.content.as_ref(),
            kept: route.cache.is_some(),
        };
        let mut raw = self.set_steps(route)?;
        for phase in [Phase::Rewrite, Phase::Access, Phase::Precontent] {
            self.phase_steps(phase, &parts, &mut raw)?;
        }
        raw.push((Phase::Content, self.content(route)?));
        let mut plan = self.assemble(&parts, raw)?;
        plan.route = Arc::from(route_name(route));
        plan.body_limit = if route.body_limit == u64::MAX {
            0
        } else {
            route.body_limit
        };
        plan.cache = route.cache.as_ref().and_then(|rules| {
            let cache = self.caches.get(rules.cache)?.clone();
            Some(Arc::new(HttpCache::new(cache, rules.clone())))
        });
        plan.internal = route.internal;
        plan.settable = route.set.iter().map(|set| set.name.clone()).collect();
        plan.error_pages = route.error_page.iter().map(error_page).collect();
        if let Some(Content::Files(files)) = &route.content {
            plan.document_root = Some(Arc::from(files.root.display().to_string()));
        }
        Ok(plan)
    }

    /// What runs before a route is known, and what answers when none is.
    pub(super) fn fallback(&mut self) -> anyhow::Result<Plan> {
        let server = &self.config.server;
        let parts = Parts {
            plugins: &server.plugins,
            lua: &server.lua,
            content: None,
            kept: false,
        };
        let mut raw = Vec::new();
        self.phase_steps(Phase::ServerRewrite, &parts, &mut raw)?;
        let mut plan = self.assemble(&parts, raw)?;
        plan.error_pages = server.error_page.iter().map(error_page).collect();
        plan.body_limit = match server.body_limit {
            u64::MAX => 0,
            limit => limit,
        };
        Ok(plan)
    }

    fn set_steps(&mut self, route: &Route) -> anyhow::Result<Vec<(Phase, Raw)>> {
        let mut steps = Vec::new();
        for set in &route.set {
            let raw = match &set.value {
                SetValue::Template(value) => Raw::Run(Run::Set {
                    variable: set.name.clone(),
                    value: value.clone(),
                }),
                SetValue::Plugin(plugin) => Raw::Run(Run::SetCall {
                    plugin: *plugin,
                    variable: set.name.clone(),
                }),
                SetValue::Lua(handler) => Raw::Lua {
                    plugin: handler.plugin,
                    handler: self.programs[handler.plugin].handler(handler, Some(&set.name))?,
                },
            };
            steps.push((Phase::Set, raw));
        }
        Ok(steps)
    }

    fn phase_steps(
        &mut self,
        phase: Phase,
        parts: &Parts<'_>,
        steps: &mut Vec<(Phase, Raw)>,
    ) -> anyhow::Result<()> {
        for plugin in parts
            .plugins
            .iter()
            .filter(|p| self.phases[**p].contains(phase))
        {
            steps.push((phase, Raw::Run(Run::Call { plugin: *plugin })));
        }
        for handler in parts.lua.iter().filter(|handler| handler.phase == phase) {
            let number = self.programs[handler.plugin].handler(handler, None)?;
            steps.push((
                phase,
                Raw::Lua {
                    plugin: handler.plugin,
                    handler: number,
                },
            ));
        }
        Ok(())
    }

    fn content(&mut self, route: &Route) -> anyhow::Result<Raw> {
        Ok(match &route.content {
            None => Raw::Run(Run::Nothing),
            Some(Content::Respond(config)) => Raw::Run(Run::Respond(respond(config)?)),
            Some(Content::Proxy(config)) => Raw::Run(Run::Proxy(proxy(config, route)?)),
            Some(Content::Files(files)) => {
                let root =
                    Root::new(&files.root, files.index.clone(), files.listing).context("files")?;
                Raw::Run(Run::Files(root))
            }
            Some(Content::Plugin(plugin)) => {
                if !self.phases[*plugin].contains(Phase::Content) {
                    anyhow::bail!(
                        "`content` names plugin `{}`, whose component does not export `content`",
                        self.config.plugins[*plugin].name
                    );
                }
                Raw::Run(Run::Call { plugin: *plugin })
            }
            Some(Content::Lua(handler)) => Raw::Lua {
                plugin: handler.plugin,
                handler: self.programs[handler.plugin].handler(handler, None)?,
            },
        })
    }

    /// Joins neighbours and adds what runs behind the content.
    fn assemble(&mut self, parts: &Parts<'_>, raw: Vec<(Phase, Raw)>) -> anyhow::Result<Plan> {
        let mut header = Vec::new();
        let mut body = Vec::new();
        let mut log = Vec::new();
        self.phase_steps(Phase::HeaderFilter, parts, &mut header)?;
        self.phase_steps(Phase::BodyFilter, parts, &mut body)?;
        self.phase_steps(Phase::Log, parts, &mut log)?;
        let content_vm = parts.content.and_then(|content| match content {
            Content::Lua(handler) => Some(handler.plugin),
            Content::Respond(_) | Content::Files(_) | Content::Proxy(_) | Content::Plugin(_) => {
                None
            }
        });
        let of_vm = |steps: &[(Phase, Raw)], vm: usize| {
            steps
                .iter()
                .all(|(_, raw)| matches!(raw, Raw::Lua { plugin, .. } if *plugin == vm))
        };
        let shares = |steps: &[(Phase, Raw)]| {
            let of_content = |plugin: &usize| Some(*plugin) == content_vm;
            steps
                .iter()
                .any(|(_, raw)| matches!(raw, Raw::Lua { plugin, .. } if of_content(plugin)))
        };
        let gathers = parts.kept && (shares(&header) || shares(&body));
        let fused = content_vm.filter(|vm| !parts.kept && of_vm(&header, *vm) && of_vm(&body, *vm));
        let steps = self.join(raw, fused, parts.kept, [&header, &body, &log])?;
        let mut plan = Plan {
            steps,
            gathers,
            ..Plan::default()
        };
        plan.header_filters = self.filters(header, &log)?;
        plan.body_filters = self.filters(body, &log)?;
        plan.log = self.log_filters(&log)?;
        plan.deadline = self.deadline(&plan, parts);
        plan.keeps_on = plan.steps.iter().any(|step| match &step.run {
            Run::Segment(segment) => {
                let config = &self.config.plugins[segment.plugin].config;
                config.get("lua_check_client_abort") == Some(&serde_json::Value::Bool(false))
            }
            _ => false,
        });
        Ok(plan)
    }

    fn join(
        &mut self,
        raw: Vec<(Phase, Raw)>,
        fused: Option<usize>,
        kept: bool,
        behind: [&[(Phase, Raw)]; 3],
    ) -> anyhow::Result<Vec<Step>> {
        let mut steps = Vec::new();
        let mut raw = raw.into_iter().peekable();
        while let Some((phase, first)) = raw.next() {
            let Raw::Lua { plugin, handler } = first else {
                if let Raw::Run(run) = first {
                    steps.push(Step { phase, run });
                }
                continue;
            };
            let mut segment = SegmentHandlers {
                steps: vec![handler],
                ..SegmentHandlers::default()
            };
            let mut last_phase = phase;
            while let Some((next, Raw::Lua { handler, .. })) = raw.next_if(|(next, raw)| {
                // A cache stands right before the content.
                !(kept && *next == Phase::Content)
                    && matches!(raw, Raw::Lua { plugin: p, .. } if *p == plugin)
            }) {
                segment.steps.push(handler);
                last_phase = next;
            }
            let content = last_phase == Phase::Content;
            let fused = content && fused == Some(plugin);
            let [header, body, log] = behind.map(|steps| numbers(steps, plugin));
            if fused {
                (segment.header_filter, segment.body_filter) = (header, body);
                segment.last = true;
            } else {
                segment.last = content && header.is_empty() && body.is_empty();
            }
            segment.log = log;
            let forgets = segment.last && segment.log.is_empty();
            let number = self.programs[plugin].segment(&segment)?;
            steps.push(Step {
                phase: last_phase,
                run: Run::Segment(Segment {
                    plugin,
                    number,
                    forgets,
                    fused,
                }),
            });
        }
        Ok(steps)
    }

    /// Filters as they stand, Lua neighbours joined.
    fn filters(
        &mut self,
        raw: Vec<(Phase, Raw)>,
        log: &[(Phase, Raw)],
    ) -> anyhow::Result<Vec<Filter>> {
        let mut filters = Vec::new();
        let mut raw = raw.into_iter().peekable();
        while let Some((phase, first)) = raw.next() {
            match first {
                Raw::Run(Run::Call { plugin }) => filters.push(Filter {
                    plugin,
                    segment: None,
                }),
                Raw::Run(_) => {}
                Raw::Lua { plugin, handler } => {
                    let mut handlers = vec![handler];
                    while let Some((_, Raw::Lua { handler, .. })) = raw.next_if(
                        |(_, raw)| matches!(raw, Raw::Lua { plugin: p, .. } if *p == plugin),
                    ) {
                        handlers.push(handler);
                    }
                    let mut segment = SegmentHandlers {
                        log: numbers(log, plugin),
                        ..SegmentHandlers::default()
                    };
                    if phase == Phase::HeaderFilter {
                        segment.header_filter = handlers;
                    } else {
                        segment.body_filter = handlers;
                    }
                    filters.push(Filter {
                        plugin,
                        segment: Some(self.programs[plugin].segment(&segment)?),
                    });
                }
            }
        }
        Ok(filters)
    }

    /// One entry for each ordinary plugin, one for each language runtime.
    fn log_filters(&mut self, raw: &[(Phase, Raw)]) -> anyhow::Result<Vec<Filter>> {
        let mut filters: Vec<Filter> = Vec::new();
        for (_, step) in raw {
            match step {
                Raw::Run(Run::Call { plugin }) => filters.push(Filter {
                    plugin: *plugin,
                    segment: None,
                }),
                Raw::Run(_) => {}
                Raw::Lua { plugin, .. } if filters.iter().any(|f| f.plugin == *plugin) => {}
                Raw::Lua { plugin, .. } => {
                    let segment = SegmentHandlers {
                        log: numbers(raw, *plugin),
                        ..SegmentHandlers::default()
                    };
                    filters.push(Filter {
                        plugin: *plugin,
                        segment: Some(self.programs[*plugin].segment(&segment)?),
                    });
                }
            }
        }
        Ok(filters)
    }

    /// The shortest of what the plan's plugins may take.
    fn deadline(&self, plan: &Plan, parts: &Parts<'_>) -> Option<Duration> {
        let steps = plan.steps.iter().filter_map(|step| match &step.run {
            Run::SetCall { plugin, .. }
            | Run::Call { plugin }
            | Run::Segment(Segment { plugin, .. }) => Some(*plugin),
            Run::Set { .. } | Run::Respond(_) | Run::Files(_) | Run::Proxy(_) | Run::Nothing => {
                None
            }
        });
        let filters = plan
            .header_filters
            .iter()
            .chain(&plan.body_filters)
            .map(|filter| filter.plugin);
        steps
            .chain(filters)
            .chain(parts.plugins.iter().copied())
            .map(|p| self.config.plugins[p].limits.deadline)
            .min()
    }
}

fn numbers(steps: &[(Phase, Raw)], vm: usize) -> Vec<u16> {
    steps
        .iter()
        .filter_map(|(_, raw)| match raw {
            Raw::Lua { plugin, handler } if *plugin == vm => Some(*handler),
            Raw::Lua { .. } | Raw::Run(_) => None,
        })
        .collect()
}

/// `$route`: the name, else what the route matches.
fn route_name(route: &Route) -> String {
    match (&route.name, &route.path) {
        (Some(name), _) => name.clone(),
        (None, Some(path)) => path_name(path),
        (None, None) => String::new(),
    }
}

fn error_page(page: &ErrorPage) -> (u16, Target) {
    let target = match &page.target {
        ErrorTarget::Route(place) => Target::Route(*place),
        ErrorTarget::Uri(uri) => Target::Uri(uri.clone()),
    };
    (page.status, target)
}

fn respond(config: &RespondConfig) -> anyhow::Result<Respond> {
    let mut headers = HeaderMap::new();
    let mut templates = Vec::new();
    for (name, value) in &config.headers {
        let header = HeaderName::from_bytes(name.as_bytes())
            .with_context(|| format!("respond.headers: `{name}` is no header name"))?;
        match value.as_literal() {
            Some(text) => {
                let text = HeaderValue::from_bytes(text).with_context(|| {
                    format!("respond.headers: the value of `{name}` is not valid")
                })?;
                headers.insert(header, text);
            }
            None => templates.push((header, value.clone())),
        }
    }
    if !config.body.parts.is_empty()
        && !headers.contains_key(http::header::CONTENT_TYPE)
        && templates
            .iter()
            .all(|(n, _)| n != http::header::CONTENT_TYPE)
    {
        headers.insert(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain"),
        );
    }
    Ok(Respond {
        status: config.status,
        headers,
        templates,
        body: text(&config.body),
    })
}

fn proxy(config: &ProxyConfig, route: &Route) -> anyhow::Result<Proxy> {
    let prefix = match &route.path {
        Some(PathPattern::Exact(path)) => path.clone(),
        Some(PathPattern::Prefix { prefix, .. }) => prefix.clone(),
        Some(PathPattern::Regex(_)) | None => String::new(),
    };
    Ok(Proxy {
        scheme: config.scheme.parse().context("proxy")?,
        authority: config.authority.parse().context("proxy")?,
        base: config.base.clone(),
        prefix,
        send_timeout: config.send_timeout,
        read_timeout: config.read_timeout,
        client: http_client::Settings {
            idle: config.keepalive,
            idle_timeout: config.keepalive_timeout,
            connect_timeout: config.connect_timeout,
            http2: false,
            ca: config.ca.clone(),
            connections: None,
        },
    })
}

fn text(template: &Template) -> Text {
    match template.as_literal() {
        Some(text) => Text::Fixed(Bytes::copy_from_slice(text)),
        None => Text::Template(template.clone()),
    }
}

/// A path pattern as the configuration writes it.
fn path_name(path: &PathPattern) -> String {
    match path {
        PathPattern::Exact(path) => path.clone(),
        PathPattern::Prefix { prefix, .. } => format!("{prefix}*"),
        PathPattern::Regex(regex) => format!("~ {regex:?}"),
    }
}
