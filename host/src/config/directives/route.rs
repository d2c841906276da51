//! The directives of `[[route]]`.

use super::http_cache::HTTP_CACHE_KIND;
use super::proxy::PROXY_KIND;
use super::{ANY_SIZE, ERROR_PAGE, ERROR_PAGE_DOC, METHOD_LIST, STRINGS, VM};
use crate::config::definition::{Directive, Kind, Table};

static ROUTE_LUA: Table = Table {
    title: "[[route]] lua",
    doc: "Lua of a route, one key a phase.",
    directives: &[
        Directive::new("rewrite", Kind::Lua, "The URI may still change."),
        Directive::new("access", Kind::Lua, "Lets in or answers."),
        Directive::new("precontent", Kind::Lua, "Before the content."),
        Directive::new("content", Kind::Lua, "Makes the answer."),
        Directive::new(
            "header_filter",
            Kind::Lua,
            "The answer's head, before it is sent.",
        ),
        Directive::new("body_filter", Kind::Lua, "Each chunk of the answer's body."),
        Directive::new("log", Kind::Lua, "After the answer has left."),
        VM,
    ],
};

pub(super) static ROUTE: Table = Table {
    title: "[[route]]",
    doc: "Requests that are treated alike. The host decides first (exact, longest wildcard, none), \
          then an exact path, else the longest prefix, unless a regex matches, in the file's order.",
    directives: &[
        Directive::new(
            "name",
            Kind::Text,
            "Its name; `exec` and `error_page` reach it as `@NAME`.",
        ),
        Directive::new(
            "host",
            Kind::Text,
            "\"example.com\" or \"*.example.com\"; absent: every host.",
        ),
        Directive::new(
            "path",
            Kind::Text,
            "A path; with `*` at its end a prefix: \"/api/*\".",
        ),
        Directive::new(
            "regex",
            Kind::Raw,
            "A regular expression instead of `path`.",
        ),
        Directive::new(
            "final",
            Kind::Boolean,
            "On a prefix: regexes are not tried.",
        )
        .default("false"),
        Directive::new(
            "internal",
            Kind::Boolean,
            "Reached by `exec`, `error_page`, a changed URI and subrequests only; for clients it is not there.",
        )
        .default("false"),
        Directive::new(
            "methods",
            METHOD_LIST,
            "Which methods; absent: all. GET includes HEAD.",
        )
        .default("[]"),
        Directive::new(
            "plugins",
            STRINGS,
            "Plugins in this order; each runs in every phase that it has a handler for.",
        )
        .default("[]"),
        Directive::new(
            "set",
            Kind::Map(&Kind::Either(&[Kind::Template, Kind::Table(&SET)])),
            "Variables: a string with $variables, { lua = … } or { plugin = … }.",
        )
        .default("{}"),
        Directive::new("lua", Kind::Table(&ROUTE_LUA), "Lua, one key a phase.").default("{}"),
        Directive::new("content", Kind::Text, "The plugin that makes the answer."),
        Directive::new("respond", Kind::Table(&RESPOND), "A fixed answer."),
        Directive::new("files", Kind::Table(&FILES), "Files of a folder."),
        Directive::new("body_limit", ANY_SIZE, "As in `[server]`."),
        Directive::new("error_page", ERROR_PAGE, ERROR_PAGE_DOC).default("{}"),
        Directive::new(
            "proxy",
            PROXY_KIND,
            "A server that makes the answer: \"http://HOST:PORT\", or a table.",
        ),
        Directive::new(
            "cache",
            HTTP_CACHE_KIND,
            "Keeps the answers: a `[cache.NAME]`, or a table with rules.",
        ),
    ],
};

static SET: Table = Table {
    title: "set",
    doc: "How a variable is computed: one of the two.",
    directives: &[
        Directive::new("lua", Kind::Lua, "Lua that returns the value."),
        Directive::new("plugin", Kind::Text, "A plugin that gives the value."),
        VM,
    ],
};

static RESPOND: Table = Table {
    title: "respond",
    doc: "A fixed answer.",
    directives: &[
        Directive::new(
            "status",
            Kind::Integer { min: 200, max: 599 },
            "The status.",
        )
        .default("200"),
        Directive::new("body", Kind::Template, "The body, with $variables.").default("\"\""),
        Directive::new(
            "content_type",
            Kind::Template,
            "The `Content-Type`; \"text/plain\" for a body without.",
        ),
        Directive::new(
            "headers",
            Kind::Map(&Kind::Template),
            "More headers, with $variables.",
        )
        .default("{}"),
    ],
};

static FILES: Table = Table {
    title: "files",
    doc: "Files of a folder; the route's path is a part of the file's path, as with nginx's `root`.",
    directives: &[
        Directive::new("root", Kind::Text, "The folder.").required(),
        Directive::new(
            "index",
            Kind::OneOrMore(&Kind::Text),
            "What answers for a folder.",
        )
        .default("\"index.html\""),
        Directive::new(
            "listing",
            Kind::Boolean,
            "Whether a folder without index is listed.",
        )
        .default("false"),
    ],
};
