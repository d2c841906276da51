//! `proxy` and peers that drip, reset the connection, or have more to say than anybody can hold.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use socket2::SockRef;

use crate::client::{Client, get};
use crate::harness::Server;
use crate::process::PATIENCE;
use crate::proxy_streams::{head, peer, proxy};

const GIB: u64 = 1 << 30;

/// What a test lets its peer go on with.
fn gate() -> (Sender<()>, Arc<Mutex<Receiver<()>>>) {
    let (go, wait) = channel();
    (go, Arc::new(Mutex::new(wait)))
}

/// Closes a connection so that the other side is told `reset`.
fn reset(stream: &TcpStream) {
    let linger = Some(std::time::Duration::ZERO);
    SockRef::from(stream).set_linger(linger).unwrap();
}

/// A raw connection to a server that has sent a request.
fn ask(server: &Server, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {request} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// Reads what comes until it ends so.
fn read_to(stream: &mut TcpStream, end: &[u8]) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end) {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn one_that_drips() {
    let (go, wait) = gate();
    let port = peer(move |_, stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut stream = stream;
        head(&mut reader).unwrap();
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        for byte in text {
            stream.write_all(&[*byte]).unwrap();
        }
        // Each byte of the body comes when the one before has gone all the way.
        for byte in b"abcd" {
            stream.write_all(&[*byte]).unwrap();
            wait.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        }
        // The last one never does.
        head(&mut reader);
    });
    let server = Server::start(
        &format!(
            "[server]\nworkers = 1\n[[route]]\npath = \"/*\"\n\
             proxy = {{ url = \"http://127.0.0.1:{port}\", read_timeout = \"2s\" }}\n"
        ),
        &[],
    );
    let mark = server.mark();
    let mut client = ask(&server, "/");
    let text = read_to(&mut client, b"\r\n\r\n");
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    for byte in b"abcd" {
        let mut read = [0];
        client.read_exact(&mut read).unwrap();
        assert_eq!(read[0], *byte);
        go.send(()).unwrap();
    }
    // Cut after the time-out between two pieces: half an answer does not pass for a whole one.
    assert!(!matches!(client.read(&mut [0]), Ok(1..)));
    server.wait_log("upstream timed out", mark);
    server.stop(Signal::QUIT);
}

#[test]
fn one_that_resets() {
    let (go, wait) = gate();
    let port = peer(move |_, stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut stream = stream;
        let request = head(&mut reader).unwrap();
        if request.starts_with("GET /in-the-head") {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-").unwrap();
        } else if request.starts_with("GET /in-the-body") {
            let text = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
            stream.write_all(text).unwrap();
            // Not before it was read: a reset throws away what was sent.
            wait.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        }
        reset(&stream);
    });
    let server = proxy(port, "");
    for path in ["/at-once", "/in-the-head"] {
        let mark = server.mark();
        assert_eq!(get(server.port(), path).status, 502, "{path}");
        server.wait_log(r"\[error\].*upstream 127\.0\.0\.1", mark);
    }
    let mut client = ask(&server, "/in-the-body");
    read_to(&mut client, b"half");
    go.send(()).unwrap();
    // Nothing follows that would make it a whole answer.
    assert!(!matches!(client.read(&mut [0]), Ok(1..)));
    server.stop(Signal::QUIT);
}

#[test]
fn one_with_a_gibibyte() {
    let port = peer(|_, stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut stream = stream;
        head(&mut reader).unwrap();
        // Its end is the end of the connection: nobody knows how much will come.
        let text = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
        stream.write_all(text).unwrap();
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..GIB >> 20 {
            if stream.write_all(&piece).is_err() {
                return;
            }
        }
    });
    let mut server = proxy(port, "");
    let mut slow = ask(&server, "/");
    let text = read_to(&mut slow, b"\r\n\r\n").to_ascii_lowercase();
    assert!(text.contains("transfer-encoding: chunked"), "{text}");
    let before = server.process().resident_memory();
    // One client takes nothing, one takes all.
    let mut client = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = "GET / HTTP/1.0\r\nHost: x\r\n\r\n";
    client.write_all(request.as_bytes()).unwrap();
    read_to(&mut client, b"\r\n\r\n");
    let read = std::io::copy(&mut client, &mut std::io::sink()).unwrap();
    assert_eq!(read, GIB);
    let more = server.process().peak_memory().saturating_sub(before);
    assert!(more < 32 << 20, "{} MiB more", more >> 20);
    drop(slow);
    let mut other = Client::connect(server.port());
    other.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(other.response(true).unwrap().status, 200);
    server.stop(Signal::TERM);
}
