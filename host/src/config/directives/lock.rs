//! The directives of `[lock.NAME]`.

use super::{TIME, TIMEOUT};
use crate::config::definition::{Directive, Kind, Table};

pub(super) static LOCK: Table = Table {
    title: "[lock.NAME]",
    doc: "Locks with a line in which waiters stand; the name of one lock is a plugin's own.",
    directives: &[
        Directive::new(
            "hold",
            TIMEOUT,
            "How long an owner keeps a lock at most, unless it says so or renews.",
        )
        .default("\"30s\""),
        Directive::new(
            "wait",
            TIME,
            "How long a caller waits, unless it says so; \"0s\" is one look.",
        )
        .default("\"5s\""),
        Directive::new(
            "waiters",
            Kind::Integer {
                min: 0,
                max: 10_000_000,
            },
            "How many callers wait at once; one more gets an error.",
        )
        .default("65536"),
        Directive::new(
            "redis",
            Kind::Text,
            "The name of a `[redis.NAME]` in which the locks live; all servers that name it share them. \
             In the process where it is absent.",
        ),
        Directive::new(
            "prefix",
            Kind::Text,
            "What its keys in Redis begin with. `lock:`, the table's name and `:` where it is absent.",
        ),
    ],
};
