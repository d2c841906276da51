//! Waiting costs a worker nothing: a thousand sleeping requests end together, and an answer that
//! nobody reads holds up no other.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{Client, get};
use crate::harness::Server;
use crate::process::{PATIENCE, bound};

/// How many requests sleep at once.
const SLEEPERS: usize = 1000;

#[test]
fn a_thousand_requests_sleep_at_once() {
    // Nobody wakes before the last one has come to sleep: one VM has them all at once.
    let config = r#"
[server]
workers = 1

[[route]]
path = "/sleep"
lua.content = """
local all = package.loaded.all or { count = 0 }
package.loaded.all = all
all.count = all.count + 1
repeat ngx.sleep(1) until all.count == 1000
ngx.say('awake')
"""
"#;
    let server = Server::start(config, &[]);
    let mut clients: Vec<Client> = (0..SLEEPERS)
        .map(|_| Client::connect(server.port()))
        .collect();
    let start = Instant::now();
    for client in &mut clients {
        client.send("GET /sleep HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    for client in &mut clients {
        let response = client.response(false).unwrap();
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, "awake\n")
        );
    }
    let took = start.elapsed();
    assert!(
        took >= Duration::from_secs(1),
        "they did not sleep: {took:?}"
    );
    assert!(
        took < bound(Duration::from_secs(4), Duration::from_secs(30)),
        "{SLEEPERS} sleeps of 1 s took {took:?}"
    );
    server.stop(Signal::QUIT);
}

#[test]
fn an_answer_that_nobody_reads_holds_up_no_other() {
    let config = r#"
[server]
workers = 1

[[route]]
path = "/flood"
lua.content = "local s = string.rep('x', 65536) for _ = 1, 2000 do ngx.print(s) ngx.flush(true) end"

[[route]]
path = "/hello"
lua.content = "ngx.say('hello')"
"#;
    let server = Server::start(config, &[]);
    let mut deaf = Client::connect(server.port());
    deaf.send("GET /flood HTTP/1.1\r\nHost: x\r\n\r\n");
    for _ in 0..50 {
        let start = Instant::now();
        assert_eq!(get(server.port(), "/hello").text(), "hello\n");
        let took = start.elapsed();
        assert!(took < bound(Duration::from_secs(2), PATIENCE), "{took:?}");
    }
    let response = deaf.response(false).unwrap();
    assert_eq!(response.body.len(), 2000 * 65536);
    server.stop(Signal::QUIT);
}

#[test]
fn a_client_that_leaves_ends_its_handler() {
    let config = r#"
[server]
workers = 1

[[route]]
path = "/sleep"
lua.content = "ngx.sleep(60) ngx.say('never')"
lua.log = "ngx.log(ngx.WARN, 'logged ', ngx.status)"

[[route]]
path = "/hello"
lua.content = "ngx.say('hello')"
"#;
    let server = Server::start(config, &[]);
    let mark = server.mark();
    let mut client = Client::connect(server.port());
    client.send("GET /sleep HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(get(server.port(), "/hello").status, 200);
    drop(client);
    // `log` runs for every request whose head was read.
    server.wait_log(r"logged \d+", mark);
    server.stop(Signal::QUIT);
}
