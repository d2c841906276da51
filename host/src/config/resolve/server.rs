//! `[server]` is resolved before the routes, which inherit from it.

use std::ops::Range;

use super::super::document::{Fields, Node, Value, nearest};
use super::super::model::{
    AccessLog, AccessLogFormat, CompileCache, ErrorLog, ErrorLogFormat, ErrorPage, ErrorTarget,
    Listen, LogTarget, PidPlace, Server,
};
use super::super::value::{Cidr, Template, parse_listen};
use super::Resolver;
use crate::observe::error_log::Level;

impl Resolver<'_, '_> {
    pub(super) fn server(&mut self, fields: &Fields) -> Server {
        let count = |name: &str| {
            fields
                .integer(name)
                .and_then(|number| u64::try_from(number).ok())
                .unwrap_or(1)
        };
        let workers = fields.count("workers");
        Server {
            listen: self.listen(fields),
            workers: workers.and_then(std::num::NonZeroUsize::new),
            plugins: self.plugin_list(fields.list("plugins"), &[]),
            watch: fields.boolean("watch"),
            compile_cache: self.compile_cache(fields.node("compile_cache")),
            pid: self.pid(fields),
            body_limit: body_limit(fields).unwrap_or(u64::MAX),
            header_limit: fields
                .size("header_limit")
                .and_then(|size| usize::try_from(size).ok())
                .unwrap_or(usize::MAX),
            idle_timeout: fields.time("idle_timeout"),
            header_timeout: fields.time("header_timeout"),
            body_timeout: fields.time("body_timeout"),
            send_timeout: fields.time("send_timeout"),
            tunnel_timeout: fields.time("tunnel_timeout"),
            drain: fields.time("drain"),
            max_connections: usize::try_from(count("max_connections")).unwrap_or(usize::MAX),
            keepalive_requests: count("keepalive_requests"),
            subrequest_depth: u32::try_from(count("subrequest_depth")).unwrap_or(u32::MAX),
            subrequests: u32::try_from(count("subrequests")).unwrap_or(u32::MAX),
            subrequest_body_limit: fields.size("subrequest_body_limit").unwrap_or(0),
            access_log: self.access_log(fields.node("access_log")),
            error_log: self.error_log(fields.node("error_log")),
            trusted_proxies: self.trusted_proxies(fields.list("trusted_proxies")),
            lua: self.lua_handlers(fields.table("lua")),
            error_page: self.error_page(fields),
        }
    }

    fn compile_cache(&mut self, node: Option<&Node>) -> CompileCache {
        // A folder alone says nothing of its size.
        const SIZE: u64 = 512 << 20;
        let mut cache = CompileCache {
            path: None,
            size: SIZE,
        };
        let path = match node.map(|node| (&node.value, &node.span)) {
            Some((Value::Text(path), span)) => Some((path.as_str(), span)),
            Some((Value::Table(fields), _)) => {
                cache.size = fields.size("size").unwrap_or(SIZE);
                fields.text("path")
            }
            _ => None,
        };
        match path {
            Some(("off", _)) => cache.size = 0,
            Some((path, span)) if self.path(path).is_file() => {
                self.error(span, format!("`{path}` is a file: name a folder"));
            }
            Some((path, _)) => cache.path = Some(self.path(path)),
            None => {}
        }
        cache
    }

    fn pid(&mut self, fields: &Fields) -> PidPlace {
        let Some((path, span)) = fields.text("pid") else {
            return PidPlace::Default;
        };
        match self.log_path(path, span) {
            LogTarget::Off => PidPlace::Off,
            LogTarget::File(file) => PidPlace::File(file),
            LogTarget::Standard => {
                self.error(span, "`-` is no pid file: name a file, or \"off\"");
                PidPlace::Off
            }
        }
    }

    fn listen(&mut self, fields: &Fields) -> Vec<Listen> {
        // nginx's backlog; a table gives its own.
        const BACKLOG: u32 = 511;
        let mut list: Vec<Listen> = Vec::new();
        for node in fields.list("listen") {
            let (text, span, backlog) = match &node.value {
                Value::Text(text) => (text.as_str(), &node.span, BACKLOG),
                Value::Table(fields) => {
                    let Some((text, span)) = fields.text("address") else {
                        continue;
                    };
                    let backlog = fields
                        .integer("backlog")
                        .and_then(|number| u32::try_from(number).ok());
                    (text, span, backlog.unwrap_or(BACKLOG))
                }
                _ => continue,
            };
            let Some(address) = self.parsed(parse_listen(text), span) else {
                continue;
            };
            // Port 0 is a free port, another one each time.
            if address.port() != 0 && list.iter().any(|listen| listen.address == address) {
                self.error(
                    span,
                    format!("`{text}` is listened on already: take one out"),
                );
            }
            list.push(Listen { address, backlog });
        }
        if let (Some(entry), true) = (fields.entry("listen"), fields.list("listen").is_empty()) {
            self.error(
                &entry.node.span,
                "expected at least one address, like \"127.0.0.1:8000\"",
            );
        }
        list
    }

    fn log_target(&self, path: &str) -> LogTarget {
        match path {
            "-" => LogTarget::Standard,
            "off" => LogTarget::Off,
            path => LogTarget::File(self.path(path)),
        }
    }

    /// A file need not exist, but its folder does.
    fn log_path(&mut self, path: &str, span: &Range<usize>) -> LogTarget {
        let target = self.log_target(path);
        if let LogTarget::File(file) = &target {
            let folder = file
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty());
            if file.is_dir() {
                self.error(span, format!("`{path}` is a folder: name a file in it"));
            } else if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
                let message = format!("`{path}`: there is no folder {}: make it", folder.display());
                self.error(span, message);
            }
        }
        target
    }

    fn access_log(&mut self, node: Option<&Node>) -> AccessLog {
        let mut log = AccessLog {
            target: LogTarget::Standard,
            format: AccessLogFormat::Combined,
        };
        match node.map(|node| (&node.value, &node.span)) {
            Some((Value::Text(path), span)) => log.target = self.log_path(path, span),
            Some((Value::Table(fields), _)) => {
                if let Some((path, span)) = fields.text("path") {
                    log.target = self.log_path(path, span);
                }
                if let Some(node) = fields.node("format") {
                    log.format = self.access_log_format(node);
                }
            }
            _ => {}
        }
        log
    }

    fn access_log_format(&mut self, node: &Node) -> AccessLogFormat {
        let Value::Template(template) = &node.value else {
            return AccessLogFormat::Combined;
        };
        match template.as_literal() {
            Some(b"combined") => AccessLogFormat::Combined,
            Some(b"json") => AccessLogFormat::Json,
            Some(text) => {
                let text = String::from_utf8_lossy(text).into_owned();
                let message = match nearest(&text, ["combined", "json"].into_iter()) {
                    Some(nearest) => {
                        format!("unknown format \"{text}\": did you mean \"{nearest}\"?")
                    }
                    None => {
                        "expected \"combined\", \"json\" or a template with $variables".to_owned()
                    }
                };
                self.error(&node.span, message);
                AccessLogFormat::Combined
            }
            None => AccessLogFormat::Template(template.clone()),
        }
    }

    fn error_log(&mut self, node: Option<&Node>) -> ErrorLog {
        let mut log = ErrorLog {
            target: LogTarget::Standard,
            level: Level::Notice,
            format: ErrorLogFormat::Text,
        };
        match node.map(|node| (&node.value, &node.span)) {
            Some((Value::Text(path), span)) => log.target = self.log_path(path, span),
            Some((Value::Table(fields), _)) => {
                if let Some((path, span)) = fields.text("path") {
                    log.target = self.log_path(path, span);
                }
                let level = fields
                    .text("level")
                    .and_then(|(name, _)| Level::from_name(name));
                log.level = level.unwrap_or(Level::Notice);
                if fields
                    .text("format")
                    .is_some_and(|(format, _)| format == "json")
                {
                    log.format = ErrorLogFormat::Json;
                }
            }
            _ => {}
        }
        log
    }

    fn trusted_proxies(&mut self, nodes: &[Node]) -> Vec<Cidr> {
        let mut list = Vec::new();
        for node in nodes {
            let Some(text) = node.text() else { continue };
            list.extend(self.parsed(Cidr::parse(text), &node.span));
        }
        list
    }

    /// `error_page` of the server or of a route.
    pub(super) fn error_page(&mut self, fields: &Fields) -> Vec<ErrorPage> {
        let mut pages: Vec<ErrorPage> = Vec::new();
        let Some(table) = fields.table("error_page") else {
            return pages;
        };
        for entry in &table.entries {
            let target = self.error_target(&entry.node);
            for text in entry.name.split([' ', ',']).filter(|text| !text.is_empty()) {
                let status = text
                    .parse()
                    .ok()
                    .filter(|status| (300..=599).contains(status));
                let Some(status) = status else {
                    let message =
                        format!("`{text}` is not a status of an error: expected 300 to 599");
                    self.error(&entry.span, message);
                    continue;
                };
                if pages.iter().any(|page| page.status == status) {
                    self.error(
                        &entry.span,
                        format!("{status} has a page already: take one out"),
                    );
                } else if let Some(target) = &target {
                    pages.push(ErrorPage {
                        status,
                        target: target.clone(),
                    });
                }
            }
        }
        pages
    }

    fn error_target(&mut self, node: &Node) -> Option<ErrorTarget> {
        let text = node.text()?;
        let Some(name) = text.strip_prefix('@') else {
            if text.starts_with('/') {
                return Some(ErrorTarget::Uri(text.to_owned()));
            }
            let message =
                format!("`{text}` is not a page: write \"/path\" or \"@name\" of a route");
            self.error(&node.span, message);
            return None;
        };
        if let Some(index) = self.route_names.get(name) {
            return Some(ErrorTarget::Route(*index));
        }
        let mut known: Vec<_> = self.route_names.keys().map(String::as_str).collect();
        known.sort_unstable();
        let hint = match nearest(name, known.into_iter()) {
            Some(nearest) => format!("did you mean `@{nearest}`?"),
            None => format!("add a [[route]] with name = \"{name}\""),
        };
        self.error(
            &node.span,
            format!("there is no route named `@{name}`: {hint}"),
        );
        None
    }
}

/// The limit of a request's body; `"0"` is none, as in nginx.
pub(super) fn body_limit(fields: &Fields) -> Option<u64> {
    fields
        .size("body_limit")
        .map(|size| if size == 0 { u64::MAX } else { size })
}

impl Template {
    /// Whether it can stand in a header: no line break, no NUL.
    pub(super) fn fits_header(&self) -> bool {
        self.parts.iter().all(|part| match part {
            super::super::value::Part::Literal(text) => {
                !text.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
            }
            super::super::value::Part::Variable(_) => true,
        })
    }
}
