//! A language runtime that never comes back costs its worker, not the server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use crate::client::{Client, get};
use crate::harness::{Folder, Server, free_port};
use crate::process::PATIENCE;

/// Takes its first job, says so in the log and spins. Called `lua.wasm`, it is compiled without epochs.
const SPINS: &str = r#"
(component
  (import "phasor:plugin/reactor@0.1.0" (instance $reactor
    (export "next" (func (param "done" (list u8)) (result (list u8))))))
  (import "phasor:plugin/error-log@0.1.0" (instance $log
    (type $levels (enum "emerg" "alert" "crit" "error" "warn" "notice" "info" "debug"))
    (export "level" (type $level (eq $levels)))
    (export "write" (func (param "level" $level) (param "message" string)))))
  (core module $libc
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024))
  (core instance $libc (instantiate $libc))
  (alias core export $libc "memory" (core memory $memory))
  (alias core export $libc "realloc" (core func $realloc))
  (core func $next (canon lower (func $reactor "next") (memory $memory) (realloc $realloc)))
  (core func $write (canon lower (func $log "write") (memory $memory) string-encoding=utf8))
  (core module $code
    (import "host" "next" (func $next (param i32 i32 i32)))
    (import "host" "write" (func $write (param i32 i32 i32)))
    (import "libc" "memory" (memory 1))
    (data (i32.const 512) "it spins")
    (func (export "prepare") (result i32) i32.const 16)
    (func (export "run")
      (loop $wait
        (call $next (i32.const 0) (i32.const 0) (i32.const 32))
        (br_if $wait (i32.eqz (i32.load (i32.const 36)))))
      (call $write (i32.const 3) (i32.const 512) (i32.const 8))
      (loop $spin (br $spin))))
  (core instance $host (export "next" (func $next)) (export "write" (func $write)))
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
limits = { watchdog = "2s" }

[[route]]
path = "/spin"
lua.content = "spin"

[[route]]
path = "/tunnel"
proxy = "http://127.0.0.1:{peer}"

[[route]]
path = "/hello"
respond = { status = 200, body = "hello" }
"#;

/// A server whose Lua hangs; behind `/tunnel` is a peer that changes the protocol and then waits.
fn server() -> Server {
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = peer.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut open = Vec::new();
        for stream in peer.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            let answer = "HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
            open.push(reader);
        }
    });
    let folder = Folder::new();
    folder.write("lua.wasm", wat::parse_str(SPINS).unwrap());
    Server::start_in(folder, &CONFIG.replace("{peer}", &port.to_string()))
}

const HELLO: &str = "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n";

/// Makes the worker hang and waits until it does.
fn hang(server: &Server) -> Client {
    let mark = server.mark();
    let mut client = Client::connect(server.port());
    client.send("GET /spin HTTP/1.1\r\nHost: x\r\n\r\n");
    server.wait_log("it spins", mark);
    client
}

/// A connection that has left HTTP.
fn tunnel(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let ask = "GET /tunnel HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    stream.write_all(ask.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    stream
}

#[test]
fn a_worker_that_hangs_is_replaced_and_the_fourth_ends_the_process() {
    let mut server = server();
    let port = server.port();
    for round in 1..=4 {
        let mut waits = Client::connect(port);
        assert_eq!(waits.get("/hello").unwrap().text(), "hello", "{round}");
        let mut idle = Client::connect(port);
        assert_eq!(idle.get("/hello").unwrap().text(), "hello", "{round}");
        let mut tunnel = tunnel(port);
        let mark = server.mark();
        let mut hung = hang(&server);
        waits.send(HELLO);
        // The kernel takes these for the worker, which never sees them.
        let mut line: Vec<Client> = (0..3).map(|_| Client::connect(port)).collect();
        for client in &mut line {
            client.send(HELLO);
        }
        server.wait_log(r"\[alert\].*plugin `lua` has held worker 0", mark);
        if round == 4 {
            server.wait_log("cannot be taken back", mark);
            break;
        }
        // Whom the worker knew is let go, long before any time-out, and never answered.
        let start = Instant::now();
        for known in [&mut hung, &mut waits, &mut idle] {
            assert!(known.response(false).is_err(), "round {round}");
        }
        assert_eq!(tunnel.read(&mut [0]).unwrap(), 0, "round {round}");
        // Who stood in line is served by the next worker.
        for client in &mut line {
            assert_eq!(client.response(false).unwrap().text(), "hello", "{round}");
        }
        assert!(start.elapsed() < PATIENCE / 2, "round {round}");
    }
    let status = server.process().wait(PATIENCE);
    assert_eq!(status.and_then(|status| status.code()), Some(70));
}

#[test]
fn a_reload_does_not_wait_for_a_worker_that_hangs() {
    let server = server();
    let mut hung = hang(&server);
    let mut line = Client::connect(server.port());
    line.send(HELLO);
    server.reload();
    // The worker that takes its place begins with the new generation, and the supervisor did not
    // give up on it first.
    server.wait_log(r"\[alert\].*plugin `lua` has held worker 0", 0);
    let log = server.log_since(0);
    assert!(!log.contains("does not answer"), "{log}");
    assert!(hung.response(false).is_err());
    assert_eq!(line.response(false).unwrap().text(), "hello");
    assert_eq!(get(server.port(), "/hello").text(), "hello");
    server.stop(rustix::process::Signal::TERM);
}

#[test]
fn other_addresses_that_a_hung_worker_never_hears_of() {
    let server = server();
    let (old, new) = (server.port(), free_port());
    let mut hung = hang(&server);
    let mut line = Client::connect(old);
    line.send(HELLO);
    let config = std::fs::read_to_string(server.file()).unwrap();
    let config = config.replace(&format!(":{old}\"]"), &format!(":{new}\"]"));
    server.folder().write("phasor.toml", config);
    server.reload();
    // The old address is given up with the worker, and nobody is left in its line.
    assert!(hung.response(false).is_err());
    assert!(line.response(false).is_err());
    assert!(TcpStream::connect(("127.0.0.1", old)).is_err());
    assert_eq!(get(new, "/hello").text(), "hello");
    server.stop(rustix::process::Signal::TERM);
}

#[test]
fn a_worker_that_hangs_while_the_server_ends() {
    let mut server = server();
    let mut hung = hang(&server);
    let mut line = Client::connect(server.port());
    server.process().signal(rustix::process::Signal::QUIT);
    line.send(HELLO);
    assert!(hung.response(false).is_err());
    assert!(line.response(false).is_err());
    let status = server.process().wait(PATIENCE);
    assert_eq!(status.and_then(|status| status.code()), Some(0));
}
