//! A handler that goes wrong costs its own request: 500 with the reason in the log, the next
//! request works, and the others are served meanwhile.

use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, get};
use crate::harness::Server;
use crate::process::bound;

/// How long a request beside a bad one may take: far more than it needs on a machine that is busy, far
/// less than a bad one without a limit would hold it up.
fn most_beside() -> Duration {
    bound(Duration::from_millis(1500), Duration::from_secs(5))
}

const LUA: &str = r#"
[server]
workers = 1

[plugin.lua]
limits = { memory = "64m", cpu = "200ms" }

[[route]]
path = "/hello"
lua.content = "ngx.say('hello')"

[[route]]
path = "/loop"
lua.content = "while true do end"

[[route]]
path = "/loop-in-pcall"
lua.content = "while true do pcall(function() while true do end end) end"

[[route]]
path = "/pattern"
lua.content = "ngx.say(string.find(string.rep('a', 100000), string.rep('a-', 30) .. 'b'))"

[[route]]
path = "/recurse"
lua.content = "local function f() return 1 + f() end f()"

[[route]]
path = "/recurse-in-gsub"
lua.content = "local function f() return (('x'):gsub('x', f)) end f()"

[[route]]
path = "/parse"
lua.content = "assert(loadstring('return ' .. string.rep('(', 100000)))"
"#;

const RUST: &str = r#"
[server]
workers = 1

[plugin.faulty]
component = "{guests}/faulty.wasm"
limits = { memory = "8m", cpu = "100ms" }

[[route]]
path = "/*"
content = "faulty"

[[route]]
path = "/hello"
respond = { status = 200, body = "hello" }
"#;

/// Sends a bad request, and good ones while it runs; then demands that all is well.
fn survives(server: &Server, path: &str, reason: &str) {
    let mark = server.mark();
    let port = server.port();
    let mut bad = Client::connect(port);
    let mut beside = Client::connect(port);
    bad.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    let mut worst = Duration::ZERO;
    for _ in 0..20 {
        let start = Instant::now();
        let response = beside
            .get("/hello")
            .unwrap_or_else(|error| panic!("beside {path}: {error}"));
        worst = worst.max(start.elapsed());
        assert_eq!(
            response.status,
            200,
            "beside {path}; log:\n{}",
            server.log_since(mark)
        );
    }
    let response = bad
        .response(false)
        .unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!(
        response.status,
        500,
        "{path}; log:\n{}",
        server.log_since(mark)
    );
    server.wait_log(reason, mark);
    assert!(
        worst < most_beside(),
        "{path}: a request beside it took {worst:?}"
    );
    assert_eq!(get(port, "/hello").status, 200, "after {path}");
}

#[test]
fn lua() {
    let server = Server::start(LUA, &[]);
    assert_eq!(get(server.port(), "/hello").text(), "hello\n");
    let faults = [
        ("/loop", r"\[error\].*(cpu|CPU|time)"),
        ("/loop-in-pcall", r"\[error\].*(cpu|CPU|time)"),
        ("/pattern", r"\[error\].*(cpu|CPU|time|too complex)"),
        ("/recurse", r"\[error\].*stack overflow"),
        ("/recurse-in-gsub", r"\[error\].*(stack overflow|C levels)"),
        ("/parse", r"\[error\].*(C levels|overflow|too many)"),
    ];
    for (path, reason) in faults {
        survives(&server, path, reason);
    }
    // A fault of one request leaves the others' waiting handlers alone.
    server.stop(rustix::process::Signal::QUIT);
}

#[test]
fn rust() {
    let server = Server::start(RUST, &[]);
    // Who, where, and the guest's own stack.
    let faults = [
        ("/panic", "plugin trapped", "give_up"),
        (
            "/loop",
            "plugin exceeded its CPU limit",
            "content@0.1.0#handle",
        ),
        (
            "/alloc",
            "plugin exceeded its memory limit",
            "content@0.1.0#handle",
        ),
        ("/recurse", "plugin trapped", "dig"),
    ];
    for (path, reason, function) in faults {
        let reason = format!(
            r#"(?s)\[error\][^\n]*{reason}: [^\n]*wasm backtrace:\n.*faulty\.wasm!\S*{function}.*plugin: "faulty", phase: content, client: 127\.0\.0\.1, request: "GET {path} HTTP"#
        );
        for _ in 0..3 {
            survives(&server, path, &reason);
        }
    }
    server.stop(rustix::process::Signal::QUIT);
}

#[test]
fn the_log_names_the_plugin_that_failed() {
    let config = r#"
[server]
workers = 1
lua.vm = "first"
lua.access = "if ngx.var.arg_fail then error('on purpose') end"

[plugin.first]
component = "bundled:lua"

[plugin.second]
component = "bundled:lua"

[[route]]
path = "/*"
lua.vm = "second"
lua.access = "if ngx.var.arg_late then error('later') end"
respond = { status = 200, body = "served" }
"#;
    let server = Server::start(config, &[]);
    assert_eq!(get(server.port(), "/").text(), "served");
    // Both have a handler in the phase; the one that runs first fails.
    let mark = server.mark();
    assert_eq!(get(server.port(), "/?fail=1").status, 500);
    server.wait_log(r#"on purpose(?s:.*)plugin: "first", phase: access"#, mark);
    let mark = server.mark();
    assert_eq!(get(server.port(), "/?late=1").status, 500);
    server.wait_log(r#"later(?s:.*)plugin: "second", phase: access"#, mark);
    server.stop(rustix::process::Signal::QUIT);
}

#[test]
fn waiting_lua_requests_outlive_a_fault_of_another() {
    let config = r#"
[server]
workers = 1

[[route]]
path = "/sleep"
lua.content = "ngx.sleep(1) ngx.say('awake')"

[[route]]
path = "/error"
lua.content = "error('boom')"

[[route]]
path = "/loop"
lua.content = "while true do end"
"#;
    let server = Server::start(config, &[]);
    let port = server.port();
    thread::scope(|scope| {
        let sleepers: Vec<_> = (0..10)
            .map(|_| scope.spawn(move || get(port, "/sleep")))
            .collect();
        for path in ["/error", "/loop", "/error"] {
            assert_eq!(get(port, path).status, 500);
        }
        for sleeper in sleepers {
            let response = sleeper.join().unwrap();
            assert_eq!(
                (response.status, response.text().as_str()),
                (200, "awake\n")
            );
        }
    });
    server.stop(rustix::process::Signal::QUIT);
}
