//! `proxy` of a route: its URL, and what it does to the path.

use std::time::Duration;

use super::super::document::{Fields, Node, Value};
use super::super::model::Proxy;
use super::super::value::HostPort;
use super::Resolver;

const FORM: &str =
    "write \"http://127.0.0.1:8081\", or with a path: \"http://127.0.0.1:8081/base/\"";

/// Scheme, authority and path of a URL.
fn parse(text: &str) -> Result<(String, String, Option<String>), String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!(
            "`{text}` is not a URL, and groups of peers ([upstream.NAME]) are not offered by this version: {FORM}"
        ));
    };
    let default = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return Err(format!("`{scheme}` is not a scheme of a proxy: {FORM}")),
    };
    let (authority, path) = match rest.find(['/', '?', '#']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.contains(']'));
    let full = match has_port {
        true => authority.to_owned(),
        false => format!("{authority}:{default}"),
    };
    match HostPort::parse(&full) {
        Ok(HostPort {
            host,
            port: Some(port),
        }) if port != 0 && !host.contains('*') => {}
        _ => return Err(format!("`{authority}` is not a host and a port: {FORM}")),
    }
    if path.contains(['?', '#', ' ', '$']) || !(path.is_empty() || path.starts_with('/')) {
        return Err(format!(
            "`{path}`: a proxy's URL has no query, no fragment and no variables: {FORM}"
        ));
    }
    let base = (!path.is_empty()).then(|| path.to_owned());
    Ok((scheme.to_owned(), authority.to_owned(), base))
}

impl Resolver<'_, '_> {
    pub(super) fn proxy(&mut self, node: &Node, route: &Fields) -> Option<Proxy> {
        let empty = Fields::default();
        let (url, span, fields) = match &node.value {
            Value::Text(url) => (url.as_str(), &node.span, &empty),
            Value::Table(fields) => {
                let (url, span) = fields.text("url")?;
                (url, span, fields)
            }
            _ => return None,
        };
        let (scheme, authority, base) = self.parsed(parse(url), span)?;
        if base.is_some() && route.entry("path").is_none() {
            self.error(
                span,
                "a path in the URL takes the place of the route's `path`, and this route has none: take it out",
            );
        }
        let time = |name: &str| match fields.time(name) {
            // The table's default is not there when the URL stands alone.
            Duration::ZERO if fields.entries.is_empty() => Duration::from_secs(60),
            time => time,
        };
        let ca = self.file(fields, "ca");
        Some(Proxy {
            scheme,
            authority,
            base,
            connect_timeout: time("connect_timeout"),
            send_timeout: time("send_timeout"),
            read_timeout: time("read_timeout"),
            keepalive: fields.count("keepalive").unwrap_or(32),
            keepalive_timeout: time("keepalive_timeout"),
            ca,
        })
    }
}
