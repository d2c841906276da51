//! `cache` of a route: a cache's name alone, or with rules of its own.

use std::ops::Range;
use std::time::Duration;

use super::super::document::{Fields, Node, Value, nearest};
use super::super::model::HttpCache;
use super::super::value::Template;
use super::Resolver;
use super::cache::millis;

/// What `ignore` may name.
const IGNORABLE: &[&str] = &[
    "cache-control",
    "expires",
    "set-cookie",
    "vary",
    "x-accel-expires",
];

impl Resolver<'_, '_> {
    pub(super) fn http_cache(&mut self, node: &Node) -> Option<HttpCache> {
        match &node.value {
            Value::Text(name) => {
                let place = self.cache_place(name, &node.span)?;
                Some(self.plain(place))
            }
            Value::Table(fields) => {
                let (name, span) = fields.text("name")?;
                let place = self.cache_place(name, span)?;
                Some(self.with_rules(place, fields))
            }
            _ => None,
        }
    }

    fn cache_place(&mut self, name: &str, span: &Range<usize>) -> Option<usize> {
        let place = self.caches.iter().position(|cache| cache.name == name);
        if place.is_none() {
            let known = self.caches.iter().map(|cache| cache.name.as_str());
            let hint = match nearest(name, known) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => format!("add [cache.{name}]"),
            };
            self.error(span, format!("there is no cache `{name}`: {hint}"));
        }
        place
    }

    /// What the table's defaults say, for a name that stands alone.
    fn plain(&self, place: usize) -> HttpCache {
        let cache = &self.caches[place];
        HttpCache {
            cache: place,
            key: None,
            methods: vec!["GET".to_owned(), "HEAD".to_owned()],
            bypass: Vec::new(),
            no_store: Vec::new(),
            valid: Vec::new(),
            heuristic: 0,
            revalidate: cache.revalidate,
            stale: cache.stale,
            retry: cache.retry,
            uncacheable: Duration::from_secs(10),
            min_uses: 1,
            ignore: Vec::new(),
            body_limit: 8 << 20,
            variants: 16,
            tags: vec!["surrogate-key".to_owned(), "cache-tag".to_owned()],
            status_header: Some("x-cache".to_owned()),
            client_directives: false,
            finish: true,
        }
    }

    fn with_rules(&mut self, place: usize, fields: &Fields) -> HttpCache {
        let plain = self.plain(place);
        let time = |name: &str, other: u64| match fields.node(name) {
            Some(_) => millis(fields.time(name)),
            None => other,
        };
        let key = match fields.node("key").map(|node| &node.value) {
            Some(Value::Template(key)) => Some(key.clone()),
            _ => None,
        };
        let methods = self.methods(fields.list("methods"));
        let other = |method: &&String| *method != "GET" && *method != "HEAD";
        if key.is_none()
            && let (Some(method), Some(node)) = (methods.iter().find(other), fields.node("methods"))
        {
            let message = format!(
                "answers to {method} depend on more than the URI: add `key`, or take {method} out"
            );
            self.error(&node.span, message);
        }
        let small = |name: &str| u8::try_from(fields.integer(name).unwrap_or(0)).unwrap_or(1);
        HttpCache {
            key,
            methods,
            bypass: templates(fields, "bypass"),
            no_store: templates(fields, "no_store"),
            valid: self.valid(fields),
            heuristic: small("heuristic"),
            revalidate: time("revalidate", plain.revalidate),
            stale: time("stale", plain.stale),
            retry: time("retry", plain.retry),
            uncacheable: fields.time("uncacheable"),
            min_uses: small("min_uses"),
            ignore: self.ignored(fields),
            body_limit: fields.size("body_limit").unwrap_or(plain.body_limit),
            variants: fields.count("variants").unwrap_or(plain.variants),
            tags: self.header_names(fields.list("tags")),
            status_header: self.status_header(fields),
            client_directives: fields.boolean("client_directives"),
            finish: fields.boolean("finish"),
            ..plain
        }
    }

    fn valid(&mut self, fields: &Fields) -> Vec<(Option<u16>, u64)> {
        let mut valid = Vec::new();
        match fields.node("valid").map(|node| &node.value) {
            Some(Value::Time(time)) => {
                valid.extend([200, 301, 302].map(|status| (Some(status), millis(*time))));
            }
            Some(Value::Table(table)) => {
                for entry in &table.entries {
                    let status = match entry.name.as_str() {
                        "any" => None,
                        name => match name.parse::<u16>() {
                            Ok(status @ 200..=599) if status != 206 && status != 304 => {
                                Some(status)
                            }
                            _ => {
                                let message = format!(
                                    "`{name}` is no status of an answer that can be stored: \
                                     write 200 or 404, for example, or `any`"
                                );
                                self.error(&entry.span, message);
                                continue;
                            }
                        },
                    };
                    if let Value::Time(time) = entry.node.value {
                        valid.push((status, millis(time)));
                    }
                }
                // What names a status comes before what is for all.
                valid.sort_by_key(|(status, _)| status.is_none());
            }
            _ => {}
        }
        valid
    }

    fn ignored(&mut self, fields: &Fields) -> Vec<String> {
        let names = self.header_names(fields.list("ignore"));
        for (name, node) in names.iter().zip(fields.list("ignore")) {
            if !IGNORABLE.contains(&name.as_str()) {
                let message = format!(
                    "`{name}` decides nothing here: it can be {}",
                    IGNORABLE.join(", ")
                );
                self.error(&node.span, message);
            }
        }
        names
    }

    fn header_names(&mut self, nodes: &[Node]) -> Vec<String> {
        let mut names = Vec::new();
        for node in nodes {
            let Some(name) = node.text() else { continue };
            if is_header_name(name) {
                names.push(name.to_ascii_lowercase());
            } else {
                self.error(&node.span, format!("`{name}` is not a header's name"));
            }
        }
        names
    }

    fn status_header(&mut self, fields: &Fields) -> Option<String> {
        let (name, span) = fields.text("status_header")?;
        if name.is_empty() {
            return None;
        }
        if !is_header_name(name) {
            self.error(span, format!("`{name}` is not a header's name"));
        }
        Some(name.to_ascii_lowercase())
    }
}

fn is_header_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(fits)
}

fn templates(fields: &Fields, name: &str) -> Vec<Template> {
    let one = |node: &Node| match &node.value {
        Value::Template(template) => Some(template.clone()),
        _ => None,
    };
    fields.list(name).iter().filter_map(one).collect()
}
