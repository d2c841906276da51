//! Sockets from Go: the client's connection out of HTTP, as `net.Conn`, with a WebSocket on it; TLS and
//! datagrams; and what is left of all that when a client leaves.

use std::fs;
use std::io::Write;
use std::net::{Shutdown, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::thread;

use rustix::process::Signal;

use crate::client::get;
use crate::cosocket_tls::{ask, back_with};
use crate::harness::{Folder, PHASOR, Server, root};
use crate::http_client_leaving::clients_leave;
use crate::process::{have, run};
use crate::req_socket::{open, rest, until};
use crate::websocket::{CLOSE, Peer};

const CONFIG: &str = r#"
[server]
workers = 1
[plugin.go]
component = "{guests}/go-sockets.wasm"
limits = { cpu = "10s", instances = 32 }
allow = { connect = ["127.0.0.1:*"] }
cosocket = { ca = "ca.pem" }
[[route]]
path = "/*"
content = "go"
lua.log = "ngx.log(ngx.WARN, 'over: ', ngx.var.status)"
"#;

/// A server whose plugin trusts nobody, as nothing here asks it to.
fn server() -> Server {
    Server::start(&CONFIG.replace("cosocket = { ca = \"ca.pem\" }\n", ""), &[])
}

#[test]
fn a_websocket() {
    let server = server();
    let mark = server.mark();
    let mut peer = Peer::open(server.port(), "/ws", "");
    let head = peer.head.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    for line in [
        "upgrade: websocket\r\n",
        "connection: upgrade\r\n",
        "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n",
    ] {
        assert!(head.contains(line), "{line:?} is not in {head}");
    }
    // Another one beside it, each in an instance of its own.
    let mut other = Peer::open(server.port(), "/ws", "");
    for _ in 0..50 {
        peer.echoes("hello");
        other.echoes("and you");
    }
    peer.send(CLOSE, b"\x03\xe8");
    assert_eq!(peer.receive(), (CLOSE, b"\x03\xe8".to_vec()));
    assert_eq!(peer.rest(), b"");
    server.wait_log("over: 101", mark);
    // It has read all: the server sees its end, and no reset.
    other.echoes("and then");
    drop(other);
    server.wait_log("the websocket ended: EOF", mark);
    // Who asks in HTTP/1.0 cannot switch.
    let old = rest(&mut open(&server, "GET /ws HTTP/1.0\nHost: x\n\n"));
    assert!(old.starts_with("HTTP/1.0 426 "), "{old}");
    server.stop(Signal::QUIT);
}

#[test]
fn both_ways_at_once() {
    let server = server();
    let mark = server.mark();
    let mut stream = open(
        &server,
        "GET /lines HTTP/1.1\nHost: x\nUpgrade: lines\nConnection: upgrade\n\nearly\n",
    );
    let head = until(&mut stream, "\r\n\r\n").to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(
        head.contains("upgrade: lines\r\n") && head.contains("x-mine: 1\r\n"),
        "{head}"
    );
    assert_eq!(until(&mut stream, "early\n"), "ready\nearly\n");
    for _ in 0..100 {
        stream.write_all(b"one\ntwo\n").unwrap();
        assert_eq!(until(&mut stream, "two\n"), "one\ntwo\n");
    }
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(
        rest(&mut stream),
        "end: downstream: taken before, true, tcp\n"
    );
    server.wait_log("over: 101", mark);
    server.stop(Signal::QUIT);
}

#[test]
fn bodies_and_whole_answers() {
    let server = server();
    let answer = rest(&mut open(&server, "GET /headless HTTP/1.1\nHost: x\n\n"));
    assert_eq!(
        answer,
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    );
    let long = "x".repeat(200_000);
    for (body, expected) in [
        ("hello", "5 cosocket: "),
        (&long, "200000 cosocket: "),
        ("", "downstream: the request has no body"),
    ] {
        let length = body.len();
        let request = format!(
            "POST /body HTTP/1.1\nHost: x\nContent-Length: {length}\nConnection: close\n\n{body}"
        );
        let answer = rest(&mut open(&server, &request));
        let (_, text) = answer.split_once("\r\n\r\n").unwrap();
        assert!(text.starts_with(expected), "{answer}");
    }
    server.stop(Signal::QUIT);
}

/// A read has a deadline of its own; without one it waits until the client leaves.
#[test]
fn a_client_that_says_nothing() {
    let server = server();
    let mark = server.mark();
    let mut stream = open(&server, "GET /slow HTTP/1.1\nHost: x\n\n");
    assert_eq!(until(&mut stream, "\n"), "late: true\n");
    drop(stream);
    server.wait_log("slow: EOF", mark);
    server.stop(Signal::QUIT);
}

/// Streams, datagrams and goroutines end with the request whose client has left.
#[test]
fn clients_that_leave() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut server = server();
    assert_eq!(get(server.port(), "/other").status, 200);
    let ask = format!("GET /leaves HTTP/1.1\r\nHost: x\r\nX-Port: {port}\r\n\r\n");
    clients_leave(&mut server, &listener, &ask, 3);
    server.stop(Signal::QUIT);
}

#[test]
fn tls_and_datagrams() {
    let Some(back) = back_with("") else { return };
    let folder = Folder::new();
    back.authority.file(&folder);
    let server = Server::start_in(folder, CONFIG);
    let ask = |path: &str, port: u16, name: &str| ask(&server, path, port, name);
    assert_eq!(
        ask("/tls", back.good, "back.test"),
        "back.test TLSv1.3 . NONE 1; 1 back.test TLSv1.3 . NONE 2; back.test TLSv1.3 r NONE 1"
    );
    assert_eq!(
        ask("/tls", back.good, "other.test"),
        "error: handshake tcp: cosocket: certificate host mismatch"
    );
    assert_eq!(ask("/ip", back.good, ""), "error: unknown network ip");
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = udp.local_addr().unwrap().port();
    let peer = thread::spawn(move || {
        let mut bytes = [0; 100];
        loop {
            let (n, from) = udp.recv_from(&mut bytes).unwrap();
            if &bytes[..n] == b"-" {
                return;
            }
            udp.send_to(&bytes[..n], from).unwrap();
        }
    });
    assert_eq!(ask("/udp", port, ""), "cut o true true");
    peer.join().unwrap();
    server.stop(Signal::QUIT);
}

/// The plugin that the SDK's README shows.
#[test]
fn what_the_readme_shows() {
    if !have("go") {
        return;
    }
    let readme = fs::read_to_string(root().join("sdk/go/README.md")).unwrap();
    let (_, block) = readme.split_once("```go downstream\n").unwrap();
    let (program, _) = block.split_once("```").unwrap();
    let folder = Folder::new();
    let tool = Path::new(PHASOR).parent().unwrap().join("phasor-go");
    let at = folder.path().join("echo");
    assert_eq!(run(Command::new(&tool).arg("new").arg(&at)).0, 0);
    fs::write(at.join("main.go"), program).unwrap();
    let target = folder.path().join("echo.wasm");
    let (code, out, err) = run(Command::new(&tool).arg("build").arg(&at).arg(&target));
    assert_eq!(code, 0, "{out}{err}");
    let config = CONFIG
        .replace("{guests}/go-sockets.wasm", "echo.wasm")
        .replace("cosocket = { ca = \"ca.pem\" }\n", "");
    let server = Server::start_in(folder, &config);
    let mut stream = open(&server, "GET / HTTP/1.1\nHost: x\n\n");
    let head = until(&mut stream, "\r\n\r\n").to_ascii_lowercase();
    assert!(head.contains("upgrade: echo\r\n"), "{head}");
    stream.write_all(b"hello\n").unwrap();
    assert_eq!(until(&mut stream, "\n"), "hello\n");
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut stream), "");
    server.stop(Signal::QUIT);
}
