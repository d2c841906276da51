//! Reload and drain: no request is lost by HUP or QUIT, a bad file changes nothing, shared dicts
//! live on.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::process::Signal;

use crate::client::{Client, get};
use crate::harness::Server;

/// Clients that send without a pause.
const CLIENTS: usize = 8;

fn config(word: &str) -> String {
    format!(
        r#"
[server]
listen = ["127.0.0.1:{{port}}"]
workers = 2

[shared.kept]
size = "1m"

[[route]]
path = "/hello"
lua.content = "ngx.say('{word}')"

[[route]]
path = "/wait"
lua.content = "ngx.sleep(0.02) ngx.say('{word}')"

[[route]]
path = "/long"
lua.content = "ngx.sleep(0.5) ngx.say('{word}')"

[[route]]
path = "/count"
lua.content = "ngx.say(ngx.shared.kept:incr('n', 1, 0))"
"#
    )
}

/// Sends requests from several clients until `done`; gives how many were answered. Each must be
/// answered in full; a connection may be closed only between two answers, after `Connection: close`
/// or, when `ends`, for good.
fn load(port: u16, done: &AtomicBool, served: &AtomicUsize, ends: bool) {
    let mut client = Client::connect(port);
    while !done.load(Ordering::Relaxed) {
        let response = match client.get("/wait") {
            Ok(response) => response,
            Err(_) if ends && done.load(Ordering::Relaxed) => return,
            Err(error) => panic!("a lost request: {error}"),
        };
        assert_eq!(response.status, 200);
        served.fetch_add(1, Ordering::Relaxed);
        if response
            .header("connection")
            .is_some_and(|value| value == "close")
        {
            if ends {
                return;
            }
            client = Client::connect(port);
        }
    }
}

#[test]
fn hup_under_load_loses_none() {
    let server = Server::start(&config("old"), &[]);
    let port = server.port();
    let done = AtomicBool::new(false);
    let served = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| load(port, &done, &served, false));
        }
        for word in ["one", "two", "three"] {
            server.rewrite(&config(word));
            server.reload();
            assert_eq!(get(port, "/hello").text(), format!("{word}\n"));
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(served.load(Ordering::Relaxed) > 0);
    server.stop(Signal::QUIT);
}

#[test]
fn quit_under_load_loses_none() {
    let server = Server::start(&config("word"), &[]);
    let port = server.port();
    // Requests whose head was read when QUIT comes are answered.
    let mut clients: Vec<Client> = (0..100).map(|_| Client::connect(port)).collect();
    for client in &mut clients {
        // The first answer shows that the connection is accepted and served.
        assert_eq!(client.get("/hello").unwrap().status, 200);
        client.send("GET /long HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    assert_eq!(get(port, "/hello").status, 200);
    let readers: Vec<_> = clients
        .into_iter()
        .map(|mut client| thread::spawn(move || client.response(false)))
        .collect();
    server.stop(Signal::QUIT);
    for reader in readers {
        let response = reader.join().unwrap().expect("a lost request");
        assert_eq!((response.status, response.text().as_str()), (200, "word\n"));
    }
}

#[test]
fn a_request_ends_on_the_generation_on_which_it_began() {
    let server = Server::start(&config("old"), &[]);
    let mut client = Client::connect(server.port());
    client.send("GET /long HTTP/1.1\r\nHost: x\r\n\r\n");
    // Served after it, so the first one is under way.
    assert_eq!(get(server.port(), "/hello").text(), "old\n");
    server.rewrite(&config("new"));
    server.reload();
    assert_eq!(get(server.port(), "/hello").text(), "new\n");
    assert_eq!(client.response(false).unwrap().text(), "old\n");
    server.stop(Signal::QUIT);
}

#[test]
fn a_bad_file_changes_nothing() {
    let server = Server::start(&config("old"), &[]);
    let port = server.port();
    for bad in [
        "[[route]]\npath = 7\n",
        "[server\n",
        "[server]\nlisten = [\"127.0.0.1:{port}\"]\n[[route]]\npath = \"/\"\nlua.content = \"x =\"\n",
    ] {
        server.rewrite(bad);
        let mark = server.mark();
        let log = server.reload();
        server.wait_log(r"phasor\.toml:\d+", mark);
        assert_eq!(get(port, "/hello").text(), "old\n", "{log}");
    }
    server.rewrite(&config("new"));
    server.reload();
    assert_eq!(get(port, "/hello").text(), "new\n");
    server.stop(Signal::QUIT);
}

#[test]
fn shared_dicts_outlive_a_reload() {
    let server = Server::start(&config("old"), &[]);
    assert_eq!(get(server.port(), "/count").text(), "1nilfalse\n");
    server.reload();
    assert_eq!(get(server.port(), "/count").text(), "2nilfalse\n");
    server.stop(Signal::QUIT);
}

#[test]
fn routes_come_and_go() {
    let server = Server::start(&config("old"), &[]);
    assert_eq!(get(server.port(), "/new").status, 404);
    let more = "\n[[route]]\npath = \"/new\"\nrespond = { status = 200, body = \"here\" }\n";
    server.rewrite(&format!("{}{more}", config("old")));
    server.reload();
    assert_eq!(get(server.port(), "/new").text(), "here");
    server.rewrite(&config("old"));
    server.reload();
    assert_eq!(get(server.port(), "/new").status, 404);
    server.stop(Signal::QUIT);
}

#[test]
fn term_and_int_end_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = Server::start(&config("old"), &[]);
        let mut client = Client::connect(server.port());
        client.send("GET /long HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(get(server.port(), "/hello").status, 200);
        server.stop(signal);
    }
}
