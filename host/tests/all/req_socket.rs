//! `ngx.req.socket` where it takes two ends and time: slow bodies, both ways at once, clients that
//! leave. What one request can show stands in `cases/lua/req_socket.toml`.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use rustix::process::Signal;

use crate::harness::Server;
use crate::process::PATIENCE;

const CONFIG: &str = r#"
[server]
workers = 1
[[route]]
path = "/slow"
lua.content = """
local sock = ngx.req.socket()
sock:settimeout(50)
local data, err, part = sock:receive(10)
ngx.log(ngx.WARN, 'first: ', tostring(data), ' ', err, ' ', part)
sock:settimeout(20000)
ngx.say(sock:receive(5))
ngx.say(sock:receive(10))
"""
[[route]]
path = "/chunked"
lua.content = "local sock = ngx.req.socket() ngx.say(sock:receive(3)) ngx.say(sock:receive('*a'))"
[[route]]
path = "/aborted"
lua.content = "local sock = ngx.req.socket() ngx.log(ngx.WARN, 'reads') local d, e, p = sock:receive(10) ngx.log(ngx.WARN, 'got: ', tostring(d), ' ', e, ' ', p)"
lua.log = "ngx.log(ngx.WARN, 'aborted over')"
[[route]]
path = "/duplex"
lua.content = """
ngx.status = 101
ngx.header.Upgrade = 'lines'
ngx.header.Connection = 'upgrade'
ngx.send_headers()
ngx.flush(true)
local sock = ngx.req.socket(true)
local sema = require('ngx.semaphore').new()
local queue = {}
local function read()
  while true do
    local line, err = sock:receive()
    if not line then queue[#queue + 1] = 'end: ' .. err sema:post() return end
    queue[#queue + 1] = line
    sema:post()
  end
end
local function write()
  sock:send('ready\\n')
  while true do
    sema:wait(60)
    local line = table.remove(queue, 1)
    sock:send(line .. '\\n')
    if line:find('^end') then return end
  end
end
ngx.log(ngx.WARN, 'busy: ', tostring((select(2, pcall(function()
  local t = ngx.thread.spawn(read)
  local _, err = sock:receive()
  assert(err == 'socket busy reading', err)
  write()
  ngx.thread.wait(t)
end)))))
"""
lua.log = "ngx.log(ngx.WARN, 'duplex over: ', ngx.var.status, ' ', ngx.var.body_bytes_sent)"
[[route]]
path = "/waits"
lua.content = """
local sock = ngx.req.socket(true)
sock:send('taken\\n')
ngx.sleep(600)
ngx.log(ngx.WARN, 'went on')
"""
lua.log = "ngx.log(ngx.WARN, 'waits over: ', ngx.var.status)"
[[route]]
path = "/told"
lua.content = """
local sock = ngx.req.socket(true)
ngx.on_abort(function() ngx.log(ngx.WARN, 'told of it') ngx.exit(499) end)
sock:send('taken\\n')
ngx.sleep(600)
"""
lua.log = "ngx.log(ngx.WARN, 'told over')"
[[route]]
path = "/cleans-up"
lua.content = """
local sock = ngx.req.socket(true)
sock:send('taken\\n')
local data, err = sock:receive()
ngx.sleep(1)
ngx.log(ngx.WARN, 'cleaned up after ', err)
"""
[[route]]
path = "/flood"
lua.content = """
local sock = ngx.req.socket(true)
sock:settimeouts(1000, 200, 1000)
local ok, err
local piece = string.rep('x', 65536)
repeat ok, err = sock:send(piece) until not ok
ngx.log(ngx.WARN, 'flood: ', err, ', then ', tostring(select(2, sock:send('x'))))
"""
"#;

pub(crate) fn open(server: &Server, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(request.replace('\n', "\r\n").as_bytes())
        .unwrap();
    stream
}

/// Reads until what came ends so.
pub(crate) fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut got = Vec::new();
    while !got.ends_with(end.as_bytes()) {
        let mut byte = [0];
        let read = stream.read(&mut byte).unwrap();
        assert_eq!(read, 1, "closed after {:?}", String::from_utf8_lossy(&got));
        got.push(byte[0]);
    }
    String::from_utf8(got).unwrap()
}

pub(crate) fn rest(stream: &mut TcpStream) -> String {
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    rest
}

fn descriptors(server: &mut Server) -> usize {
    let id = server.process().id();
    std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count()
}

#[test]
fn bodies_come_as_they_like() {
    let server = Server::start(CONFIG, &[]);
    let mark = server.mark();
    let mut slow = open(
        &server,
        "POST /slow HTTP/1.1\nHost: x\nContent-Length: 12\nConnection: close\n\nhello",
    );
    server.wait_log("first: nil timeout hello", mark);
    slow.write_all(b", world").unwrap();
    let answer = rest(&mut slow);
    assert!(answer.contains("\r\n, wor\n"), "{answer}");
    assert!(answer.contains("nilclosedld\n"), "{answer}");
    let chunks = "3\nhel\n2\nlo\n0\n\n";
    let head = "POST /chunked HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\nConnection: close\n\n";
    let answer = rest(&mut open(&server, &format!("{head}{chunks}")));
    assert!(
        answer.contains("hel\n") && answer.contains("lo\n"),
        "{answer}"
    );
    let mark = server.mark();
    let left = open(
        &server,
        "POST /aborted HTTP/1.1\nHost: x\nContent-Length: 10\n\nhello",
    );
    server.wait_log("reads", mark);
    drop(left);
    server.wait_log("aborted over", mark);
    server.stop(Signal::QUIT);
}

#[test]
fn both_ways_at_once() {
    let server = Server::start(CONFIG, &[]);
    let mark = server.mark();
    let mut stream = open(
        &server,
        "GET /duplex HTTP/1.1\nHost: x\nUpgrade: lines\nConnection: upgrade\n\nearly\n",
    );
    let head = until(&mut stream, "\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let mut lines = [until(&mut stream, "\n"), until(&mut stream, "\n")];
    lines.sort();
    assert_eq!(lines, ["early\n", "ready\n"]);
    for _ in 0..100 {
        stream.write_all(b"one\ntwo\n").unwrap();
        assert_eq!(until(&mut stream, "two\n"), "one\ntwo\n");
    }
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut stream), "end: closed\n");
    server.wait_log("busy: nil", mark);
    server.wait_log(r"duplex over: 101 8\d\d,", mark);
    server.stop(Signal::QUIT);
}

#[test]
fn clients_leave() {
    let mut server = Server::start(CONFIG, &[]);
    // What a worker opens once is open after its first request.
    let mut first = open(
        &server,
        "GET /none HTTP/1.1\nHost: x\nConnection: close\n\n",
    );
    rest(&mut first);
    drop(first);
    let before = descriptors(&mut server);
    for (path, signs) in [
        ("/waits", ["waits over: 000", "waits over"]),
        ("/told", ["told of it", "told over"]),
        ("/cleans-up", ["cleaned up after closed", "cleaned up"]),
    ] {
        let mark = server.mark();
        let mut stream = open(&server, &format!("GET {path} HTTP/1.1\nHost: x\n\n"));
        assert_eq!(until(&mut stream, "\n"), "taken\n");
        drop(stream);
        for sign in signs {
            server.wait_log(sign, mark);
        }
        assert!(!server.log_since(mark).contains("went on"));
    }
    let begun = std::time::Instant::now();
    while descriptors(&mut server) > before {
        assert!(begun.elapsed() < PATIENCE, "sockets are left open");
        std::thread::yield_now();
    }
    server.stop(Signal::QUIT);
}

#[test]
fn a_client_that_reads_nothing() {
    let server = Server::start(CONFIG, &[]);
    let mark = server.mark();
    let stream = open(&server, "GET /flood HTTP/1.1\nHost: x\n\n");
    server.wait_log("flood: timeout, then closed", mark);
    drop(stream);
    server.stop(Signal::QUIT);
}

/// The same from a component in Rust.
#[test]
fn from_a_component() {
    let config = r#"
[server]
workers = 1
[plugin.upgrade]
component = "{guests}/upgrade.wasm"
[[route]]
path = "/*"
content = "upgrade"
lua.log = "ngx.log(ngx.WARN, 'over: ', ngx.var.status, ' ', ngx.var.body_bytes_sent)"
"#;
    let server = Server::start(config, &[]);
    let mark = server.mark();
    let mut stream = open(
        &server,
        "GET /echo HTTP/1.1\nHost: x\nUpgrade: lines\nConnection: upgrade\n\n",
    );
    let head = until(&mut stream, "\r\n\r\n").to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(
        head.contains("upgrade: lines\r\n") && head.contains("x-mine: 1\r\n"),
        "{head}"
    );
    assert_eq!(until(&mut stream, "\n"), "ready\n");
    for _ in 0..20 {
        stream.write_all(b"one\ntwo\n").unwrap();
        assert_eq!(until(&mut stream, "two\n"), "one\ntwo\n");
    }
    stream.shutdown(Shutdown::Write).unwrap();
    let end = rest(&mut stream);
    assert_eq!(
        end,
        "end: Some(DownstreamError { code: 0, name: \"taken\", message: \"It has been taken before.\" })\n"
    );
    server.wait_log(r"over: 101 2\d\d,", mark);
    let answer = rest(&mut open(&server, "GET /headless HTTP/1.1\nHost: x\n\n"));
    assert_eq!(answer, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    for (body, status) in [("hello, world", 204), ("hello", 400), ("", 411)] {
        let length = body.len();
        let answer = rest(&mut open(
            &server,
            &format!(
                "POST /body HTTP/1.1\nHost: x\nContent-Length: {length}\nConnection: close\n\n{body}"
            ),
        ));
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
    server.stop(Signal::QUIT);
}
