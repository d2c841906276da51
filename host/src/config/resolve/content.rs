//! A route has one content at most; which of the keys that name one stand there, and what they
//! say, is settled here.

use super::super::document::{Entry, Fields, Value};
use super::super::model::{Content, Files, LuaHandler, Respond};
use super::super::value::Template;
use super::Resolver;

impl Resolver<'_, '_> {
    /// The content of a route; `lua` is what its `lua.content` has become.
    pub(super) fn content(&mut self, fields: &Fields, lua: Option<LuaHandler>) -> Option<Content> {
        self.check_one_content(fields);
        // All are resolved even when one is too many: each may have faults of its own.
        let plugin = match fields.text("content") {
            Some((name, span)) => self.plugin_index(name, span).map(Content::Plugin),
            None => None,
        };
        let respond = fields
            .table("respond")
            .map(|table| Content::Respond(self.respond(table)));
        let files = match fields.table("files") {
            Some(table) => self.files(table).map(Content::Files),
            None => None,
        };
        let proxy = fields
            .node("proxy")
            .and_then(|node| self.proxy(node, fields))
            .map(Content::Proxy);
        plugin
            .or(respond)
            .or(files)
            .or(proxy)
            .or(lua.map(Content::Lua))
    }

    fn check_one_content(&mut self, fields: &Fields) {
        let lua = fields.table("lua").and_then(|lua| lua.entry("content"));
        let mut found: Vec<(&str, &Entry)> = ["content", "respond", "files", "proxy"]
            .into_iter()
            .filter_map(|name| fields.entry(name).map(|entry| (name, entry)))
            .chain(lua.map(|entry| ("lua.content", entry)))
            .collect();
        found.sort_by_key(|(_, entry)| entry.span.start);
        if let [(first, entry), rest @ ..] = found.as_slice() {
            let line = self.reporter.line_of(entry.span.start);
            for (name, entry) in rest {
                let message = format!(
                    "a route has one content: `{name}` cannot stand beside `{first}` on line {line}"
                );
                self.error(&entry.span, message);
            }
        }
    }

    fn respond(&mut self, fields: &Fields) -> Respond {
        let status = fields
            .integer("status")
            .and_then(|status| u16::try_from(status).ok());
        let template = |name: &str| match fields.node(name).map(|node| &node.value) {
            Some(Value::Template(template)) => Some(template.clone()),
            _ => None,
        };
        let mut headers: Vec<(String, Template)> = Vec::new();
        if let Some(template) = template("content_type") {
            headers.push(("content-type".to_owned(), template));
        }
        for entry in fields
            .table("headers")
            .map_or(&[][..], |table| &table.entries)
        {
            let Value::Template(value) = &entry.node.value else {
                continue;
            };
            let name = &entry.name;
            if name.is_empty() || !name.bytes().all(is_header_byte) {
                self.error(&entry.span, format!("`{name}` is not a header's name"));
            } else if headers
                .iter()
                .any(|(known, _)| known.eq_ignore_ascii_case(name))
            {
                self.error(
                    &entry.span,
                    format!("`{name}` is there already: take one out"),
                );
            } else if !value.fits_header() {
                self.error(
                    &entry.node.span,
                    "a header's value is one line: take the line break out",
                );
            } else {
                headers.push((name.clone(), value.clone()));
            }
        }
        Respond {
            status: status.unwrap_or(200),
            headers,
            body: template("body").unwrap_or_default(),
        }
    }

    fn files(&mut self, fields: &Fields) -> Option<Files> {
        let (root, span) = fields.text("root")?;
        let root = self.folder(root, span);
        let mut index = Vec::new();
        for node in fields.list("index") {
            let Some(name) = node.text() else { continue };
            if name.is_empty() || name.contains('/') {
                let message =
                    format!("`{name}` is not a file's name: write \"index.html\", for example");
                self.error(&node.span, message);
            } else {
                index.push(name.to_owned());
            }
        }
        Some(Files {
            root,
            index,
            listing: fields.boolean("listing"),
        })
    }
}

fn is_header_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
