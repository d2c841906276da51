//! The phases as the reactor numbers them, and sets of them: which function may be called where.

/// A phase's number in `docs/reactor.md`.
pub(crate) type Phase = u8;

pub(crate) const INIT: Phase = 0;
pub(crate) const SERVER_REWRITE: Phase = 5;
pub(crate) const SET: Phase = 6;
pub(crate) const REWRITE: Phase = 7;
pub(crate) const ACCESS: Phase = 8;
pub(crate) const PRECONTENT: Phase = 9;
pub(crate) const CONTENT: Phase = 10;
pub(crate) const BALANCER: Phase = 11;
pub(crate) const HEADER_FILTER: Phase = 12;
pub(crate) const BODY_FILTER: Phase = 13;
pub(crate) const LOG: Phase = 14;
pub(crate) const TIMER: Phase = 15;

/// A set of phases, one bit each.
pub(crate) type Set = u16;

/// A set of one phase.
pub(crate) const fn set(phase: Phase) -> Set {
    1 << phase
}

/// Phases that may answer.
pub(crate) const ANSWER: Set =
    set(SERVER_REWRITE) | set(REWRITE) | set(ACCESS) | set(PRECONTENT) | set(CONTENT);
/// Phases that have an exchange.
pub(crate) const EXCHANGE: Set =
    ANSWER | set(SET) | set(BALANCER) | set(HEADER_FILTER) | set(BODY_FILTER) | set(LOG);
/// Phases in which `ngx.exit` is known.
pub(crate) const EXIT: Set =
    ANSWER | set(HEADER_FILTER) | set(BALANCER) | set(TIMER) | set(3) | set(4);
/// All but `init`.
pub(crate) const WAIT: Set = !set(INIT);

/// In configuration and messages.
const NAMES: [(&str, &str, &str); 16] = [
    ("init", "init", "init_by_lua*"),
    ("init_worker", "init_worker", "init_worker_by_lua*"),
    ("exit_worker", "exit_worker", "exit_worker_by_lua*"),
    (
        "client_hello",
        "ssl_client_hello",
        "ssl_client_hello_by_lua*",
    ),
    ("certificate", "ssl_cert", "ssl_certificate_by_lua*"),
    ("server_rewrite", "server_rewrite", "server_rewrite_by_lua*"),
    ("set", "set", "set_by_lua*"),
    ("rewrite", "rewrite", "rewrite_by_lua*"),
    ("access", "access", "access_by_lua*"),
    ("precontent", "precontent", "precontent_by_lua*"),
    ("content", "content", "content_by_lua*"),
    ("balancer", "balancer", "balancer_by_lua*"),
    ("header_filter", "header_filter", "header_filter_by_lua*"),
    ("body_filter", "body_filter", "body_filter_by_lua*"),
    ("log", "log", "log_by_lua*"),
    ("timer", "timer", "ngx.timer"),
];

/// The number of a phase that the program names.
pub(crate) fn parse(name: &str) -> Option<Phase> {
    NAMES
        .iter()
        .zip(0..)
        .find(|((n, _, _), _)| *n == name)
        .map(|(_, i)| i)
}

/// What `ngx.get_phase` gives.
pub(crate) fn lua_name(phase: Phase) -> &'static str {
    NAMES.get(usize::from(phase)).map_or("unknown", |n| n.1)
}

/// How OpenResty's messages name a phase.
pub(crate) fn context_name(phase: Phase) -> &'static str {
    NAMES.get(usize::from(phase)).map_or("(unknown)", |n| n.2)
}
