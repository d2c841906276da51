//! `proxy` passes upgrades on: WebSockets of a real nginx behind Phasor.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;

use rustix::process::Signal;

use crate::client::{Client, get};
use crate::harness::{Folder, Server, free_port};
use crate::nginx::{Nginx, frame};
use crate::process::{PATIENCE, have};
use crate::websocket::{CLOSE, Peer, TEXT};

const ORIGIN: &str = r#"
location /base/ws { content_by_lua_block {
    local wb = assert(require("nginx.websocket.server"):new{ timeout = 60000 })
    wb:send_text(ngx.var.http_x_mine .. " " .. ngx.var.http_host)
    while true do
        local data, kind, err = wb:recv_frame()
        if not data then return end
        if kind == "close" then wb:send_close(1000, "bye") return end
        wb:send_text(data)
    end
} }
location /base/ { return 200 plain; }
"#;

fn server(origin: u16) -> Server {
    Server::start(
        &format!(
            r#"
[server]
workers = 1
[[route]]
path = "/*"
proxy = "http://127.0.0.1:{origin}/base/"
lua.header_filter = "ngx.header['X-Filter'] = 'ran'"
lua.log = "ngx.log(ngx.WARN, 'over: ', ngx.var.status, ' ', ngx.var.body_bytes_sent)"
"#
        ),
        &[],
    )
}

#[test]
fn websockets_pass_through() {
    let module = "/usr/share/lua/5.1/nginx/websocket/server.lua";
    if !have("nginx") || !Path::new(module).exists() {
        return;
    }
    let port = free_port();
    let http = "lua_package_path '/usr/share/lua/5.1/?.lua;;';";
    let _nginx = Nginx::start_with(Folder::new(), &frame(http, ORIGIN, port), port);
    let server = server(port);
    let mark = server.mark();
    let mut peer = Peer::open(server.port(), "/ws", "X-Mine: 1\r\n");
    let head = peer.head.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    for line in [
        "upgrade: websocket\r\n",
        "connection: upgrade\r\n",
        "x-filter: ran\r\n",
    ] {
        assert!(head.contains(line), "{line:?} is not in {head}");
    }
    assert_eq!(peer.receive().1, format!("1 127.0.0.1:{port}").as_bytes());
    peer.echoes("hello");
    peer.echoes(&"x".repeat(60_000));
    assert!(server.reload().contains("serves"));
    peer.echoes("still there");
    peer.send(CLOSE, b"\x03\xe8");
    assert_eq!(peer.receive(), (CLOSE, b"\x03\xe8bye".to_vec()));
    assert_eq!(peer.rest(), b"");
    server.wait_log(r"over: 101 60\d\d\d,", mark);

    // A client that leaves takes the peer's connection with it.
    let mark = server.mark();
    let mut peer = Peer::open(server.port(), "/ws", "X-Mine: 2\r\n");
    peer.send(TEXT, b"x");
    drop(peer);
    server.wait_log("over: 101", mark);
    // And a request that is none goes as ever.
    assert_eq!(get(server.port(), "/other").text(), "plain");
    server.stop(Signal::QUIT);
}

/// Answers one request so, and gives its head.
fn answers(text: &'static str) -> (u16, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let peer = thread::spawn(move || {
        let (mut stream, _): (TcpStream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).unwrap() == 0 {
                break;
            }
            head.push(byte[0]);
        }
        stream
            .write_all(text.replace('\n', "\r\n").as_bytes())
            .unwrap();
        String::from_utf8(head).unwrap()
    });
    (port, peer)
}

#[test]
fn another_http_is_not_passed_on() {
    let (port, peer) = answers("HTTP/1.1 200 OK\nContent-Length: 2\nConnection: close\n\nok");
    let server = server(port);
    let mut client = Client::connect(server.port());
    client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n");
    assert_eq!(client.response(false).unwrap().text(), "ok");
    let head = peer.join().unwrap().to_ascii_lowercase();
    assert!(
        !head.contains("upgrade") && !head.contains("http2-settings"),
        "{head}"
    );
    server.stop(Signal::QUIT);
}

#[test]
fn a_refusal_is_an_answer_and_an_unasked_switch_is_none() {
    let (port, peer) =
        answers("HTTP/1.1 403 Forbidden\nContent-Length: 2\nConnection: close\n\nno");
    let server = server(port);
    let mut client = Client::connect(server.port());
    client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let answer = client.response(false).unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
    assert!(
        peer.join()
            .unwrap()
            .to_ascii_lowercase()
            .contains("upgrade: websocket")
    );
    server.stop(Signal::QUIT);

    let (port, peer) =
        answers("HTTP/1.1 101 Switching Protocols\nUpgrade: x\nConnection: upgrade\n\n");
    let server = self::server(port);
    assert_eq!(get(server.port(), "/").status, 502);
    peer.join().unwrap();
    server.stop(Signal::QUIT);
}
