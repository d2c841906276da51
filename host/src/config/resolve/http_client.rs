//! `[http_client]` is one for all plugins.

use super::super::document::Fields;
use super::super::model::HttpClient;
use super::Resolver;

impl Resolver<'_, '_> {
    pub(super) fn http_client(&mut self, fields: &Fields) -> HttpClient {
        HttpClient {
            connect_timeout: fields.time("connect_timeout"),
            keepalive: fields.count("keepalive").unwrap_or(32),
            connections: fields
                .count("connections")
                .and_then(|count| u32::try_from(count).ok()?.try_into().ok()),
            keepalive_timeout: fields.time("keepalive_timeout"),
            http2: fields.boolean("http2"),
            ca: self.file(fields, "ca"),
        }
    }
}
