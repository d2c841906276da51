//! The protocol on the wire, where a case file cannot reach: several requests in one packet, slow
//! and broken clients, limits.

use std::time::Duration;

use rustix::process::Signal;

use crate::client::{Client, Response};
use crate::harness::Server;

const CONFIG: &str = r#"
[server]
workers = 1
header_limit = "8k"
body_limit = "1k"
header_timeout = "3s"
body_timeout = "3s"
idle_timeout = "6s"

[[route]]
path = "/hello"
respond = { status = 200, body = "hello" }

[[route]]
path = "/lua"
lua.content = "ngx.say(ngx.var.arg_n)"

[[route]]
path = "/slow"
lua.content = "ngx.sleep(0.1) ngx.say('slow')"

[[route]]
path = "/echo"
lua.content = "ngx.req.read_body() ngx.print(ngx.req.get_body_data() or '')"
"#;

fn server() -> Server {
    Server::start(CONFIG, &[])
}

/// Sends bytes on a connection of their own and reads one answer.
fn ask(server: &Server, bytes: impl AsRef<[u8]>) -> (Client, Response) {
    let mut client = Client::connect(server.port());
    client.send(bytes.as_ref());
    let response = client.response(false).unwrap_or_else(|error| {
        panic!("{error}, for {:?}", String::from_utf8_lossy(bytes.as_ref()))
    });
    (client, response)
}

#[test]
fn the_last_answer_of_a_connection_says_so() {
    let config = CONFIG.replacen("workers = 1", "workers = 1\nkeepalive_requests = 3", 1);
    let server = Server::start(&config, &[]);
    for path in ["/hello", "/lua?n=1", "/slow", "/none"] {
        let mut client = Client::connect(server.port());
        let closes = [(); 3].map(|()| client.get(path).unwrap().header("connection"));
        assert_eq!(closes, [None, None, Some("close".to_owned())], "{path}");
        assert!(client.closed_within(Duration::from_secs(10)), "{path}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = server();
    let mut client = Client::connect(server.port());
    let mut text = String::new();
    for n in 0..100 {
        let path = if n == 3 {
            "/slow".to_owned()
        } else {
            format!("/lua?n={n}")
        };
        text.push_str(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    }
    client.send(text);
    for n in 0..100 {
        let response = client.response(false).unwrap();
        let expected = if n == 3 {
            "slow\n".to_owned()
        } else {
            format!("{n}\n")
        };
        assert_eq!(response.text(), expected);
    }
    server.stop(Signal::QUIT);
}

#[test]
fn a_request_that_comes_byte_by_byte() {
    let server = server();
    let mut client = Client::connect(server.port());
    for byte in b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello" {
        client.send([*byte]);
    }
    assert_eq!(client.response(false).unwrap().text(), "hello");
    // The connection is kept.
    assert_eq!(client.get("/hello").unwrap().text(), "hello");
    server.stop(Signal::QUIT);
}

#[test]
fn limits_answer_and_close() {
    let server = server();
    let long = "x".repeat(16 * 1024);
    let (_, response) = ask(
        &server,
        format!("GET /hello HTTP/1.1\r\nHost: x\r\nBig: {long}\r\n\r\n"),
    );
    assert_eq!(response.status, 431);
    let (_, response) = ask(&server, format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert!(matches!(response.status, 414 | 431), "{}", response.status);
    let head = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n";
    assert_eq!(ask(&server, head).1.status, 413);
    let mut chunked =
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    chunked.push_str(&format!("800\r\n{}\r\n0\r\n\r\n", "y".repeat(0x800)));
    assert_eq!(ask(&server, chunked).1.status, 413);
    server.stop(Signal::QUIT);
}

#[test]
fn slow_clients_are_let_go() {
    let server = server();
    // A head that never ends, and a body that never comes.
    let (mut client, response) = ask(&server, "GET /hello HTTP/1.1\r\nHost:");
    assert_eq!(response.status, 408);
    assert!(client.closed_within(Duration::from_secs(5)));
    let (_, response) = ask(
        &server,
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe",
    );
    assert_eq!(response.status, 408);
    // An idle connection is closed without an answer.
    let mut idle = Client::connect(server.port());
    idle.get("/hello").unwrap();
    assert!(idle.closed_within(Duration::from_secs(20)));
    server.stop(Signal::QUIT);
}

#[test]
fn time_outs_find_each_of_many() {
    let server = server();
    // More than are looked at in one go: half of them send no head, half no body.
    let unfinished = [
        "GET /hello HTTP/1.1\r\nHost:",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe",
    ];
    let mut clients: Vec<_> = (0..900)
        .map(|n| {
            let mut client = Client::connect(server.port());
            client.send(unfinished[n % 2]);
            client
        })
        .collect();
    for client in &mut clients {
        assert_eq!(client.response(false).unwrap().status, 408);
    }
    server.stop(Signal::QUIT);
}

#[test]
fn broken_requests_are_400() {
    let server = server();
    for text in [
        "nonsense\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: x\r\nBad Name: 1\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: five\r\n\r\n",
        "GET /hello HTTP/1.1\r\n\r\n",
        "GET /../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        assert_eq!(ask(&server, text).1.status, 400, "{text:?}");
    }
    server.stop(Signal::QUIT);
}

#[test]
fn lengths_that_contradict_are_refused() {
    let server = server();
    // Request smuggling: what one reader takes for a body another takes for a request.
    for text in [
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    ] {
        let (mut client, response) = ask(&server, text);
        assert_eq!(response.status, 400, "{text:?}");
        assert!(client.closed_within(Duration::from_secs(5)));
    }
    server.stop(Signal::QUIT);
}

#[test]
fn expect_continue() {
    let server = server();
    let mut client = Client::connect(server.port());
    client.send(
        "POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    );
    // The handler reads the body, which makes the server ask for it; only then is it sent.
    client.send("hello");
    let response = client.response(false).unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "hello"));
    assert_eq!(response.informational, [100]);
    // Nobody reads this one: no need to send it.
    let mut client = Client::connect(server.port());
    client.send(
        "POST /hello HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    );
    let response = client.response(false).unwrap();
    assert_eq!((response.status, response.informational.len()), (200, 0));
    server.stop(Signal::QUIT);
}

#[test]
fn keep_alive_and_close() {
    let server = server();
    let (mut client, response) = ask(
        &server,
        "GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(response.header("connection").as_deref(), Some("close"));
    assert!(client.closed_within(Duration::from_secs(5)));
    let (mut client, _) = ask(&server, "GET /hello HTTP/1.0\r\n\r\n");
    assert!(client.closed_within(Duration::from_secs(5)));
    let (mut client, response) = ask(
        &server,
        "GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    );
    // A server says which version it speaks, not which it was asked in; nginx and hyper differ.
    assert!(response.version.starts_with("HTTP/1."));
    assert_eq!(response.header("connection").as_deref(), Some("keep-alive"));
    assert_eq!(client.get("/hello").unwrap().status, 200);
    server.stop(Signal::QUIT);
}

#[test]
fn a_body_that_nobody_read_does_not_become_a_request() {
    let server = server();
    let smuggled = "GET /lua?n=smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut client = Client::connect(server.port());
    client.send(format!(
        "POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{smuggled}GET /lua?n=real HTTP/1.1\r\nHost: x\r\n\r\n",
        smuggled.len()
    ));
    assert_eq!(client.response(false).unwrap().text(), "hello");
    assert_eq!(client.response(false).unwrap().text(), "real\n");
    server.stop(Signal::QUIT);
}

#[test]
fn an_idle_connection_gives_its_buffers_back_and_goes_on() {
    let server = server();
    let mut client = Client::connect(server.port());
    for _ in 0..2 {
        assert_eq!(client.get("/hello").unwrap().text(), "hello");
        // Longer than the second after which the buffers go, shorter than `idle_timeout`.
        assert!(!client.closed_within(Duration::from_millis(1200)));
    }
    assert_eq!(client.get("/lua?n=again").unwrap().text(), "again\n");
    // A head that began behind the last request is still there, and its time is limited as any.
    client.send("GET /hello HTTP/1.1\r\nHost: x\r\n\r\nGET /he");
    assert_eq!(client.response(false).unwrap().text(), "hello");
    assert_eq!(client.response(false).unwrap().status, 408);
    let mut client = Client::connect(server.port());
    client.send("GET /hello HTTP/1.1\r\nHost: x\r\n\r\nGET /lua?n=rest HTTP/1.1\r\nHo");
    assert_eq!(client.response(false).unwrap().text(), "hello");
    assert!(!client.closed_within(Duration::from_millis(1200)));
    client.send("st: x\r\n\r\n");
    assert_eq!(client.response(false).unwrap().text(), "rest\n");
    server.stop(Signal::QUIT);
}

#[test]
fn half_closed_clients_get_their_answer() {
    let server = server();
    let mut client = Client::connect(server.port());
    client.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    client.shutdown();
    assert_eq!(client.response(false).unwrap().text(), "slow\n");
    server.stop(Signal::QUIT);
}
