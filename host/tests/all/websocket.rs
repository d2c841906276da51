//! WebSockets end to end: `resty.websocket.server`, and Debian's unmodified `nginx.websocket`, against
//! a client of the test's own that writes frames byte by byte (RFC 6455), and against each other.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use rustix::process::Signal;

use crate::client::get;
use crate::harness::Server;
use crate::process::PATIENCE;

/// The key of RFC 6455, 1.3, and what accepts it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// The client's mask.
const MASK: [u8; 4] = [0x12, 0x34, 0xab, 0xcd];

pub(crate) const TEXT: u8 = 0x81;
pub(crate) const CLOSE: u8 = 0x88;
const BINARY: u8 = 0x82;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// The client's end of a WebSocket.
pub(crate) struct Peer {
    stream: TcpStream,
    /// The answer's head.
    pub(crate) head: String,
}

impl Peer {
    /// Connects and switches over; `more` are header lines.
    pub(crate) fn open(port: u16, path: &str, more: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(handshake(path, more).as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            let read = stream.read(&mut byte).unwrap();
            assert_eq!(read, 1, "closed after {:?}", String::from_utf8_lossy(&head));
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        Self { stream, head }
    }

    /// Sends bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends a masked frame.
    pub(crate) fn send(&mut self, first: u8, payload: &[u8]) {
        self.raw(&frame(first, payload));
    }

    /// First byte and payload of the next frame, which must not be masked.
    pub(crate) fn receive(&mut self) -> (u8, Vec<u8>) {
        let head = self.exactly(2);
        let length = match head[1] {
            126 => usize::from(u16::from_be_bytes(self.exactly(2).try_into().unwrap())),
            127 => {
                usize::try_from(u64::from_be_bytes(self.exactly(8).try_into().unwrap())).unwrap()
            }
            short => usize::from(short),
        };
        (head[0], self.exactly(length))
    }

    fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Reads what is left, until the server closes.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).unwrap();
        rest
    }

    /// Sends text and demands it back.
    pub(crate) fn echoes(&mut self, text: &str) {
        self.send(TEXT, text.as_bytes());
        assert_eq!(self.receive(), (TEXT, text.as_bytes().to_vec()));
    }
}

/// A client's request to switch over; `more` are header lines.
pub(crate) fn handshake(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{more}\r\n"
    )
}

/// A masked frame.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        short @ 0..=125 => out.push(0x80 | u8::try_from(short).unwrap()),
        length @ 126..=65535 => {
            out.push(0x80 | 126);
            out.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    let masked = payload.iter().zip(MASK.iter().cycle());
    out.extend(masked.map(|(byte, mask)| byte ^ mask));
    out
}

/// Echoes, and says what happens; MODULE is the server's module.
const SERVER: &str = r#"
[server]
workers = 1
drain = "DRAIN"
tunnel_timeout = "TUNNEL"
[plugin.lua]
config = { path = "/usr/share/lua/5.1/?.lua;;" }
# The module unmasks 70,000 bytes one by one.
limits = { cpu = "10s" }
[[route]]
path = "/ws"
lua.content = """
local wb, err = require('MODULE'):new{ timeout = tonumber(ngx.var.arg_timeout) or 60000, max_payload_len = 70000 }
if not wb then
  ngx.log(ngx.WARN, 'no websocket: ', err)
  return ngx.exit(444)
end
ngx.log(ngx.WARN, 'opened')
while true do
  local data, kind, err = wb:recv_frame()
  if not data then
    if not err:find(': timeout', 1, true) then
      ngx.log(ngx.WARN, 'ended: ', err)
      return
    end
    wb:send_ping('are you there')
  elseif kind == 'close' then
    ngx.log(ngx.WARN, 'closed: ', tostring(err), ' ', data)
    wb:send_close(1000, 'bye')
    return
  elseif kind == 'ping' then wb:send_pong(data)
  elseif kind == 'binary' then wb:send_binary(data)
  elseif kind == 'pong' then ngx.log(ngx.WARN, 'pong: ', data)
  else wb:send_text(kind .. ' ' .. tostring(err) .. ' ' .. data) end
end
"""
lua.log = "ngx.log(ngx.WARN, 'over: ', ngx.var.status, ' ', ngx.var.body_bytes_sent, ' ', tonumber(ngx.var.request_length) > 100)"
"#;

fn server(module: &str, drain: &str, tunnel: &str) -> Server {
    let config = SERVER
        .replace("MODULE", module)
        .replace("DRAIN", drain)
        .replace("TUNNEL", tunnel);
    Server::start(&config, &[])
}

fn converses(module: &str) {
    let server = server(module, "30s", "1h");
    let mark = server.mark();
    let mut peer = Peer::open(server.port(), "/ws", "Sec-WebSocket-Protocol: chat\r\n");
    let head = peer.head.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    for line in [
        "upgrade: websocket\r\n",
        "connection: upgrade\r\n",
        "sec-websocket-protocol: chat\r\n",
        &format!("sec-websocket-accept: {}\r\n", ACCEPT.to_ascii_lowercase()),
    ] {
        assert!(head.contains(line), "{line:?} is not in {head}");
    }
    for absent in ["content-length", "transfer-encoding"] {
        assert!(!head.contains(absent), "{absent} is in {head}");
    }
    peer.send(TEXT, b"hello");
    assert_eq!(peer.receive(), (TEXT, b"text nil hello".to_vec()));
    peer.send(PING, b"p");
    assert_eq!(peer.receive(), (PONG, b"p".to_vec()));
    for length in [0, 125, 126, 300, 65_535, 65_536, 70_000] {
        let bytes: Vec<u8> = (0..length).map(|n: u32| n.to_be_bytes()[3]).collect();
        peer.send(BINARY, &bytes);
        assert_eq!(peer.receive(), (BINARY, bytes));
    }
    // A message in three frames, a ping between them, sent byte by byte.
    let mut bytes = frame(0x01, b"one");
    bytes.extend(frame(PING, b""));
    bytes.extend(frame(0x00, b"two"));
    bytes.extend(frame(0x80, b"three"));
    for byte in bytes {
        peer.raw(&[byte]);
    }
    assert_eq!(peer.receive(), (TEXT, b"text again one".to_vec()));
    assert_eq!(peer.receive(), (PONG, b"".to_vec()));
    assert_eq!(peer.receive(), (TEXT, b"continuation again two".to_vec()));
    assert_eq!(peer.receive(), (TEXT, b"continuation nil three".to_vec()));
    peer.send(CLOSE, b"\x0f\xa1going");
    assert_eq!(peer.receive(), (CLOSE, b"\x03\xe8bye".to_vec()));
    assert_eq!(peer.rest(), b"");
    server.wait_log("closed: 4001 going", mark);
    server.wait_log(r"over: 101 \d{6} true", mark);

    refuses(&server);
    // Silence is no end.
    let mark = server.mark();
    let mut peer = Peer::open(server.port(), "/ws?timeout=50", "");
    for _ in 0..3 {
        assert_eq!(peer.receive(), (PING, b"are you there".to_vec()));
    }
    peer.send(PONG, b"yes");
    server.wait_log("pong: yes", mark);
    // A drain waits for whoever is still there.
    drop(peer);
    server.stop(Signal::QUIT);
}

/// What is not a frame ends the WebSocket, and what is no handshake begins none.
fn refuses(server: &Server) {
    let huge = frame(TEXT, &[b'x'; 70_001]);
    let wrong: [(&[u8], &str); 5] = [
        (&[TEXT, 1, b'x'], "frame unmasked"),
        (&[0xc1, 0x80], "bad RSV1, RSV2, or RSV3 bits"),
        (&[0x83, 0x80], "reserved non-control frames"),
        (&[0x09, 0x80], "fragmented control frame"),
        (&huge, "exceeding max payload len"),
    ];
    for (bytes, error) in wrong {
        let mark = server.mark();
        let mut peer = Peer::open(server.port(), "/ws", "");
        peer.raw(bytes);
        server.wait_log(&format!("ended: .*{error}"), mark);
        assert_eq!(peer.rest(), b"");
    }
    let mark = server.mark();
    let mut peer = Peer::open(server.port(), "/ws", "");
    peer.raw(&[TEXT]);
    drop(peer);
    server.wait_log("ended: failed to receive the first 2 bytes: closed", mark);
    server.wait_log("over: 101", mark);
    let mark = server.mark();
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    stream
        .write_all(b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    // Each of the two modules has its own words for it.
    let words = r#"no websocket: (no upgrade request header|bad "upgrade" request header: nil)"#;
    server.wait_log(words, mark);
}

#[test]
fn bundled_server() {
    converses("resty.websocket.server");
}

#[test]
fn server_of_debian() {
    if Path::new("/usr/share/lua/5.1/nginx/websocket/server.lua").exists() {
        converses("nginx.websocket.server");
    }
}

/// The clients, both of them, against the servers, in one process.
#[test]
fn clients_of_lua() {
    for module in ["resty.websocket", "nginx.websocket"] {
        if module == "nginx.websocket"
            && !Path::new("/usr/share/lua/5.1/nginx/websocket/client.lua").exists()
        {
            continue;
        }
        let client = r#"
[[route]]
path = "/client"
lua.content = """
local wb = require('MODULE.client'):new{ timeout = 5000 }
ngx.say(wb:connect('ws://127.0.0.1:' .. ngx.var.server_port .. '/ws'))
wb:send_text('hello')
ngx.say(wb:recv_frame())
wb:send_ping('p')
ngx.say(wb:recv_frame())
wb:send_close(1000, 'done')
ngx.say(wb:recv_frame())
"""
"#;
        let config = format!("{SERVER}{client}")
            .replace("MODULE.client", &format!("{module}.client"))
            .replace("MODULE", &format!("{module}.server"))
            .replace("DRAIN", "30s")
            .replace("TUNNEL", "1h");
        let server = Server::start(&config, &[]);
        let text = get(server.port(), "/client").text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(text.starts_with('1'), "{text}");
        // What `connect` gives is the answer's head.
        let lines = &lines[lines.len().saturating_sub(3)..];
        assert_eq!(lines, ["text nil hellotextnil", "ppongnil", "byeclose1000"]);
        server.stop(Signal::QUIT);
    }
}

#[test]
fn reload_and_drain() {
    let server = server("resty.websocket.server", "300ms", "1h");
    let mut peers: Vec<Peer> = (0..200)
        .map(|_| Peer::open(server.port(), "/ws", ""))
        .collect();
    let converse = |peers: &mut [Peer]| {
        for peer in &mut *peers {
            peer.send(TEXT, b"1");
        }
        for peer in peers {
            assert_eq!(peer.receive().1, b"text nil 1");
        }
    };
    converse(&mut peers);
    // What is under way while the generation changes is not lost, nor is anybody.
    for peer in &mut peers {
        peer.send(TEXT, b"2");
    }
    assert!(server.reload().contains("serves"));
    for peer in &mut peers {
        assert_eq!(peer.receive().1, b"text nil 2");
    }
    peers.push(Peer::open(server.port(), "/ws", ""));
    converse(&mut peers);
    // They outlive a QUIT by the drain time, and no more.
    server.stop_and(Signal::QUIT, || {
        for peer in &mut peers {
            assert_eq!(peer.rest(), b"");
        }
    });
}

#[test]
fn silence_has_an_end() {
    let server = server("resty.websocket.server", "30s", "400ms");
    let mark = server.mark();
    let mut peer = Peer::open(server.port(), "/ws", "");
    assert_eq!(peer.rest(), b"");
    server.wait_log("ended: failed to receive the first 2 bytes: closed", mark);
    server.wait_log("over: 101", mark);
    server.stop(Signal::QUIT);
}

/// `burn` works for a while, `loop` without end.
const BURNER: &str = r#"
[server]
workers = 1
[plugin.lua]
limits = { cpu = "300ms" }
[plugin.rust]
component = "{guests}/upgrade.wasm"
limits = { cpu = "300ms" }
[[route]]
path = "/ws"
lua.content = """
local wb = require('resty.websocket.server'):new()
-- Another thread's waits are no relief for a loop.
ngx.thread.spawn(function() while true do ngx.sleep(0.001) end end)
while true do
  local data, kind, err = wb:recv_frame()
  if not data then return end
  local sum = 0
  for n = 1, data == 'loop' and math.huge or 500000 do sum = sum + n % 7 end
  wb:send_text(data)
end
"""
[[route]]
path = "/*"
content = "rust"
"#;

#[test]
fn a_cpu_budget_is_for_what_is_done_between_two_waits() {
    let server = Server::start(BURNER, &[]);
    let mut peer = Peer::open(server.port(), "/ws", "");
    let mut lines = Peer::open(server.port(), "/burn", "");
    // All together is more than the budget.
    for _ in 0..100 {
        peer.echoes("burn");
        lines.raw(b"burn");
        assert_eq!(lines.exactly(4), b"burn");
    }
    // Who does not wait comes to his end, and meanwhile others are served.
    let mark = server.mark();
    peer.send(TEXT, b"loop");
    lines.raw(b"loop");
    peer.rest();
    assert_eq!(lines.rest(), b"");
    server.wait_log("cpu budget of 300 ms exceeded", mark);
    server.wait_log(r"the CPU budget of 300 ms \(limits.cpu\) is used up", mark);
    Peer::open(server.port(), "/ws", "").echoes("burn");
    server.stop(Signal::TERM);
}
