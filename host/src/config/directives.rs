//! Every directive of `phasor.toml` stands here and nowhere else: what is added here is read,
//! checked for unknown keys, in the JSON schema and on the reference page.

use super::definition::{Directive, Kind, Table};

mod cache;
mod http_cache;
mod http_client;
mod lock;
mod plugin;
mod proxy;
mod redis;
mod route;

use cache::CACHE;
use http_client::HTTP_CLIENT;
use lock::LOCK;
pub use plugin::PLUGIN_LUA;
use plugin::{PLUGIN, SHARED};
use redis::REDIS;
use route::ROUTE;

const METHOD_LIST: Kind = Kind::List(&Kind::Text);
/// Zero would end everything at once.
const TIMEOUT: Kind = Kind::Time { min: 1 };
const TIME: Kind = Kind::Time { min: 0 };
/// Memory of a shared dict or a cache. Below this a dict has no room for one entry of each size class.
const MEMORY: Kind = Kind::Size {
    min: 8 << 10,
    max: 1 << 40,
};
const STRINGS: Kind = Kind::List(&Kind::Text);
const ANY_SIZE: Kind = Kind::Size {
    min: 0,
    max: u64::MAX,
};
/// `"*"` is one string, everything else a list.
const GRANT: Kind = Kind::OneOrMore(&Kind::Text);

/// The whole file.
pub static ROOT: Table = Table {
    title: "phasor.toml",
    doc: "The configuration. Only `[[route]]` is needed.",
    directives: &[
        Directive::new("server", Kind::Table(&SERVER), "What holds for all routes.").default("{}"),
        Directive::new(
            "shared",
            Kind::Map(&Kind::Table(&SHARED)),
            "Shared dicts by name: memory that all workers share, `ngx.shared.NAME`.",
        )
        .default("{}"),
        Directive::new(
            "redis",
            Kind::Map(&Kind::Table(&REDIS)),
            "Redis servers by name.",
        )
        .default("{}"),
        Directive::new(
            "http_client",
            Kind::Table(&HTTP_CLIENT),
            "How plugins reach other HTTP services.",
        )
        .default("{}"),
        Directive::new("cache", Kind::Map(&Kind::Table(&CACHE)), "Caches by name.").default("{}"),
        Directive::new("lock", Kind::Map(&Kind::Table(&LOCK)), "Locks by name.").default("{}"),
        Directive::new(
            "plugin",
            Kind::Map(&Kind::Table(&PLUGIN)),
            "Plugins by name.",
        )
        .default("{}"),
        Directive::new("route", Kind::List(&Kind::Table(&ROUTE)), "Routes.").default("[]"),
        Directive::later("tls", "Certificates by name."),
        Directive::later("upstream", "Groups of peers by name."),
    ],
};

static SERVER: Table = Table {
    title: "[server]",
    doc: "What holds for all routes. The table may be left out.",
    directives: &[
        Directive::new(
            "listen",
            Kind::OneOrMore(&Kind::Either(&[Kind::Text, Kind::Table(&LISTEN)])),
            "Addresses to listen on: \"IP:PORT\", \"*:PORT\", or a table.",
        )
        .default("[\"127.0.0.1:8000\"]"),
        Directive::new(
            "workers",
            Kind::Either(&[Kind::Choice(&["auto"]), Kind::Integer { min: 1, max: 1024 }]),
            "How many worker threads; \"auto\" is one per core.",
        )
        .default("\"auto\""),
        Directive::new(
            "plugins",
            STRINGS,
            "Plugins that run on every route, before the route's own.",
        )
        .default("[]"),
        Directive::new(
            "watch",
            Kind::Boolean,
            "Reload when this file, a component or a Lua file changes.",
        )
        .default("false"),
        Directive::new(
            "compile_cache",
            Kind::Either(&[Kind::Text, Kind::Table(&COMPILE_CACHE)]),
            "Compiled components on disk, so that a restart compiles nothing: a folder, \"off\", or a table.",
        )
        .default("{}"),
        Directive::new(
            "pid",
            Kind::Text,
            "The file that holds the server's process number, locked while it runs; \"off\" is none. \
             When the key is absent `phasor stop` and `phasor reload` find the server by this file's path.",
        ),
        Directive::new(
            "body_limit",
            ANY_SIZE,
            "The longest request body; more is 413. \"0\": no limit.",
        )
        .default("\"1m\""),
        Directive::new(
            "header_limit",
            Kind::Size {
                min: 8 << 10,
                max: 16 << 20,
            },
            "The longest request head; more is 431.",
        )
        .default("\"32k\""),
        Directive::new("idle_timeout", TIME, "How long an idle connection is kept.")
            .default("\"75s\""),
        Directive::new(
            "header_timeout",
            TIMEOUT,
            "How long a request's head may take.",
        )
        .default("\"60s\""),
        Directive::new(
            "body_timeout",
            TIMEOUT,
            "The longest pause between two reads of a request's body; then 408.",
        )
        .default("\"60s\""),
        Directive::new(
            "send_timeout",
            TIMEOUT,
            "The longest pause between two writes of an answer.",
        )
        .default("\"60s\""),
        Directive::new(
            "tunnel_timeout",
            TIME,
            "The longest silence, both ways, of a connection that has left HTTP: a WebSocket, an \
             upgrade that `proxy` passes on, `ngx.req.socket(true)`. \"0s\": no limit.",
        )
        .default("\"1h\""),
        Directive::new(
            "drain",
            TIME,
            "How long requests in progress may take when the server ends.",
        )
        .default("\"30s\""),
        Directive::new(
            "max_connections",
            Kind::Integer {
                min: 1,
                max: 1_000_000,
            },
            "Open client connections per worker.",
        )
        .default("10000"),
        Directive::new(
            "keepalive_requests",
            Kind::Integer {
                min: 1,
                max: i64::MAX,
            },
            "Requests on one connection before it is closed.",
        )
        .default("1000"),
        Directive::new(
            "subrequest_depth",
            Kind::Integer { min: 1, max: 1000 },
            "How deep subrequests may nest.",
        )
        .default("50"),
        Directive::new(
            "subrequests",
            Kind::Integer {
                min: 1,
                max: 10_000,
            },
            "Subrequests that one request may have in progress.",
        )
        .default("200"),
        Directive::new(
            "subrequest_body_limit",
            ANY_SIZE,
            "The longest body of a subrequest's answer; the rest is cut off. \"0\": no limit.",
        )
        .default("\"16m\""),
        Directive::new(
            "access_log",
            Kind::Either(&[Kind::Text, Kind::Table(&ACCESS_LOG)]),
            "One line per request: a path, or a table.",
        )
        .default("{}"),
        Directive::new(
            "error_log",
            Kind::Either(&[Kind::Text, Kind::Table(&ERROR_LOG)]),
            "What the server and its plugins have to say: a path, or a table.",
        )
        .default("{}"),
        Directive::new(
            "trusted_proxies",
            STRINGS,
            "Addresses whose `X-Forwarded-For` is believed, like \"10.0.0.0/8\".",
        )
        .default("[]"),
        Directive::new("error_page", ERROR_PAGE, ERROR_PAGE_DOC).default("{}"),
        Directive::new(
            "lua",
            Kind::Table(&SERVER_LUA),
            "Lua of every route, one key a phase.",
        )
        .default("{}"),
        Directive::later(
            "admin",
            "Health, metrics, reload and dashboard on an address of their own.",
        ),
    ],
};

const ERROR_PAGE: Kind = Kind::Map(&Kind::Text);
const ERROR_PAGE_DOC: &str =
    "What answers instead of a status: `404 = \"/404.html\"`, `\"500 502\" = \"@oops\"`.";

static LISTEN: Table = Table {
    title: "listen",
    doc: "An address to listen on.",
    directives: &[
        Directive::new("address", Kind::Text, "\"IP:PORT\" or \"*:PORT\".").required(),
        Directive::new(
            "backlog",
            Kind::Integer {
                min: 1,
                max: 65_535,
            },
            "Waiting connections that the kernel keeps.",
        )
        .default("511"),
        Directive::later("tls", "The `[tls.NAME]` of this address."),
    ],
};

static COMPILE_CACHE: Table = Table {
    title: "compile_cache",
    doc: "Compiled components on disk.",
    directives: &[
        Directive::new(
            "path",
            Kind::Text,
            "A folder that nobody else can write to; \"off\" is none. When the key is absent: \
             `PHASOR_CACHE`, else `phasor` in the user's cache folder.",
        ),
        Directive::new(
            "size",
            Kind::Size {
                min: 1 << 20,
                max: u64::MAX,
            },
            "Its bytes; what was not used for longest goes first.",
        )
        .default("\"512m\""),
    ],
};

static ACCESS_LOG: Table = Table {
    title: "access_log",
    doc: "One line per request.",
    directives: &[
        Directive::new(
            "path",
            Kind::Text,
            "A file; \"-\" is standard output, \"off\" is none.",
        )
        .default("\"-\""),
        Directive::new(
            "format",
            Kind::Template,
            "\"combined\" (nginx's), \"json\", or a template with $variables.",
        )
        .default("\"combined\""),
    ],
};

static ERROR_LOG: Table = Table {
    title: "error_log",
    doc: "What the server and its plugins have to say.",
    directives: &[
        Directive::new(
            "path",
            Kind::Text,
            "A file; \"-\" is standard error, \"off\" is none.",
        )
        .default("\"-\""),
        Directive::new(
            "level",
            Kind::Choice(&[
                "debug", "info", "notice", "warn", "error", "crit", "alert", "emerg",
            ]),
            "The least severe level that is written.",
        )
        .default("\"notice\""),
        Directive::new(
            "format",
            Kind::Choice(&["text", "json"]),
            "What a line looks like.",
        )
        .default("\"text\""),
    ],
};

const VM: Directive = Directive::new(
    "vm",
    Kind::Text,
    "The Lua plugin that runs this code; `lua` when the key is absent.",
);

static SERVER_LUA: Table = Table {
    title: "[server] lua",
    doc: "Lua that runs for every request. A route's own Lua runs after it in each phase.",
    directives: &[
        Directive::new("server_rewrite", Kind::Lua, "Before the route is found."),
        Directive::new(
            "rewrite",
            Kind::Lua,
            "The route is known; the URI may still change.",
        ),
        Directive::new("access", Kind::Lua, "Lets in or answers."),
        Directive::new("precontent", Kind::Lua, "Before the content."),
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
