//! The directives of `[http_client]`.

use super::{TIME, TIMEOUT};
use crate::config::definition::{Directive, Kind, Table};

pub(super) static HTTP_CLIENT: Table = Table {
    title: "[http_client]",
    doc: "How plugins reach other HTTP services. What a request may take in time and length is its own.",
    directives: &[
        Directive::new(
            "connect_timeout",
            TIMEOUT,
            "How long a connection may take to come about, TLS included.",
        )
        .default("\"10s\""),
        Directive::new(
            "keepalive",
            Kind::Integer {
                min: 0,
                max: 100_000,
            },
            "Idle connections that each worker keeps, per origin.",
        )
        .default("32"),
        Directive::new(
            "connections",
            Kind::Integer {
                min: 1,
                max: 100_000,
            },
            "Connections that each worker has to one origin at most: a request more waits in line, within \
             its own time-out, until one before it has its whole answer.",
        )
        .default("1024"),
        Directive::new("keepalive_timeout", TIME, "How long it keeps them.").default("\"60s\""),
        Directive::new(
            "http2",
            Kind::Boolean,
            "HTTP/2 where a server offers it over TLS.",
        )
        .default("true"),
        Directive::new(
            "ca",
            Kind::Text,
            "A PEM file with the authorities that \"https\" believes, in place of the public ones.",
        ),
    ],
};
