//! `proxy` in front of a real nginx, and in front of servers that hang, lie and leave.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use rustix::process::Signal;

use crate::client::{Client, get};
use crate::harness::{Folder, Server, free_port};
use crate::nginx::{Nginx, frame};
use crate::process::{PATIENCE, have};

const ORIGIN: &str = r#"
location /echo { content_by_lua_block {
    ngx.req.read_body()
    local h = ngx.req.get_headers()
    ngx.header["X-Origin"] = "nginx"
    ngx.header["Keep-Alive"] = "timeout=5"
    ngx.say(ngx.req.get_method(), " ", ngx.var.request_uri, " ", ngx.req.http_version())
    for _, n in ipairs{"host", "connection", "te", "x-mine", "x-kept", "content-length", "transfer-encoding", "expect"} do
        ngx.say(n, "=", tostring(h[n]))
    end
    ngx.print(ngx.req.get_body_data() or "")
} }
location /big { content_by_lua_block {
    local s = string.rep("x", 65536) for i = 1, 64 do ngx.print(s) ngx.flush(true) end
} }
location /length { content_by_lua_block {
    ngx.req.read_body()
    local file = ngx.req.get_body_file()
    local n = #(ngx.req.get_body_data() or "")
    if file then local f = io.open(file) n = f:seek("end") f:close() end
    ngx.say(n)
} }
location /moved { return 301 http://$http_host/base/there; }
location /none { return 204; }
location /slow { content_by_lua_block { ngx.sleep(5) ngx.say("late") } }
location /connections { content_by_lua_block { ngx.say(ngx.var.connection, " ", ngx.var.connection_requests) } }
"#;

fn origin() -> Option<(Nginx, u16)> {
    if !have("nginx") {
        return None;
    }
    let port = free_port();
    let text = frame("client_max_body_size 64m;", ORIGIN, port);
    Some((Nginx::start_with(Folder::new(), &text, port), port))
}

fn ask(server: &Server, request: &str) -> crate::client::Response {
    let mut client = Client::connect(server.port());
    client.send(request.replace('\n', "\r\n"));
    client.response(request.starts_with("HEAD")).unwrap()
}

#[test]
fn heads_and_bodies_pass_through() {
    let Some((_nginx, origin)) = origin() else {
        return;
    };
    let config = format!(
        r#"
[server]
workers = 1
body_limit = "32m"

[[route]]
path = "/*"
proxy = "http://127.0.0.1:{origin}"
lua.access = "if ngx.var.arg_deny then return ngx.exit(403) end ngx.req.set_header('X-Kept', 'from access')"
lua.header_filter = "ngx.header['X-Filtered'] = 'yes'"
lua.log = "ngx.log(ngx.NOTICE, 'status ', ngx.status)"

[[route]]
path = "/api/*"
proxy = "http://127.0.0.1:{origin}/echo/"

[[route]]
path = "/upper"
proxy = "http://127.0.0.1:{origin}/echo"
lua.body_filter = "ngx.arg[1] = ngx.arg[1]:upper()"

[[route]]
path = "/here/*"
proxy = "http://127.0.0.1:{origin}/"
"#
    );
    let server = Server::start(&config, &[]);
    let mark = server.mark();
    let answer = ask(
        &server,
        "POST /echo?a=%20b HTTP/1.1\nHost: me\nConnection: keep-alive, X-Mine\nX-Mine: 1\nTE: trailers\nContent-Length: 4\n\nbody",
    );
    let expected = format!(
        "POST /echo?a=%20b 1.1\nhost=127.0.0.1:{origin}\nconnection=nil\nte=nil\nx-mine=nil\nx-kept=from access\ncontent-length=4\ntransfer-encoding=nil\nexpect=nil\nbody"
    );
    assert_eq!(answer.text(), expected);
    assert_eq!(answer.header("x-origin").as_deref(), Some("nginx"));
    assert_eq!(answer.header("x-filtered").as_deref(), Some("yes"));
    assert_eq!(answer.header("keep-alive"), None);
    assert_eq!(answer.header("server").as_deref(), Some("phasor"));
    server.wait_log("status 200", mark);
    assert_eq!(get(server.port(), "/echo?deny=1").status, 403);
    // A chunked body stays chunked.
    let chunked = ask(
        &server,
        "POST /echo HTTP/1.1\nHost: me\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\n",
    );
    assert!(
        chunked.text().contains("transfer-encoding=chunked\n"),
        "{}",
        chunked.text()
    );
    assert!(chunked.text().ends_with("abc"));
    assert!(
        get(server.port(), "/api/x?y")
            .text()
            .starts_with("GET /echo/x?y 1.1\n")
    );
    assert!(
        get(server.port(), "/upper")
            .text()
            .starts_with("GET /ECHO 1.1\nHOST=")
    );
    assert_eq!(get(server.port(), "/big").body.len(), 4 << 20);
    let head = ask(&server, "HEAD /none HTTP/1.1\nHost: me\n\n");
    assert_eq!(head.status, 204);
    let head = ask(&server, "HEAD /echo HTTP/1.1\nHost: me\n\n");
    assert_eq!((head.status, head.body.len()), (200, 0));
    let moved = get(server.port(), "/here/moved");
    assert_eq!(moved.status, 301);
    assert_eq!(
        moved.header("location").as_deref(),
        Some("/here/base/there")
    );
    let body = "x".repeat(8 << 20);
    let length = ask(
        &server,
        &format!(
            "POST /length HTTP/1.1\nHost: me\nContent-Length: {}\n\n{body}",
            body.len()
        ),
    );
    assert_eq!(length.text(), "8388608\n");
    let too_long = ask(
        &server,
        &format!(
            "POST /length HTTP/1.1\nHost: me\nContent-Length: {}\n\n",
            33 << 20
        ),
    );
    assert_eq!(too_long.status, 413);
    // One connection serves one request after the other.
    let first = get(server.port(), "/connections").text();
    let second = get(server.port(), "/connections").text();
    assert_eq!(
        first.split(' ').next(),
        second.split(' ').next(),
        "{first}{second}"
    );
    server.stop(Signal::QUIT);
}

/// A server that does with each connection what it is told.
fn wicked(serve: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            serve(stream);
        }
    });
    port
}

fn says(stream: &mut TcpStream, answer: &str) {
    let mut request = [0; 4096];
    let _read = stream.read(&mut request).unwrap_or(0);
    stream.write_all(answer.as_bytes()).ok();
}

#[test]
fn faults_of_the_peer_have_their_status() {
    let hangs = wicked(std::mem::forget);
    let lies = wicked(|mut stream| says(&mut stream, "nonsense\r\n\r\n"));
    let leaves = wicked(|mut stream| says(&mut stream, ""));
    let stops = wicked(|mut stream| {
        says(
            &mut stream,
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        );
    });
    let stalls = wicked(|mut stream| {
        says(
            &mut stream,
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        );
        std::mem::forget(stream);
    });
    let early = wicked(|mut stream| {
        says(
            &mut stream,
            "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        );
    });
    let nobody = free_port();
    let mut config = "[server]\nworkers = 1\n".to_owned();
    for (name, port) in [
        ("hangs", hangs),
        ("lies", lies),
        ("leaves", leaves),
        ("stops", stops),
        ("stalls", stalls),
        ("early", early),
        ("nobody", nobody),
    ] {
        // Only those that wait for ever: the others may be slow.
        let times = match name {
            "hangs" | "stalls" => ", read_timeout = \"2s\", send_timeout = \"2s\"",
            _ => "",
        };
        config.push_str(&format!(
            "[[route]]\npath = \"/{name}\"\nproxy = {{ url = \"http://127.0.0.1:{port}\"{times} }}\n"
        ));
    }
    config.push_str("[[route]]\npath = \"/paged\"\nerror_page = { \"502\" = \"/sorry\" }\n");
    config.push_str(&format!("proxy = \"http://127.0.0.1:{nobody}\"\n"));
    config.push_str("[[route]]\npath = \"/sorry\"\nrespond = { status = 200, body = \"sorry\" }\n");
    let server = Server::start(&config, &[]);
    let mark = server.mark();
    let status = |path: &str| get(server.port(), path).status;
    assert_eq!(status("/hangs"), 504);
    server.wait_log(
        "upstream timed out: reading the answer's head, upstream 127.0.0.1",
        mark,
    );
    assert_eq!(status("/lies"), 502);
    assert_eq!(status("/leaves"), 502);
    assert_eq!(status("/nobody"), 502);
    server.wait_log("connect to upstream failed", mark);
    assert_eq!(get(server.port(), "/early").text(), "ok");
    let page = get(server.port(), "/paged");
    assert_eq!((page.status, page.text().as_str()), (502, "sorry"));
    for path in ["/stops", "/stalls"] {
        let outcome = Client::connect(server.port()).get(path);
        assert!(
            outcome.is_err(),
            "{path}: half an answer passed for a whole one"
        );
    }
    server.stop(Signal::QUIT);
}

#[test]
fn a_client_that_leaves_ends_the_request_to_the_peer() {
    let (told, heard) = std::sync::mpsc::channel();
    let peer = wicked(move |mut stream| {
        let mut bytes = [0; 4096];
        let _request = stream.read(&mut bytes).unwrap();
        told.send("asked").ok();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let closed = matches!(stream.read(&mut bytes), Ok(0));
        told.send(if closed { "closed" } else { "still open" }).ok();
    });
    let config = format!(
        "[server]\nworkers = 1\n[[route]]\npath = \"/*\"\nproxy = \"http://127.0.0.1:{peer}\"\n"
    );
    let server = Server::start(&config, &[]);
    let mut client = Client::connect(server.port());
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), "asked");
    drop(client);
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), "closed");
    server.stop(Signal::QUIT);
}

#[test]
fn a_subrequest_asks_a_peer() {
    let server = Server::start(
        r#"
[server]
listen = ["127.0.0.1:8000"]
workers = 1
[[route]]
path = "/back/*"
lua.content = """
ngx.req.read_body()
ngx.header['X-Back'] = 'b'
ngx.print(ngx.req.get_method(), ' ', ngx.var.request_uri, ' ', tostring(ngx.req.get_body_data()), ' ', tostring(ngx.var.http_x_mine))
ngx.print(string.rep('z', tonumber(ngx.var.arg_n) or 0))
"""
[[route]]
path = "/peer/*"
proxy = "http://127.0.0.1:8000/back/"
[[route]]
path = "/files/*"
files = { root = "www" }
[[route]]
path = "/t"
lua.content = """
local r = ngx.location.capture('/peer/x?n=3', { method = ngx.HTTP_POST, body = 'given' })
ngx.say(r.status, ' ', r.body, ' ', r.header['x-back'], ' ', r.truncated)
r = ngx.location.capture('/peer/y', { args = { n = 300000 } })
ngx.say(r.status, ' ', #r.body, ' ', r.truncated)
r = ngx.location.capture('/files/a.txt')
ngx.say(r.status, ' ', #r.body, ' ', r.header.content_type, ' ', r.header['Content-Length'])
"""
"#,
        &[("www/files/a.txt", &"a".repeat(200_000))],
    );
    let mut client = Client::connect(server.port());
    client.send("GET /t HTTP/1.1\r\nHost: x\r\nX-Mine: me\r\n\r\n");
    assert_eq!(
        client.response(false).unwrap().text(),
        "200 POST /back/x?n=3 given mezzz b false\n\
         200 300027 false\n\
         200 200000 text/plain 200000\n"
    );
    server.stop(Signal::QUIT);
}
