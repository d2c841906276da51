//! The directives of `proxy`.

use super::{TIME, TIMEOUT};
use crate::config::definition::{Directive, Kind, Table};

pub(super) const PROXY_KIND: Kind = Kind::Either(&[Kind::Text, Kind::Table(&PROXY)]);

static PROXY: Table = Table {
    title: "proxy",
    doc: "A server that makes the answer. Headers and paths pass as with nginx's `proxy_pass`: a path \
          in the URL takes the place of what the route's path matched, without one the path passes \
          as it came. `Host` is the peer's; `X-Forwarded-For` and its like pass as the client sent them, \
          and a handler in `access` may set them. What belongs to one connection (RFC 9110, 7.6.1) and \
          trailers do not pass.",
    directives: &[
        Directive::new("url", Kind::Text, "\"http://HOST:PORT\", or with a path.").required(),
        Directive::new(
            "connect_timeout",
            TIMEOUT,
            "How long a connection may take to come about; then 504.",
        )
        .default("\"60s\""),
        Directive::new(
            "send_timeout",
            TIMEOUT,
            "The longest pause between two writes of the request; then 504.",
        )
        .default("\"60s\""),
        Directive::new(
            "read_timeout",
            TIMEOUT,
            "The longest pause between two reads of the answer; then 504.",
        )
        .default("\"60s\""),
        Directive::new(
            "keepalive",
            Kind::Integer {
                min: 0,
                max: 100_000,
            },
            "Idle connections that each worker keeps.",
        )
        .default("32"),
        Directive::new("keepalive_timeout", TIME, "How long it keeps them.").default("\"60s\""),
        Directive::new(
            "ca",
            Kind::Text,
            "A PEM file with the authorities that \"https\" believes, in place of the public ones.",
        ),
    ],
};
