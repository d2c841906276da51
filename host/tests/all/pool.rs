//! Instances of a component: made when they are needed up to a bound, then waited for in a line with
//! an end, at the longest until the deadline.

use std::time::Instant;

use rustix::process::Signal;

use crate::client::{Client, get};
use crate::harness::Server;
use crate::process::PATIENCE;

/// Who waits on `/short` has a deadline of its own; what holds an instance has a long one.
const CONFIG: &str = r#"
[server]
workers = 1

[plugin.two]
component = "{guests}/faulty.wasm"
limits = { instances = 2, queue = 1, deadline = "50s" }

[plugin.short]
component = "{guests}/access.wasm"
limits = { deadline = "2s" }

[[route]]
path = "/long/*"
content = "two"

[[route]]
path = "/short/*"
plugins = ["short"]
content = "two"

[[route]]
path = "/hello"
respond = { status = 200, body = "hello" }
"#;

/// A request that holds an instance until its client goes.
fn hold(port: u16) -> Client {
    let mut client = Client::connect(port);
    client.send("GET /long/sleep?ms=45000 HTTP/1.1\r\nHost: x\r\n\r\n");
    client
}

fn short(port: u16) -> u16 {
    let mut client = Client::connect(port);
    client.send(
        "GET /short/status?code=204 HTTP/1.1\r\nHost: x\r\nX-Key: open\r\nConnection: close\r\n\r\n",
    );
    client.response(false).unwrap().status
}

/// Asks until the log has it.
fn short_until(server: &Server, reason: &str) {
    let (start, mark) = (Instant::now(), server.mark());
    while !server.log_since(mark).contains(reason) {
        let status = short(server.port());
        assert!(status == 204 || status == 503, "{status}");
        assert!(start.elapsed() < PATIENCE, "{}", server.log_since(mark));
    }
}

#[test]
fn what_goes_on_after_a_call_needs_a_handler() {
    let server = Server::start(CONFIG, &[]);
    let answer = get(server.port(), "/long/afterwards");
    let text = answer.text();
    assert!(
        text.contains("The plugin has no `timer` interface."),
        "{text}"
    );
}

#[test]
fn a_pool_grows_then_makes_wait_then_refuses() {
    let server = Server::start(CONFIG, &[]);
    let port = server.port();
    // One instance sleeps: a second one is made.
    let first = hold(port);
    for _ in 0..5 {
        assert_eq!(short(port), 204);
    }
    // Both sleep: who comes now waits until its deadline, and is answered 503.
    let second = hold(port);
    short_until(
        &server,
        "all are busy until the deadline (limits.instances)",
    );
    let start = Instant::now();
    assert_eq!(short(port), 503);
    assert!(start.elapsed().as_secs() >= 2, "it did not wait");
    // One waits with a long deadline: the line is full, and who comes now need not wait.
    let mut waits = Client::connect(port);
    waits.send("GET /long/status?code=204 HTTP/1.1\r\nHost: x\r\n\r\n");
    short_until(&server, "too many requests wait (limits.queue)");
    assert_eq!(get(port, "/hello").text(), "hello");
    // A client that leaves gives its place to the one that waits.
    drop(first);
    assert_eq!(waits.response(false).unwrap().status, 204);
    assert_eq!(short(port), 204);
    drop(second);
    server.stop(Signal::QUIT);
}
