//! A language runtime that never comes back costs its worker, not the server.

use std::time::Instant;

use crate::client::{Client, get};
use crate::harness::{Folder, Server};
use crate::process::PATIENCE;

/// Takes its first job and spins. Called `lua.wasm`, it is compiled without epochs.
const SPINS: &str = r#"
(component
  (import "phasor:plugin/reactor@0.1.0" (instance $reactor
    (export "next" (func (param "done" (list u8)) (result (list u8))))))
  (core module $libc
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024))
  (core instance $libc (instantiate $libc))
  (alias core export $libc "memory" (core memory $memory))
  (alias core export $libc "realloc" (core func $realloc))
  (core func $next (canon lower (func $reactor "next") (memory $memory) (realloc $realloc)))
  (core module $code
    (import "host" "next" (func $next (param i32 i32 i32)))
    (import "libc" "memory" (memory 1))
    (func (export "prepare") (result i32) i32.const 16)
    (func (export "run")
      (loop $wait
        (call $next (i32.const 0) (i32.const 0) (i32.const 32))
        (br_if $wait (i32.eqz (i32.load (i32.const 36)))))
      (loop $spin (br $spin))))
  (core instance $host (export "next" (func $next)))
  (core instance $main (instantiate $code
    (with "host" (instance $host)) (with "libc" (instance $libc))))
  (func $prepare (result (result (error string)))
    (canon lift (core func $main "prepare") (memory $memory)))
  (func $run (canon lift (core func $main "run")))
  (instance $pump (export "prepare" (func $prepare)) (export "run" (func $run)))
  (export "phasor:plugin/pump@0.1.0" (instance $pump)))
"#;

const CONFIG: &str = r#"
[server]
workers = 1

[plugin.lua]
component = "lua.wasm"
limits = { watchdog = "500ms" }

[[route]]
path = "/spin"
lua.content = "spin"

[[route]]
path = "/hello"
respond = { status = 200, body = "hello" }
"#;

#[test]
fn a_worker_that_hangs_is_replaced_and_the_fourth_ends_the_process() {
    let folder = Folder::new();
    folder.write("lua.wasm", wat::parse_str(SPINS).unwrap());
    let mut server = Server::start_in(folder, CONFIG);
    let port = server.port();
    let mut clients = Vec::new();
    for round in 1..=4 {
        assert_eq!(get(port, "/hello").text(), "hello", "round {round}");
        let mark = server.mark();
        let mut client = Client::connect(port);
        client.send("GET /spin HTTP/1.1\r\nHost: x\r\n\r\n");
        clients.push(client);
        // Others wait on the same worker: one idle, one whose request nobody reads.
        let mut idle = Client::connect(port);
        let mut waits = Client::connect(port);
        waits.send("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
        let start = Instant::now();
        server.wait_log(r"\[alert\].*plugin `lua` has held worker 0", mark);
        if round == 4 {
            server.wait_log("cannot be taken back", mark);
            break;
        }
        // All are let go with their worker, long before their own time-outs.
        if let Some(hung) = clients.last_mut() {
            assert!(hung.response(false).is_err(), "round {round}");
        }
        assert!(idle.get("/hello").is_err(), "round {round}");
        // The new worker may have taken it over from the line before the sockets.
        let _let_go = waits.response(false).is_err();
        assert!(start.elapsed() < PATIENCE / 2, "round {round}");
        // A client that comes before the new sockets are there may be reset.
        while Client::connect(port).get("/hello").is_err() {
            assert!(start.elapsed() < PATIENCE / 2, "round {round}");
        }
    }
    let status = server.process().wait(PATIENCE);
    assert_eq!(status.and_then(|status| status.code()), Some(70));
}

#[test]
fn a_reload_does_not_wait_for_a_worker_that_hangs() {
    let folder = Folder::new();
    folder.write("lua.wasm", wat::parse_str(SPINS).unwrap());
    let server = Server::start_in(folder, CONFIG);
    let port = server.port();
    let mut hung = Client::connect(port);
    hung.send("GET /spin HTTP/1.1\r\nHost: x\r\n\r\n");
    server.reload();
    // The worker that takes its place begins with the new generation, and the supervisor did not
    // give up on it first.
    server.wait_log(r"\[alert\].*plugin `lua` has held worker 0", 0);
    let log = server.log_since(0);
    assert!(!log.contains("does not answer"), "{log}");
    assert!(hung.response(false).is_err());
    let start = Instant::now();
    while Client::connect(port).get("/hello").is_err() {
        assert!(start.elapsed() < PATIENCE);
    }
    server.stop(rustix::process::Signal::TERM);
}
