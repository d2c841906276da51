//! Which host function may be called in which phase: one table, so that the run-time check, the
//! documentation in `wit/` and the test that compares them cannot differ.

use super::{Phase, PhaseSet};

const ALL: PhaseSet = PhaseSet::ALL;
const WAITING: PhaseSet = PhaseSet::ALL.difference(PhaseSet::of(&[Phase::Init]));
const EXCHANGE: PhaseSet = PhaseSet::of(&[
    Phase::ServerRewrite,
    Phase::Set,
    Phase::Rewrite,
    Phase::Access,
    Phase::Precontent,
    Phase::Content,
    Phase::Balancer,
    Phase::HeaderFilter,
    Phase::BodyFilter,
    Phase::Log,
]);
const BEFORE_LOG: PhaseSet = EXCHANGE.difference(PhaseSet::of(&[Phase::Log]));
const REQUEST_HEAD: PhaseSet = PhaseSet::of(&[
    Phase::ServerRewrite,
    Phase::Rewrite,
    Phase::Access,
    Phase::Precontent,
    Phase::Content,
    Phase::HeaderFilter,
]);
const HANDLERS: PhaseSet = PhaseSet::of(&[
    Phase::Rewrite,
    Phase::Access,
    Phase::Precontent,
    Phase::Content,
]);
const ANSWER: PhaseSet = HANDLERS.with(Phase::ServerRewrite);

/// Every host function with the phases in which it may be called, in the order of `wit/`.
pub const RULES: &[(&str, PhaseSet)] = &[
    ("cache.begin-delete", WAITING),
    ("cache.begin-get", WAITING),
    ("cache.begin-purge", WAITING),
    ("cache.begin-purge-answers", WAITING),
    ("cache.begin-renew", WAITING),
    ("cache.begin-set", WAITING),
    ("cache.counters", ALL),
    ("cache.delete", WAITING),
    ("cache.end-change", WAITING),
    ("cache.end-get", WAITING),
    ("cache.flight", WAITING),
    ("cache.fresh", ALL),
    ("cache.get", WAITING),
    ("cache.open", ALL),
    ("cache.peek", ALL),
    ("cache.purge", WAITING),
    ("cache.purge-answers", WAITING),
    ("cache.renew", WAITING),
    ("cache.set", WAITING),
    ("cache.unchanged", ALL),
    ("config.json", ALL),
    ("config.plugin-name", ALL),
    ("context.get", EXCHANGE),
    ("context.set", EXCHANGE),
    ("cosocket.datagram", WAITING),
    ("cosocket.stream", WAITING),
    ("downstream.begin-take", ANSWER),
    ("downstream.body", ANSWER),
    ("downstream.end-take", ANSWER),
    ("downstream.take", ANSWER),
    ("error-log.max-level", ALL),
    ("error-log.write", ALL),
    ("exchange.connection", EXCHANGE),
    ("exchange.exec", HANDLERS),
    ("exchange.id", EXCHANGE),
    ("http-client.begin-fetch", WAITING),
    ("http-client.begin-open", WAITING),
    ("http-client.body", WAITING),
    ("http-client.end-fetch", WAITING),
    ("http-client.end-open", WAITING),
    ("http-client.fetch", WAITING),
    ("http-client.open", WAITING),
    ("http-client.upload", WAITING),
    ("lock.acquire", WAITING),
    ("lock.begin-acquire", WAITING),
    ("lock.end-acquire", WAITING),
    ("lock.guard", WAITING),
    ("lock.open", ALL),
    ("operation.operation.ready", WAITING),
    ("operation.wait-any", WAITING),
    ("reactor.begin-call", WAITING),
    ("reactor.end-call", WAITING),
    ("reactor.find-module", ALL),
    ("reactor.read-source", ALL),
    ("reactor.keep-on", EXCHANGE),
    ("reactor.next", WAITING),
    ("reactor.program", ALL),
    ("reactor.select", ALL),
    ("reactor.watch", WAITING),
    ("redis.begin-command", WAITING),
    ("redis.begin-eval", WAITING),
    ("redis.begin-pipeline", WAITING),
    ("redis.begin-transaction", WAITING),
    ("redis.command", WAITING),
    ("redis.end-command", WAITING),
    ("redis.end-pipeline", WAITING),
    ("redis.eval", WAITING),
    ("redis.pipeline", WAITING),
    ("redis.subscription", WAITING),
    ("redis.transaction", WAITING),
    ("request.add-header", REQUEST_HEAD),
    ("request.begin-read", ANSWER),
    ("request.begin-read-body", ANSWER),
    ("request.discard-body", ANSWER),
    ("request.end-read", ANSWER),
    ("request.end-read-body", ANSWER),
    ("request.get-header", EXCHANGE),
    ("request.get-headers", EXCHANGE),
    ("request.head", EXCHANGE),
    ("request.method", EXCHANGE),
    ("request.read", ANSWER),
    ("request.read-body", ANSWER),
    ("request.set-body", ANSWER),
    ("request.set-header", REQUEST_HEAD),
    ("request.set-method", REQUEST_HEAD),
    ("request.set-uri", REQUEST_HEAD),
    ("request.uri", EXCHANGE),
    ("response.add-header", BEFORE_LOG),
    ("response.begin-write", ANSWER),
    ("response.end-write", ANSWER),
    ("response.finish", ANSWER),
    ("response.get-header", EXCHANGE),
    ("response.get-headers", EXCHANGE),
    ("response.head-sent", EXCHANGE),
    ("response.send", ANSWER),
    ("response.set-header", BEFORE_LOG),
    ("response.set-status", BEFORE_LOG),
    ("response.status", EXCHANGE),
    ("response.write", ANSWER),
    ("shared-dict.add-in-turn", WAITING),
    ("shared-dict.begin-add-in-turn", WAITING),
    ("shared-dict.begin-wait", WAITING),
    ("shared-dict.dict", ALL),
    ("shared-dict.end-wait", WAITING),
    ("shared-dict.wait", WAITING),
    ("subrequest.begin-capture", ANSWER),
    ("subrequest.capture", ANSWER),
    ("subrequest.depth", EXCHANGE),
    ("subrequest.end-capture", ANSWER),
    ("time.cpu", ALL),
    ("time.local-offset", ALL),
    ("time.monotonic", ALL),
    ("time.now", ALL),
    ("time.update", ALL),
    ("timers.begin-sleep", WAITING),
    ("timers.cancel", WAITING),
    ("timers.end-sleep", WAITING),
    ("timers.sleep", WAITING),
    ("timers.start", WAITING),
    ("timers.start-here", WAITING),
    ("variable.get", EXCHANGE),
    ("variable.get-many", EXCHANGE),
    ("variable.set", EXCHANGE),
    ("worker.count", ALL),
    ("worker.exiting", ALL),
    ("worker.id", ALL),
    ("worker.pid", ALL),
    ("worker.prefix", ALL),
    ("worker.random", ALL),
];

/// The phases of one function, to be asked for in a constant: an unknown name does not compile.
#[must_use]
#[expect(
    clippy::panic,
    reason = "evaluated at compile time: an unknown name is a compile error"
)]
pub const fn of(function: &str) -> PhaseSet {
    let mut i = 0;
    while i < RULES.len() {
        if same(RULES[i].0, function) {
            return RULES[i].1;
        }
        i += 1;
    }
    panic!("no such host function")
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}
