//! The directives of `cache` on a route.

use super::{ANY_SIZE, METHOD_LIST, STRINGS, TIME, TIMEOUT};
use crate::config::definition::{Directive, Kind, Table};

pub(super) const HTTP_CACHE_KIND: Kind = Kind::Either(&[Kind::Text, Kind::Table(&HTTP_CACHE)]);

static HTTP_CACHE: Table = Table {
    title: "[[route]] cache",
    doc: "Keeps the answers of a route by HTTP's rules (RFC 9111), whatever makes them.",
    directives: &[
        Directive::new("name", Kind::Text, "The `[cache.NAME]` that holds them.").required(),
        Directive::new(
            "key",
            Kind::Template,
            "What answers are told apart by, with $variables; absent: scheme, host, path and query.",
        ),
        Directive::new(
            "methods",
            METHOD_LIST,
            "Methods whose answers are kept; more than GET and HEAD need a `key`.",
        )
        .default("[\"GET\", \"HEAD\"]"),
        Directive::new(
            "bypass",
            TEMPLATES,
            "The stored answer is not used where one of these is neither empty nor \"0\".",
        )
        .default("[]"),
        Directive::new(
            "no_store",
            TEMPLATES,
            "The answer is not stored where one of these is neither empty nor \"0\".",
        )
        .default("[]"),
        Directive::new(
            "valid",
            Kind::Either(&[TIME, Kind::Map(&TIME)]),
            "How long an answer lives that says nothing of it: a time for 200, 301 and 302, or a \
             table by status (and `any`).",
        ),
        Directive::new(
            "heuristic",
            Kind::Integer { min: 0, max: 100 },
            "An answer that says nothing lives so many percent of the time since it was modified.",
        )
        .default("0"),
        Directive::new(
            "revalidate",
            TIME,
            "How long past its end an answer serves while a new one is brought; absent: the \
             cache's. The answer's own `stale-while-revalidate` comes first.",
        ),
        Directive::new(
            "stale",
            TIME,
            "How long past its end an answer serves when no new one can be brought; absent: the \
             cache's. The answer's own `stale-if-error` comes first.",
        ),
        Directive::new(
            "retry",
            TIME,
            "How long what failed is left alone while a stale answer serves; absent: the cache's.",
        ),
        Directive::new(
            "uncacheable",
            TIMEOUT,
            "How long it is remembered that an answer may not be stored: meanwhile nobody waits for \
             another's.",
        )
        .default("\"10s\""),
        Directive::new(
            "min_uses",
            Kind::Integer { min: 1, max: 255 },
            "An answer is stored when it was asked for so often.",
        )
        .default("1"),
        Directive::new(
            "ignore",
            STRINGS,
            "Headers of the answer that do not decide: \"cache-control\", \"expires\", \
             \"set-cookie\", \"vary\", \"x-accel-expires\".",
        )
        .default("[]"),
        Directive::new("body_limit", ANY_SIZE, "The longest body that is stored.")
            .default("\"8m\""),
        Directive::new(
            "variants",
            Kind::Integer { min: 1, max: 1024 },
            "How many answers one URI may have by `Vary`; the oldest goes.",
        )
        .default("16"),
        Directive::new(
            "tags",
            STRINGS,
            "Headers of the answer that name its tags, by which it can be purged.",
        )
        .default("[\"surrogate-key\", \"cache-tag\"]"),
        Directive::new(
            "status_header",
            Kind::Text,
            "The header that says what the cache did; \"\" is none.",
        )
        .default("\"x-cache\""),
        Directive::new(
            "client_directives",
            Kind::Boolean,
            "Whether a client's `Cache-Control` can demand a new answer.",
        )
        .default("false"),
        Directive::new(
            "finish",
            Kind::Boolean,
            "Whether an answer is brought to its end and stored although its client has left.",
        )
        .default("true"),
    ],
};

/// One template, or a list.
const TEMPLATES: Kind = Kind::OneOrMore(&Kind::Template);
