//! `resty.websocket.client` against an echoing server of the test's own, which reads and writes
//! frames by the book (RFC 6455).

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use crate::resty::check;

/// The key of RFC 6455, 1.3, and what accepts it.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn bytes(stream: &mut TcpStream, count: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

/// First byte and payload; a client's frame must be masked.
fn frame(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let head = bytes(stream, 2)?;
    assert_eq!(head[1] & 0x80, 0x80, "a client's frame is masked");
    let length = match head[1] & 0x7f {
        126 => usize::from(u16::from_be_bytes(bytes(stream, 2)?.try_into().unwrap())),
        127 => usize::try_from(u64::from_be_bytes(bytes(stream, 8)?.try_into().unwrap())).unwrap(),
        short => usize::from(short),
    };
    let mask = bytes(stream, 4)?;
    let mut payload = bytes(stream, length)?;
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    Some((head[0], payload))
}

fn answer(stream: &mut TcpStream, first: u8, payload: &[u8]) {
    let mut out = vec![first];
    match payload.len() {
        short @ 0..=125 => out.push(u8::try_from(short).unwrap()),
        length @ 126..=65535 => {
            out.push(126);
            out.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            out.push(127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(payload);
    stream.write_all(&out).unwrap();
}

/// Answers one client: frames come back, pings as pongs; gives the request's head.
pub(crate) fn serve(listener: &TcpListener, accept: &str) -> String {
    let (mut stream, _) = listener.accept().unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(bytes(&mut stream, 1).unwrap());
    }
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .unwrap();
    while let Some((first, payload)) = frame(&mut stream) {
        let first = if first == 0x89 { 0x8a } else { first };
        answer(&mut stream, first, &payload);
        if first == 0x88 {
            break;
        }
    }
    String::from_utf8(head).unwrap()
}

const CLIENT: &str = r#"
local show = require "show"
local client = require "resty.websocket.client"
local wb = client:new{ timeout = 5000, max_payload_len = 100000 }
local options = { key = "KEY", protocols = { "a", "b" }, origin = "http://o" }
local ok, err, head = wb:connect("ws://127.0.0.1:PORT/path?x=1", options)
show(ok, err, head:match("^[^\r]*"))
show((wb:send_text("hello")))
show(wb:recv_frame())
wb:send_binary(string.rep("x", 70000))
local data, kind, err = wb:recv_frame()
show(#data, kind, err)
wb:send_text(string.rep("y", 300))
show(#wb:recv_frame())
wb:send_ping("p")
show(wb:recv_frame())
wb:send_frame(false, 1, "frag")
wb:send_frame(true, 0, "ment")
show(wb:recv_frame())
show(wb:recv_frame())
show(wb:send_ping(string.rep("p", 126)))
show(wb:send_text("x"))
wb.fatal = nil
show(type(wb:send_close(1000, "bye")))
show(wb:recv_frame())
show((wb:close()))
show(wb:connect("http://127.0.0.1"))
local other = client:new{ timeout = 5000 }
ok, err = other:connect("ws://127.0.0.1:PORT/", options)
show(ok, err)
"#;

#[test]
fn client() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let head = serve(&listener, ACCEPT);
        serve(&listener, "somebody else's");
        head
    });
    check(
        CLIENT,
        &[("PORT", port.to_string()), ("KEY", KEY.to_owned())],
        r"
1 nil HTTP/1.1 101 Switching Protocols
11
hello text nil
70000 binary nil
300
p pong nil
frag text again
ment continuation nil
nil too much payload for control frame
nil fatal error already happened
number
bye close 1000
1
nil bad websocket uri
nil bad Sec-WebSocket-Accept
",
    );
    let head = server.join().unwrap();
    for line in [
        "GET /path?x=1 HTTP/1.1\r\n",
        "Upgrade: websocket\r\n",
        "Sec-WebSocket-Protocol: a,b\r\n",
        "Origin: http://o\r\n",
    ] {
        assert!(head.contains(line), "{line} is not in\n{head}");
    }
}
