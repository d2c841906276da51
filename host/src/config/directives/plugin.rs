//! The directives of `[plugin.NAME]` and `[shared.NAME]`.

use super::{GRANT, MEMORY, STRINGS, TIME, TIMEOUT};
use crate::config::definition::{Directive, Kind, Table};

pub(super) static SHARED: Table = Table {
    title: "[shared.NAME]",
    doc: "A shared dict: memory that all workers share, `ngx.shared.NAME`.",
    directives: &[
        Directive::new(
            "size",
            MEMORY,
            "Its memory; when it is full, what was used longest ago goes.",
        )
        .required(),
        Directive::new(
            "waiters",
            Kind::Integer {
                min: 0,
                max: 1_000_000,
            },
            "How many may wait for changes at once, locks included; one more is refused.",
        )
        .default("10000"),
    ],
};

pub(super) static PLUGIN: Table = Table {
    title: "[plugin.NAME]",
    doc: "A plugin: a component, its configuration, what it may do and use up. The bundled Lua \
          plugin is there as `lua` without being written.",
    directives: &[
        Directive::new(
            "component",
            Kind::Text,
            "A Wasm file, or \"bundled:NAME\". Needed, but for the plugin named `lua`.",
        ),
        Directive::new(
            "config",
            Kind::PluginConfig,
            "The plugin's own configuration. Of a Lua plugin: `path`, the Lua of `init`, \
             `init_worker` and `exit_worker`, `max_threads`, `max_pending_timers`, \
             `max_running_timers`, `lua_check_client_abort` and `thread_pool`.",
        )
        .default("{}"),
        Directive::new(
            "allow",
            Kind::Table(&ALLOW),
            "What it may do; nothing by default.",
        )
        .default("{}"),
        Directive::new("limits", Kind::Table(&LIMITS), "What it may use up.").default("{}"),
        Directive::new("cosocket", Kind::Table(&COSOCKET), "Its sockets.").default("{}"),
        Directive::new(
            "isolation",
            Kind::Choice(&["pooled", "request"]),
            "\"request\": a fresh instance for every request.",
        )
        .default("\"pooled\""),
        Directive::later(
            "canary",
            "A second version that gets a part of the requests.",
        ),
    ],
};

/// The Lua of a Lua plugin's `config`.
pub static PLUGIN_LUA: Table = Table {
    title: "[plugin.lua] config",
    doc: "The Lua of a Lua plugin that belongs to no route.",
    directives: &[
        Directive::new("init", Kind::Lua, "Once, when the configuration is loaded."),
        Directive::new("init_worker", Kind::Lua, "When a worker starts."),
        Directive::new("exit_worker", Kind::Lua, "When a worker ends."),
    ],
};

static ALLOW: Table = Table {
    title: "[plugin.NAME] allow",
    doc: "What a plugin may do. Each key takes a list; \"*\" allows all of a kind.",
    directives: &[
        Directive::new(
            "connect",
            GRANT,
            "Sockets, as \"HOST:PORT\", where `*` may stand for either, \"unix:/path\" or \
             \"unix:/folder/*\".",
        )
        .default("[]"),
        Directive::new(
            "http",
            GRANT,
            "HTTP requests, as origins: \"https://api.example.com\".",
        )
        .default("[]"),
        Directive::new(
            "shared",
            GRANT,
            "Shared dicts, by name. A Lua plugin without a list sees all.",
        )
        .default("[]"),
        Directive::new(
            "cache",
            GRANT,
            "Caches, by name. A Lua plugin without a list sees all.",
        )
        .default("[]"),
        Directive::new(
            "lock",
            GRANT,
            "Tables of locks, by name. A Lua plugin without a list sees all.",
        )
        .default("[]"),
        Directive::new(
            "redis",
            GRANT,
            "Redis: \"NAME\", \"NAME: COMMAND\" or \"NAME: COMMAND KEYS\", where keys may end with \
             `*`. A Lua plugin without a list may use all.",
        )
        .default("[]"),
        Directive::new(
            "subrequest",
            GRANT,
            "Requests inside the server: \"/path\", \"/path/*\" or \"@name\". A Lua plugin without a \
             list may ask for all.",
        )
        .default("[]"),
        Directive::new("files", STRINGS, "Folders, as \"PATH:ro\" or \"PATH:rw\".").default("[]"),
        Directive::new("env", GRANT, "Environment variables, by name.").default("[]"),
        Directive::later("upstream", "Upstreams, by name."),
    ],
};

static COSOCKET: Table = Table {
    title: "[plugin.NAME] cosocket",
    doc: "A plugin's sockets: what a call that says nothing takes, and bounds. The names are nginx's, \
          without `lua_socket_` and `lua_ssl_`; `ca` is its `lua_ssl_trusted_certificate`.",
    directives: &[
        Directive::new(
            "ca",
            Kind::Text,
            "A PEM file with the authorities that TLS believes, in place of the public ones.",
        ),
        Directive::new(
            "certificate",
            Kind::Text,
            "A PEM file with the certificate for servers that ask for one; with `key`.",
        ),
        Directive::new("key", Kind::Text, "A PEM file with its private key."),
        Directive::new(
            "connect_timeout",
            TIMEOUT,
            "How long a connection or a handshake may take; of a Lua plugin.",
        )
        .default("\"60s\""),
        Directive::new(
            "send_timeout",
            TIMEOUT,
            "The longest pause between two writes; of a Lua plugin.",
        )
        .default("\"60s\""),
        Directive::new(
            "read_timeout",
            TIMEOUT,
            "The longest pause between two reads; of a Lua plugin.",
        )
        .default("\"60s\""),
        Directive::new(
            "receive_limit",
            // One read of the host.
            Kind::Size {
                min: 64 << 10,
                max: 1 << 30,
            },
            "The most that one `receive` gathers; more is the error \"too large\"; of a Lua plugin.",
        )
        .default("\"16m\""),
        Directive::new(
            "pool_size",
            Kind::Integer {
                min: 1,
                max: 100_000,
            },
            "Idle connections that a pool keeps.",
        )
        .default("30"),
        Directive::new(
            "keepalive_timeout",
            TIME,
            "How long a connection stays idle; \"0s\" is no limit; of a Lua plugin.",
        )
        .default("\"60s\""),
        Directive::new(
            "max_idle",
            Kind::Integer {
                min: 0,
                max: 1_000_000,
            },
            "Idle connections of all its pools, per worker.",
        )
        .default("4096"),
        Directive::new(
            "names",
            Kind::Integer {
                min: 0,
                max: 1_000_000,
            },
            "Names whose addresses a worker remembers.",
        )
        .default("1024"),
        Directive::new(
            "names_valid",
            TIME,
            "How long it does: the system's resolver tells no time to live.",
        )
        .default("\"5s\""),
    ],
};

static LIMITS: Table = Table {
    title: "[plugin.NAME] limits",
    doc: "What a plugin may use up.",
    directives: &[
        Directive::new(
            "memory",
            // One page of Wasm; 4 GiB is all that 32 bits reach.
            Kind::Size {
                min: 64 << 10,
                max: 4 << 30,
            },
            "Memory of an instance; \"64m\" when absent, \"256m\" for a Lua plugin or another reactor.",
        ),
        Directive::new(
            "cpu",
            TIMEOUT,
            "CPU time of one call of a handler; where the connection has left HTTP (a WebSocket), between two of its waits.",
        )
        .default("\"50ms\""),
        Directive::new(
            "deadline",
            TIMEOUT,
            "Time of one request in this plugin, waiting included.",
        )
        .default("\"60s\""),
        Directive::new(
            "watchdog",
            TIMEOUT,
            "How long a Lua plugin or another reactor may hold its worker at a stretch before the worker is replaced: its clients are let go, those who wait to be accepted are served by the next one; also how long a component's `init` may run.",
        )
        .default("\"10s\""),
        Directive::new(
            "instances",
            Kind::Integer {
                min: 1,
                max: 100_000,
            },
            "Instances per worker.",
        )
        .default("64"),
        Directive::new(
            "queue",
            Kind::Integer {
                min: 0,
                max: 1_000_000,
            },
            "Requests per worker that wait for an instance; more get 503.",
        )
        .default("1024"),
    ],
};
