//! Sockets and the peers that they meet: silent, slow, cut off, reset, without end, and too busy to
//! accept; pools with a line before them; and what is left of them when a client leaves.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::Signal;

use crate::client::{Client, get};
use crate::harness::{Folder, Server};
use crate::http_client_leaving::clients_leave;

/// A server whose route `/t` runs the script; `PORT` is the peer's.
pub(crate) fn server_with(settings: &str, script: &str, port: u16) -> Server {
    let config = format!(
        r#"
[server]
workers = 1
[plugin.lua]
{settings}
[[route]]
path = "/t"
lua.content = {{ file = "t.lua" }}
"#
    );
    let script = script.replace("PORT", &port.to_string());
    Server::start(&config, &[("t.lua", &script)])
}

fn server(script: &str, port: u16) -> Server {
    server_with("limits = { cpu = \"5s\" }", script, port)
}

/// Runs the script; its lines have to be these.
fn check(script: &str, port: u16, expected: &str) {
    let server = server(script, port);
    let answer = get(server.port(), "/t");
    assert_eq!(answer.text(), expected, "{}", server.log_since(0));
    server.stop(Signal::QUIT);
}

/// A peer that treats `count` connections one after the other so.
pub(crate) fn peer(
    count: usize,
    treat: impl Fn(TcpStream) + Send + 'static,
) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = thread::spawn(move || {
        for _ in 0..count {
            treat(listener.accept().unwrap().0);
        }
    });
    (port, thread)
}

/// Reads until the other side has closed.
pub(crate) fn drain(mut stream: TcpStream) {
    let mut bytes = [0; 4096];
    while stream.read(&mut bytes).is_ok_and(|n| n > 0) {}
}

#[test]
fn a_peer_that_says_nothing() {
    let (port, thread) = peer(1, |mut stream| {
        let mut byte = [0; 1];
        stream.read_exact(&mut byte).unwrap();
        stream.write_all(b"there\n").unwrap();
        drain(stream);
    });
    check(
        r#"
local sock = ngx.socket.tcp()
sock:settimeouts(5000, 5000, 30)
sock:connect("127.0.0.1", PORT)
ngx.say(sock:receive())
ngx.say(sock:receive("*a"))
ngx.say(sock:receiveany(10))
ngx.say(sock:receiveuntil("x")())
-- A time-out of a read is not fatal.
sock:settimeout(5000)
sock:send("?")
ngx.say(sock:receive())
"#,
        port,
        "niltimeout\nniltimeout\nniltimeout\nniltimeout\nthere\n",
    );
    thread.join().unwrap();
}

#[test]
fn a_peer_that_is_cut_off() {
    let (port, thread) = peer(4, |mut stream| stream.write_all(b"abc").unwrap());
    check(
        r#"
for _, how in ipairs { 10, "*l", "until", "*a" } do
  local sock = ngx.socket.connect("127.0.0.1", PORT)
  sock:settimeout(5000)
  if how == "until" then ngx.say(sock:receiveuntil("never")()) else ngx.say(sock:receive(how)) end
end
"#,
        port,
        "nilclosedabc\nnilclosedabc\nnilclosedabc\nabc\n",
    );
    thread.join().unwrap();
}

#[test]
fn a_peer_that_resets() {
    let (port, thread) = peer(1, |mut stream| {
        let mut byte = [0; 1];
        stream.read_exact(&mut byte).unwrap();
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    });
    check(
        r#"
local sock = ngx.socket.connect("127.0.0.1", PORT)
sock:settimeout(5000)
sock:send("x")
ngx.say(sock:receive(5))
ngx.say(sock:receive(5))
"#,
        port,
        "nilconnection reset by peer\nnilclosed\n",
    );
    thread.join().unwrap();
}

#[test]
fn a_peer_that_drips() {
    let (port, thread) = peer(2, |mut stream| {
        // For as long as the other side is there; the reads keep the pace.
        let pace = Some(Duration::from_millis(20));
        stream.set_read_timeout(pace).unwrap();
        while stream.write_all(b"x").is_ok() && !matches!(stream.read(&mut [0; 1]), Ok(0)) {}
    });
    let server = server_with(
        "limits = { deadline = \"1s\" }",
        r#"
local sock = ngx.socket.connect("127.0.0.1", PORT)
sock:settimeout(5000)
ngx.say(sock:receive(3))
ngx.flush(true)
if ngx.var.arg_all then sock:receive("*a") end
"#,
        port,
    );
    assert_eq!(get(server.port(), "/t").text(), "xxx\n");
    // No read times out; the handler's deadline ends it, and its socket with it.
    let mark = server.mark();
    let mut client = Client::connect(server.port());
    client.send("GET /t?all=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    let _cut = client.response(false);
    server.wait_log("deadline", mark);
    thread.join().unwrap();
    server.stop(Signal::QUIT);
}

/// Resident memory in KiB.
fn resident(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_peer_that_sends_without_end() {
    let (port, thread) = peer(3, |mut stream| {
        let piece = vec![b'x'; 1 << 20];
        let mut sent = 0_u64;
        while sent < 1 << 30 && stream.write_all(&piece).is_ok() {
            sent += 1 << 20;
        }
    });
    let mut server = server_with(
        "limits = { cpu = \"60s\", deadline = \"60s\" }\ncosocket = { receive_limit = \"1m\" }",
        r#"
for _, how in ipairs { "*a", "*l", 1048577 } do
  local sock = ngx.socket.connect("127.0.0.1", PORT)
  local data, err = sock:receive(how)
  ngx.say(data, " ", err)
  sock:close()
end
"#,
        port,
    );
    let before = resident(server.process().id());
    assert_eq!(
        get(server.port(), "/t").text(),
        "nil too large\nnil too large\nnil too large\n"
    );
    let grown = resident(server.process().id()) - before;
    assert!(grown < 64 << 10, "{grown} KiB more");
    thread.join().unwrap();
    server.stop(Signal::QUIT);
}

#[test]
fn a_peer_that_does_not_accept() {
    let listener = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    rustix::net::bind(
        &listener,
        &"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap(),
    )
    .unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let listener = TcpListener::from(listener);
    let address = listener.local_addr().unwrap();
    // The line is full when the kernel takes no more.
    let mut line = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        line.push(stream);
        assert!(line.len() < 16);
    }
    check(
        r#"
local sock = ngx.socket.tcp()
sock:settimeout(100)
ngx.say(sock:connect("127.0.0.1", PORT))
ngx.say(sock:send("x"))
"#,
        address.port(),
        "niltimeout\nnilclosed\n",
    );
}

#[test]
fn a_line_before_a_pool() {
    let (port, thread) = peer(1, |mut stream| {
        let mut byte = [0; 1];
        while stream.read_exact(&mut byte).is_ok() {
            stream.write_all(&byte).unwrap();
        }
    });
    check(
        r#"
local options = { pool = "one", pool_size = 1, backlog = 2 }
local function open()
  local sock = ngx.socket.tcp()
  sock:settimeout(5000)
  local ok, err = sock:connect("127.0.0.1", PORT, options)
  return ok and sock, err
end
local first = open()
local function wait(name)
  local sock = assert(open())
  ngx.say(name, " ", sock:getreusedtimes())
  sock:send(name)
  ngx.say(sock:receive(1))
  ngx.say(sock:setkeepalive())
end
local b = ngx.thread.spawn(wait, "b")
local c = ngx.thread.spawn(wait, "c")
ngx.say(select(2, open()))
local late = ngx.socket.tcp()
ngx.say(first:setkeepalive())
ngx.thread.wait(b)
ngx.thread.wait(c)
-- One that waits too long leaves the line.
first = open()
ngx.say(first:getreusedtimes())
late:settimeout(30)
ngx.say(late:connect("127.0.0.1", PORT, options))
ngx.say(first:setkeepalive())
"#,
        port,
        "too many waiting connect operations\n1\nb 1\nb\n1\nc 2\nc\n1\n3\nniltimeout\n1\n",
    );
    thread.join().unwrap();
}

#[test]
fn what_goes_into_a_pool_and_how_long() {
    let (port, thread) = peer(2, |mut stream| {
        let mut byte = [0; 1];
        while stream.read_exact(&mut byte).is_ok() {
            // Some more than the plugin takes at once.
            stream.write_all(&[b'x'; 17_000]).unwrap();
        }
    });
    let server = server(
        r#"
local sock = ngx.socket.connect("127.0.0.1", PORT)
sock:settimeout(5000)
sock:send("?")
ngx.say(sock:receive(1))
ngx.say(sock:setkeepalive())
ngx.say(#sock:receive(16383))
-- The rest is with the kernel.
ngx.say(sock:setkeepalive())
ngx.say(sock:close())
sock:connect("127.0.0.1", PORT)
ngx.say(sock:setkeepalive(20))
"#,
        port,
    );
    let text = get(server.port(), "/t").text();
    assert_eq!(
        text,
        "x\nnilunread data in buffer\n16383\nnilconnection in dubious state\nnilclosed\n1\n"
    );
    // The second connection ends while the server runs: its time in the pool is over.
    thread.join().unwrap();
    server.stop(Signal::QUIT);
}

#[test]
fn a_name_with_several_addresses() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        eprintln!("skipped: there is no IPv6 here");
        return;
    };
    let port = listener.local_addr().unwrap().port();
    let found = std::net::ToSocketAddrs::to_socket_addrs(&("localhost", port)).unwrap();
    if found.filter(std::net::SocketAddr::is_ipv6).count() == 0 {
        eprintln!("skipped: localhost has one address only");
        return;
    }
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"over 6\n").unwrap();
    });
    check(
        r#"
local sock = ngx.socket.tcp()
sock:settimeout(5000)
ngx.say(sock:connect("localhost", PORT))
ngx.say(sock:receive())
"#,
        port,
        "1\nover 6\n",
    );
    thread.join().unwrap();
}

/// Sockets that the process has open.
pub(crate) fn sockets(pid: i32) -> usize {
    let folder = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    folder
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .count()
}

#[test]
fn a_client_that_leaves_takes_its_sockets_with_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut server = server(
        r#"
local udp = ngx.socket.udp()
udp:setpeername("127.0.0.1", PORT)
local sock = ngx.socket.connect("127.0.0.1", PORT)
ngx.thread.spawn(function() udp:receive() end)
sock:send("here")
sock:receive("*a")
ngx.log(ngx.WARN, "went on")
"#,
        port,
    );
    assert_eq!(get(server.port(), "/none").status, 404);
    clients_leave(
        &mut server,
        &listener,
        "GET /t HTTP/1.1\r\nHost: x\r\n\r\n",
        3,
    );
    server.stop(Signal::QUIT);
}

#[test]
fn datagrams() {
    let folder = Folder::new();
    let path = folder.path().join("datagrams");
    let unix = UnixDatagram::bind(&path).unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = udp.local_addr().unwrap().port();
    let thread = thread::spawn(move || {
        let mut bytes = [0; 100];
        for _ in 0..3 {
            let (n, from) = udp.recv_from(&mut bytes).unwrap();
            udp.send_to(&[b"<", &bytes[..n], b">"].concat(), from)
                .unwrap();
        }
        let (_, from) = udp.recv_from(&mut bytes).unwrap();
        udp.send_to(&vec![b'x'; 10_000], from).unwrap();
        let (n, from) = unix.recv_from(&mut bytes).unwrap();
        unix.send_to_addr(&bytes[..n], &from).unwrap();
    });
    let script = r#"
local udp = ngx.socket.udp()
udp:settimeout(5000)
ngx.say(udp:setpeername("127.0.0.1", PORT))
ngx.say(udp:send({ "a", 1, { "b" } }), udp:receive())
ngx.say(udp:send(""), udp:receive())
-- What is longer than asked for is cut off and lost.
ngx.say(udp:send("long"), udp:receive(3))
udp:send("x")
ngx.say(#udp:receive())
udp:settimeout(30)
local t = ngx.thread.spawn(function() return udp:receive() end)
ngx.say(udp:receive())
ngx.say(udp:send("x"))
ngx.say(udp:close())
ngx.say(ngx.thread.wait(t))
ngx.say(udp:close())
udp:settimeout(5000)
ngx.say(udp:setpeername("unix:SOCKET"))
ngx.say(udp:send("over unix"), udp:receive())
local bound = ngx.socket.udp()
ngx.say(bound:bind("nowhere"))
ngx.say(bound:bind("127.0.0.9"), bound:setpeername("127.0.0.1", PORT))
"#;
    check(
        &script.replace("SOCKET", path.to_str().unwrap()),
        port,
        "1\n1<a1b>\n1<>\n1<lo\n8192\nnilsocket busy\nnilsocket busy\nnilsocket busy\n\
         trueniltimeout\n1\n1\n1over unix\nnilbad address\ntrue1\n",
    );
    thread.join().unwrap();
}

#[test]
fn every_address_is_no_path() {
    let folder = Folder::new();
    let path = folder.path().join("s");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let script = format!(
        r#"
ngx.say(ngx.socket.tcp():connect("unix:{0}/s"))
ngx.say(ngx.socket.udp():setpeername("unix:{0}/s"))
ngx.say(ngx.socket.tcp():connect("unix:{0}/../{1}/s"))
"#,
        folder.path().display(),
        folder.path().file_name().unwrap().to_str().unwrap(),
    );
    let no = "nilnot allowed by allow.connect\n";
    let server = server_with("allow = { connect = [\"*:*\"] }", &script, 0);
    let mark = server.mark();
    assert_eq!(get(server.port(), "/t").text(), no.repeat(3));
    server.wait_log("refused: allow.connect does not cover `unix:.*/s`", mark);
    server.stop(Signal::QUIT);
    let allow = format!(
        "allow = {{ connect = [\"unix:{}/*\"] }}",
        folder.path().display()
    );
    let server = server_with(&allow, &script, 0);
    let text = get(server.port(), "/t").text();
    assert!(text.starts_with("1\nnil") && text.ends_with(no), "{text}");
    server.stop(Signal::QUIT);
}
