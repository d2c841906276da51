//! `proxy` with bodies larger than memory should ever hold, and the finer points of HTTP between two
//! connections: kept ones that went stale, `Expect`, `HEAD`, 304, trailers, clients that leave.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::Signal;

use crate::client::Client;
use crate::harness::Server;
use crate::process::{PATIENCE, pause};

const LARGE: u64 = 256 << 20;

/// A peer; `serve` gets each connection, on a thread of its own, with its number.
pub(crate) fn peer(serve: impl Fn(usize, TcpStream) + Send + Clone + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let serve = serve.clone();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            std::thread::spawn(move || serve(number, stream));
        }
    });
    port
}

/// Reads a request's head; `None` when the connection is closed.
pub(crate) fn head(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        if reader.read_line(&mut text).ok()? == 0 {
            return None;
        }
    }
    Some(text)
}

pub(crate) fn proxy(peer: u16, more: &str) -> Server {
    Server::start(
        &format!(
            "[server]\nworkers = 1\nbody_limit = \"1g\"\n[[route]]\npath = \"/*\"\n\
             proxy = {{ url = \"http://127.0.0.1:{peer}\" }}\n{more}"
        ),
        &[],
    )
}

#[test]
fn large_bodies_pass_with_bounded_memory() {
    let (told, heard) = channel();
    let port = peer(move |_, stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut stream = stream;
        while let Some(request) = head(&mut reader) {
            if request.starts_with("POST") {
                let mut body = reader.by_ref().take(LARGE);
                let read = std::io::copy(&mut body, &mut std::io::sink()).unwrap();
                told.send(read).ok();
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .unwrap();
                continue;
            }
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
            stream.write_all(answer.as_bytes()).unwrap();
            let piece = vec![b'x'; 1 << 20];
            for _ in 0..LARGE >> 20 {
                if stream.write_all(&piece).is_err() {
                    return;
                }
            }
        }
    });
    let mut server = proxy(port, "");
    let mut client = Client::connect(server.port());
    client.send("POST /small HTTP/1.1\r\nHost: x\r\nContent-Length: 268435456\r\n\r\n");
    let piece = vec![b'x'; 1 << 20];
    client.send(&piece);
    let before = server.process().resident_memory();
    for _ in 1..LARGE >> 20 {
        client.send(&piece);
    }
    assert_eq!(client.response(false).unwrap().text(), "ok");
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), LARGE);
    // The download is read only after the peer had time to send far ahead.
    client.send("GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
    pause(Duration::from_secs(1));
    assert_eq!(client.response(false).unwrap().body.len() as u64, LARGE);
    let more = server.process().peak_memory().saturating_sub(before);
    assert!(more < 32 << 20, "{} MiB more", more >> 20);
    server.stop(Signal::QUIT);
}

/// A peer that answers the first request of its first connection and closes it at the second one,
/// without a word; later connections are served well. What each connection was asked.
fn forgetful() -> (u16, Receiver<String>) {
    let (told, heard) = channel();
    let port = peer(move |number, stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut stream = stream;
        let mut count = 0;
        while let Some(request) = head(&mut reader) {
            let line = request.lines().next().unwrap();
            told.send(format!("{number} {line}")).ok();
            count += 1;
            if number == 0 && count == 2 {
                return;
            }
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .unwrap();
        }
    });
    (port, heard)
}

#[test]
fn a_stale_connection_costs_one_more_try_where_that_is_safe() {
    for (method, body, expected) in [
        ("GET", "", 200),
        ("DELETE", "", 200),
        ("POST", "", 502),
        ("PUT", "data", 502),
    ] {
        let (port, heard) = forgetful();
        let server = proxy(port, "");
        let mut client = Client::connect(server.port());
        assert_eq!(client.get("/one").unwrap().status, 200);
        let mark = server.mark();
        client.send(format!(
            "{method} /two HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        let status = client.response(false).unwrap().status;
        assert_eq!(status, expected, "{method}");
        assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), "0 GET /one HTTP/1.1");
        let two = format!("{method} /two HTTP/1.1");
        assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), format!("0 {two}"));
        if expected == 200 {
            assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), format!("1 {two}"));
        } else {
            server.wait_log(&format!("upstream 127.0.0.1:{port}"), mark);
        }
        assert!(heard.try_recv().is_err(), "{method}: asked once more");
        server.stop(Signal::QUIT);
    }
}

#[test]
fn a_peer_that_always_closes_is_asked_twice_and_no_more() {
    let (told, heard) = channel();
    let port = peer(move |_, stream| {
        let mut reader = BufReader::new(stream);
        if head(&mut reader).is_some() {
            told.send(()).ok();
        }
    });
    let server = proxy(port, "");
    assert_eq!(Client::connect(server.port()).get("/").unwrap().status, 502);
    let asked = heard.try_iter().count();
    assert!((1..=2).contains(&asked), "asked {asked} times");
    server.stop(Signal::QUIT);
}

/// A peer that answers by path, and the heads that it was sent, in small letters.
fn by_path() -> (u16, Receiver<String>) {
    let (told, heard) = channel();
    let port = peer(move |_, stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut stream = stream;
        while let Some(request) = head(&mut reader) {
            told.send(request.to_ascii_lowercase()).ok();
            let path = request.split(' ').nth(1).unwrap();
            let answer: &[u8] = match path {
                "/length" => b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nETag: \"e\"\r\n\r\n",
                "/304" => b"HTTP/1.1 304 Not Modified\r\nETag: \"e\"\r\n\r\n",
                "/204" => b"HTTP/1.1 204 No Content\r\n\r\n",
                "/trailers" => {
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n3\r\nabc\r\n0\r\nX-End: 1\r\n\r\n"
                }
                "/named" => {
                    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nProxy-Connection: x\r\nX-Stays: 1\r\n\r\n"
                }
                "/old" => b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
                _ => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            };
            if request.starts_with("POST") {
                let mut body = [0; 4];
                reader.read_exact(&mut body).unwrap();
            }
            stream.write_all(answer).unwrap();
            if path == "/old" {
                return;
            }
        }
    });
    (port, heard)
}

#[test]
fn the_finer_points_of_http() {
    let (port, heard) = by_path();
    let server = proxy(port, "");
    let mut client = Client::connect(server.port());
    let mut ask = |request: &str| {
        client.send(request.replace('\n', "\r\n"));
        let answer = client.response(request.starts_with("HEAD")).unwrap();
        (answer, heard.recv_timeout(PATIENCE).unwrap())
    };
    let (answer, _) = ask("HEAD /length HTTP/1.1\nHost: x\n\n");
    assert_eq!(answer.header("content-length").as_deref(), Some("1234"));
    assert_eq!(answer.header("etag").as_deref(), Some("\"e\""));
    let (answer, asked) = ask("GET /304 HTTP/1.1\nHost: x\nIf-None-Match: \"e\"\n\n");
    assert_eq!(answer.status, 304);
    assert_eq!(answer.header("etag").as_deref(), Some("\"e\""));
    assert!(asked.contains("if-none-match: \"e\""), "{asked}");
    assert_eq!(ask("GET /204 HTTP/1.1\nHost: x\n\n").0.status, 204);
    // As nginx does, trailers end here.
    let (answer, asked) = ask("GET /trailers HTTP/1.1\nHost: x\nTE: trailers\nConnection: TE\n\n");
    assert_eq!(
        (answer.text().as_str(), answer.header("x-end")),
        ("abc", None)
    );
    assert!(!asked.contains("\r\nte:"), "{asked}");
    let (answer, _) = ask("GET /named HTTP/1.1\nHost: x\n\n");
    assert_eq!(answer.header("x-stays").as_deref(), Some("1"));
    for gone in ["x-hop", "proxy-connection"] {
        assert_eq!(answer.header(gone), None, "{gone}");
    }
    let (answer, asked) = ask(
        "GET /plain HTTP/1.1\nHost: me\nConnection: X-Mine, close-not\nX-Mine: 1\nKeep-Alive: 5\nProxy-Connection: x\nUpgrade: x\nX-Forwarded-For: 10.0.0.1\nX-Kept: 1\n\n",
    );
    assert_eq!(answer.text(), "ok");
    assert!(
        asked.contains(&format!("host: 127.0.0.1:{port}\r\n")),
        "{asked}"
    );
    // As with `proxy_pass` alone, the client's own word passes, and nothing is added to it.
    assert!(asked.contains("x-forwarded-for: 10.0.0.1\r\n"), "{asked}");
    assert!(asked.contains("x-kept: 1\r\n"), "{asked}");
    for gone in ["x-mine", "keep-alive", "proxy-connection", "upgrade"] {
        assert!(!asked.contains(&format!("\r\n{gone}:")), "{gone}: {asked}");
    }
    let (answer, asked) =
        ask("POST /post HTTP/1.1\nHost: x\nExpect: 100-continue\nContent-Length: 4\n\nbody");
    assert_eq!(
        (answer.status, answer.informational.as_slice()),
        (200, &[100][..])
    );
    assert!(!asked.contains("expect"), "{asked}");
    let (answer, _) = ask("GET /old HTTP/1.1\nHost: x\n\n");
    assert_eq!(answer.text(), "until the end");
    server.stop(Signal::QUIT);
}

#[test]
fn a_client_that_leaves_in_the_middle_ends_it_at_the_peer() {
    let (told, heard) = channel();
    let port = peer(move |_, stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut stream = stream;
        let Some(request) = head(&mut reader) else {
            return;
        };
        told.send("asked").ok();
        if request.starts_with("GET") {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
                .unwrap();
            while stream.write_all(&[b'x'; 4096]).is_ok() {}
        } else {
            std::io::copy(&mut reader, &mut std::io::sink()).ok();
        }
        told.send("over").ok();
    });
    let server = proxy(port, "");
    for request in [
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf",
    ] {
        let mut client = Client::connect(server.port());
        client.send(request);
        assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), "asked");
        drop(client);
        assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), "over");
    }
    server.stop(Signal::QUIT);
}
