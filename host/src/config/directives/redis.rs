//! The directives of `[redis.NAME]`.

use super::{TIME, TIMEOUT};
use crate::config::definition::{Directive, Kind, Table};

pub(super) static REDIS: Table = Table {
    title: "[redis.NAME]",
    doc: "A Redis server by name. Each worker has one connection to it (to each node of a cluster), which all requests share.",
    directives: &[
        Directive::new(
            "url",
            Kind::Text,
            "\"redis://[USER:PASSWORD@]HOST[:PORT][/DB]\"; `rediss` for TLS, \
             \"redis+sentinel://A:1,B:2/MASTER[/DB]\", \"redis+cluster://A:1,B:2\", \
             \"unix:/PATH[?db=N]\".",
        )
        .required(),
        Directive::new(
            "timeout",
            TIMEOUT,
            "How long a command may take, once there is a connection.",
        )
        .default("\"1s\""),
        Directive::new(
            "connect_timeout",
            TIMEOUT,
            "How long a connection may take to come about.",
        )
        .default("\"1s\""),
        Directive::new(
            "reply_limit",
            Kind::Size {
                min: 1 << 10,
                max: 1 << 30,
            },
            "The longest reply; a longer one is refused and its connection closed.",
        )
        .default("\"16m\""),
        Directive::new(
            "queue",
            Kind::Integer {
                min: 1,
                max: 1_000_000,
            },
            "Commands per worker that wait for an answer; one more is refused.",
        )
        .default("1024"),
        Directive::new(
            "subscriptions",
            Kind::Integer {
                min: 0,
                max: 100_000,
            },
            "Subscriptions per worker; each has a connection of its own.",
        )
        .default("64"),
        Directive::new(
            "backlog",
            Kind::Integer {
                min: 1,
                max: 1_000_000,
            },
            "Messages of a subscription that nobody has read yet; one more ends it.",
        )
        .default("1024"),
        Directive::new(
            "breaker",
            Kind::Table(&BREAKER),
            "When commands fail at once instead of waiting for a server that is away.",
        )
        .default("{}"),
        Directive::new(
            "protocol",
            Kind::Choice(&["auto", "resp2", "resp3"]),
            "\"auto\" is RESP3 where the server has it.",
        )
        .default("\"auto\""),
        Directive::new(
            "ca",
            Kind::Text,
            "A PEM file with the authorities that `rediss` believes, in place of the public ones.",
        ),
    ],
};

static BREAKER: Table = Table {
    title: "breaker",
    doc: "A circuit breaker.",
    directives: &[
        Directive::new(
            "failures",
            Kind::Integer {
                min: 1,
                max: 10_000,
            },
            "Time-outs and lost connections in a row that open it.",
        )
        .default("5"),
        Directive::new(
            "pause",
            TIME,
            "How long it stays open before the server is tried again.",
        )
        .default("\"500ms\""),
    ],
};
