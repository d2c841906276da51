//! The form of a case file: a configuration, and requests with what must come back. `README.md`
//! beside the case files tells how to write one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;
use serde::Deserialize;

use crate::client::Response;

/// A file of cases that share one server.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CaseFile {
    /// `phasor.toml`; in an example's `cases/` it is left out, there the example's own is used.
    #[serde(default)]
    pub(crate) config: String,
    /// Files beside the configuration: name → text.
    #[serde(default)]
    pub(crate) files: BTreeMap<String, String>,
    /// Whether OpenResty gives the same answers: such cases run against it, too. By default those
    /// that bring their own Lua do.
    #[serde(default = "yes")]
    pub(crate) openresty: bool,
    /// The cases, run one after the other.
    #[serde(rename = "case")]
    pub(crate) cases: Vec<Case>,
    /// Where it was read.
    #[serde(skip)]
    pub(crate) source: PathBuf,
}

/// One request and what must come back.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// Names it in a failure.
    pub(crate) name: String,
    /// The request as it goes over the wire; line ends of the head become CR LF.
    request: Option<String>,
    #[serde(default = "get")]
    method: String,
    path: Option<String>,
    #[serde(default)]
    query: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<String>,
    /// Lua by phase: makes a route of its own for this case.
    #[serde(default)]
    pub(crate) lua: BTreeMap<String, String>,
    /// Variables of that route.
    #[serde(default)]
    pub(crate) set: BTreeMap<String, String>,
    /// Whether OpenResty answers this one in the same way.
    #[serde(default = "yes")]
    pub(crate) openresty: bool,
    /// Why it does not pass yet; it must fail until this is taken away.
    #[serde(default)]
    pub(crate) pending: Option<String>,
    /// What must come back.
    #[serde(default)]
    pub(crate) expect: Expect,
}

/// What must come back.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    /// 200 when it is left out.
    status: Option<u16>,
    /// Name → value, or `/regex/`.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    no_headers: Vec<String>,
    body: Option<String>,
    body_matches: Option<String>,
    /// Each must match in the error log since the request.
    #[serde(default)]
    pub(crate) error_log: Vec<String>,
    /// None may match there.
    #[serde(default)]
    pub(crate) no_error_log: Vec<String>,
}

fn yes() -> bool {
    true
}

fn get() -> String {
    "GET".to_owned()
}

impl CaseFile {
    /// Reads a file.
    pub(crate) fn load(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let mut file: Self =
            toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path.clone_into(&mut file.source);
        file
    }

    /// The configuration with the routes that the cases bring.
    pub(crate) fn full_config(&self) -> String {
        let mut config = self.config.clone();
        for case in self.cases.iter().filter(|case| case.has_route()) {
            let mut route = toml::Table::new();
            route.insert("path".to_owned(), case.route_path().into());
            if !case.set.is_empty() {
                route.insert("set".to_owned(), toml::Value::try_from(&case.set).unwrap());
            }
            route.insert("lua".to_owned(), toml::Value::try_from(&case.lua).unwrap());
            let mut document = toml::Table::new();
            document.insert("route".to_owned(), vec![route].into());
            config.push('\n');
            config.push_str(&toml::to_string(&document).unwrap());
        }
        config
    }
}

impl Case {
    /// Whether it brings a route of its own.
    pub(crate) fn has_route(&self) -> bool {
        !self.lua.is_empty()
    }

    /// The exact path of that route.
    pub(crate) fn route_path(&self) -> String {
        let path = self.path.clone().unwrap_or_else(|| {
            let word = Regex::new("[^A-Za-z0-9]+").unwrap();
            format!("/t/{}", word.replace_all(&self.name, "-").trim_matches('-'))
        });
        path.split('?').next().unwrap_or_default().to_owned()
    }

    /// What goes over the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        if let Some(request) = &self.request {
            if request.contains('\r') {
                return request.clone().into_bytes();
            }
            let (head, body) = request
                .split_once("\n\n")
                .unwrap_or((request.trim_end(), ""));
            return format!("{}\r\n\r\n{body}", head.replace('\n', "\r\n")).into_bytes();
        }
        let path = self.path.clone().unwrap_or_else(|| self.route_path());
        let mark = if self.query.is_empty() { "" } else { "?" };
        let mut text = format!("{} {path}{mark}{} HTTP/1.1\r\n", self.method, self.query);
        if !self
            .headers
            .keys()
            .any(|name| name.eq_ignore_ascii_case("host"))
        {
            text.push_str("Host: localhost\r\n");
        }
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        let body = self.body.as_deref().unwrap_or_default();
        if self.body.is_some() {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        format!("{text}\r\n{body}").into_bytes()
    }

    /// Whether the answer has no body whatever its headers say.
    pub(crate) fn headless(&self) -> bool {
        match &self.request {
            Some(request) => request.starts_with("HEAD "),
            None => self.method == "HEAD",
        }
    }
}

impl Expect {
    /// What is wrong with an answer; empty when nothing is.
    pub(crate) fn faults(&self, response: &Response) -> Vec<String> {
        let mut faults = Vec::new();
        let status = self.status.unwrap_or(200);
        if response.status != status {
            faults.push(format!("status {} instead of {status}", response.status));
        }
        for (name, wanted) in &self.headers {
            match response.header(name) {
                Some(value) if matches(wanted, &value) => {}
                found => faults.push(format!("header {name}: {found:?} instead of {wanted:?}")),
            }
        }
        for name in &self.no_headers {
            if let Some(value) = response.header(name) {
                faults.push(format!("header {name}: {value:?} instead of none"));
            }
        }
        let body = response.text();
        if let Some(wanted) = &self.body
            && *wanted != body
        {
            faults.push(format!("body\n    {body:?}\n  instead of\n    {wanted:?}"));
        }
        if let Some(pattern) = &self.body_matches
            && !Regex::new(pattern).unwrap().is_match(&body)
        {
            faults.push(format!("body {body:?} does not match {pattern}"));
        }
        if !faults.is_empty() && self.body.is_none() {
            faults.push(format!("body was {body:?}"));
        }
        faults
    }
}

/// Whether a value is the wanted one, or matches it when that is `/regex/`.
fn matches(wanted: &str, value: &str) -> bool {
    match wanted
        .strip_prefix('/')
        .and_then(|rest| rest.strip_suffix('/'))
    {
        Some(pattern) => Regex::new(pattern).unwrap().is_match(value),
        None => wanted == value,
    }
}
