//! The directives of `[cache.NAME]`.

use super::{MEMORY, TIME, TIMEOUT};
use crate::config::definition::{Directive, Kind, Table};

pub(super) static CACHE: Table = Table {
    title: "[cache.NAME]",
    doc: "A cache by name: decoded values in each instance, bytes in the process, and levels behind.",
    directives: &[
        Directive::new("l1", Kind::Table(&L1), "Decoded values in each instance.").default("{}"),
        Directive::new("l2", Kind::Table(&L2), "Bytes in the process's memory.").default("{}"),
        Directive::new(
            "disk",
            Kind::Table(&DISK),
            "Values on disk, which survive a restart, and a kill too.",
        ),
        Directive::new(
            "l3",
            Kind::Table(&L3),
            "A Redis that several servers share. They hear of each other's changes, too.",
        ),
        Directive::new(
            "ttl",
            TIME,
            "How long a value lives, unless its source says so; \"0s\" is for ever.",
        )
        .default("\"30s\""),
        Directive::new(
            "negative_ttl",
            TIME,
            "How long it is remembered that there is no value; \"0s\" is for ever.",
        )
        .default("\"5s\""),
        Directive::new(
            "stale",
            TIME,
            "How long past its ttl a value may serve when its source fails.",
        )
        .default("\"0s\""),
        Directive::new(
            "retry",
            TIMEOUT,
            "How long a failed source is left alone while a stale value serves.",
        )
        .default("\"1s\""),
        Directive::new(
            "revalidate",
            TIME,
            "How long past its ttl a value serves all others while one caller brings a new one.",
        )
        .default("\"0s\""),
        Directive::new(
            "refresh_ahead",
            TIME,
            "How long before its end one caller brings a new value, while the old one serves all \
             others.",
        )
        .default("\"0s\""),
        Directive::new(
            "jitter",
            Kind::Integer { min: 0, max: 100 },
            "By how many percent at most a ttl is cut at random, so that values that came together \
             do not end together.",
        )
        .default("0"),
        Directive::new(
            "wait",
            TIME,
            "How long a caller waits for another that brings the value.",
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
            "lease",
            TIMEOUT,
            "How long one caller may take to bring a value before the next in line may.",
        )
        .default("\"30s\""),
    ],
};

static L1: Table = Table {
    title: "[cache.NAME] l1",
    doc: "Decoded values in each instance.",
    directives: &[
        Directive::new(
            "items",
            Kind::Integer {
                min: 0,
                max: 10_000_000,
            },
            "How many; 0 is none.",
        )
        .default("1000"),
        Directive::new(
            "longest",
            Kind::Size {
                min: 0,
                max: 1 << 32,
            },
            "The longest value, in bytes as it is stored, of which an instance keeps its own copy. So \
             an instance's copies are of `items` times as many bytes at most.",
        )
        .default("\"64k\""),
    ],
};

static L2: Table = Table {
    title: "[cache.NAME] l2",
    doc: "Bytes in the process's memory.",
    directives: &[
        Directive::new(
            "size",
            MEMORY,
            "Its memory; when it is full, what is seldom used goes. An eighth of it is for what was \
             written last.",
        )
        .default("\"64m\""),
        Directive::new(
            "negative",
            Kind::Size {
                min: 1 << 10,
                max: 1 << 39,
            },
            "The part of `size` for the keys that have no value; when it is full, the one that was not \
             asked for the longest goes. An eighth of `size` where it is absent; half of it at most.",
        ),
    ],
};

static DISK: Table = Table {
    title: "[cache.NAME] disk",
    doc: "Values on disk, in a folder that one server uses.",
    directives: &[
        Directive::new(
            "path",
            Kind::Text,
            "The folder; it is made if it is not there, and nothing else may be in it.",
        )
        .required(),
        Directive::new(
            "size",
            Kind::Size {
                min: 16 << 20,
                max: 1 << 42,
            },
            "Its bytes on disk; when it is full the oldest values go. No value is longer than a 64th of \
             it, nor than 8m. Another size begins empty.",
        )
        .default("\"1g\""),
        Directive::new(
            "min_ttl",
            TIME,
            "What is of use for a shorter time is not written.",
        )
        .default("\"5s\""),
        Directive::new(
            "queue",
            Kind::Size {
                min: 64 << 10,
                max: 1 << 40,
            },
            "Memory for values that wait to be written; when it is full the next ones are dropped.",
        )
        .default("\"16m\""),
        Directive::new(
            "timeout",
            TIMEOUT,
            "How long a caller waits for the disk at most; a look-up ends as a miss then.",
        )
        .default("\"500ms\""),
    ],
};

static L3: Table = Table {
    title: "[cache.NAME] l3",
    doc: "Values in a Redis that several servers share.",
    directives: &[
        Directive::new("redis", Kind::Text, "The name of a `[redis.NAME]`.").required(),
        Directive::new(
            "prefix",
            Kind::Text,
            "What its keys begin with; servers and caches with the same one share values. The cache's \
             name and `:` where it is absent.",
        ),
        Directive::new(
            "compress",
            Kind::Size {
                min: 0,
                max: 1 << 40,
            },
            "From which size on a value is compressed (zstd).",
        )
        .default("\"4k\""),
        Directive::new(
            "away",
            Kind::Choice(&["drop", "queue"]),
            "What becomes of values while Redis is away: \"queue\" keeps them to write them later. \
             Which keys were changed is kept in any case.",
        )
        .default("\"drop\""),
        Directive::new(
            "queue",
            Kind::Size {
                min: 1 << 10,
                max: 1 << 40,
            },
            "Memory for what waits; when it is full the cache is emptied in Redis instead.",
        )
        .default("\"8m\""),
        Directive::new(
            "cluster",
            Kind::Boolean,
            "One server at a time asks the source of a key; the others wait for what it brings.",
        )
        .default("false"),
        Directive::new(
            "lease",
            Kind::Time { min: 1000 },
            "For how long a server that asks a source may be silent, because it died, before another \
             one asks.",
        )
        .default("\"3s\""),
    ],
};
