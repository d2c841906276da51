//! `phasor.http` and the host's HTTP client below it: TLS and HTTP/2 with a real nginx, kept
//! connections, bodies both ways as streams, and servers that hang, lie and never end.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Folder, Server, free_port};
use crate::nginx::{Nginx, frame};
use crate::process::{have, pause};
use crate::redis::post;
use crate::tls::Authority;

/// A server whose one route runs the Lua that it is sent; `{origin}` is where the requests go.
pub(crate) fn server(more: &str, allow: &str) -> Server {
    let allow = match allow {
        "" => "allow = { http = [\"*\"] }",
        allow => allow,
    };
    let config = format!(
        r#"
[server]
workers = 1
{more}

[plugin.lua]
config = {{ init = "http = require 'phasor.http'; cjson = require 'cjson'" }}
limits = {{ cpu = "10s" }}
{allow}

[[route]]
path = "/run"
lua.content = """
ngx.req.read_body()
local run = assert(loadstring("local http, cjson, ngx = ... " .. ngx.req.get_body_data()))
ngx.say(run(http, cjson, ngx))
"""
"#
    );
    Server::start(&config, &[])
}

/// What Lua says of a request: status and body, or the error.
fn fetch(server: &Server, url: &str, options: &str) -> String {
    let lua = format!(
        "local r, e = http.fetch('{url}', {{ {options} }}) return r and r.status .. ' ' .. r.body or 'error: ' .. e"
    );
    post(server, &lua)
}

const WHICH: &str = "content_by_lua_block { ngx.print(ngx.req.http_version(), ' ', ngx.var.connection, ' ', ngx.var.connection_requests) }";

#[test]
fn tls_http_2_and_whom_it_believes() {
    if !have("nginx") {
        return;
    }
    let (folder, authority) = (Folder::new(), Authority::new());
    let ca = authority.file(&folder);
    let (port, modern, old) = (free_port(), free_port(), free_port());
    let mut http = String::new();
    for (port, how, certificate) in [
        (modern, "ssl http2", authority.sign(&folder, "localhost")),
        (old, "ssl", authority.expired(&folder, "localhost")),
    ] {
        let (chain, key) = (certificate.chain.display(), certificate.key.display());
        http.push_str(&format!(
            "server {{ listen 127.0.0.1:{port} {how}; ssl_certificate {chain}; ssl_certificate_key {key};\n\
             location / {{ {WHICH} }} }}\n"
        ));
    }
    let _nginx = Nginx::start_with(Folder::new(), &frame(&http, "", port), port);
    let ca = format!("[http_client]\nca = \"{}\"\n", ca.display());
    let believing = server(&ca, "");
    let url = format!("https://localhost:{modern}/");
    let first = fetch(&believing, &url, "");
    let second = fetch(&believing, &url, "");
    let connection = first
        .strip_prefix("200 2 ")
        .and_then(|rest| rest.strip_suffix(" 1"));
    let connection = connection.unwrap_or_else(|| panic!("{first}"));
    assert_eq!(second, format!("200 2 {connection} 2"));
    let expired = fetch(&believing, &format!("https://localhost:{old}/"), "");
    assert!(expired.contains("xpired"), "{expired}");
    let wrong = fetch(&believing, &format!("https://127.0.0.1:{modern}/"), "");
    assert!(wrong.contains("not valid for name"), "{wrong}");
    // A server that speaks no TLS.
    let plain = fetch(&believing, &format!("https://localhost:{port}/"), "");
    assert!(plain.starts_with("error: "), "{plain}");
    believing.stop(Signal::QUIT);
    let old_fashioned = server(&format!("{ca}http2 = false"), "");
    let first = fetch(&old_fashioned, &url, "");
    let second = fetch(&old_fashioned, &url, "");
    assert!(
        first.starts_with("200 1.1 ") && first.ends_with(" 1"),
        "{first}"
    );
    assert!(
        second.starts_with("200 1.1 ") && second.ends_with(" 2"),
        "{second}"
    );
    old_fashioned.stop(Signal::QUIT);
    let doubting = server("", "");
    let unknown = fetch(&doubting, &url, "");
    assert!(unknown.contains("UnknownIssuer"), "{unknown}");
    doubting.stop(Signal::QUIT);
}

const ORIGIN: &str = r#"
client_max_body_size 1g;
location /which { content_by_lua_block { ngx.print(ngx.var.connection) } }
location /echo { content_by_lua_block {
    ngx.req.read_body()
    local h = ngx.req.get_headers()
    ngx.header["X-Two"] = { "a", "b" }
    ngx.print(ngx.req.get_method(), " ", ngx.var.request_uri, " ", tostring(h["content-length"]), " ",
        tostring(h["transfer-encoding"]), " ", tostring(h["x-mine"]), " ", ngx.req.get_body_data() or "")
} }
location /length { content_by_lua_block {
    ngx.req.read_body()
    local file = ngx.req.get_body_file()
    local n = #(ngx.req.get_body_data() or "")
    if file then local f = io.open(file) n = f:seek("end") f:close() end
    ngx.print(n)
} }
location /big { content_by_lua_block {
    local s = string.rep("x", 65536) for i = 1, 4096 do ngx.print(s) ngx.flush(true) end
} }
location /moved { return 302 /echo; }
location /none { return 204; }
"#;

fn origin() -> Option<(Nginx, String)> {
    if !have("nginx") {
        return None;
    }
    let port = free_port();
    let nginx = Nginx::start_with(Folder::new(), &frame("", ORIGIN, port), port);
    Some((nginx, format!("http://127.0.0.1:{port}")))
}

#[test]
fn requests_and_answers() {
    let Some((_nginx, origin)) = origin() else {
        return;
    };
    let server = server("", "");
    let ask = |path: &str, options: &str| fetch(&server, &format!("{origin}{path}"), options);
    assert_eq!(
        ask(
            "/echo?a=%20b",
            "headers = { ['X-Mine'] = 1, Connection = 'close, X-Mine' }"
        ),
        "200 GET /echo?a=%20b nil nil nil"
    );
    assert_eq!(
        ask(
            "/echo",
            "method = 'PUT', body = 'abc', headers = { ['x-mine'] = 'y' }"
        ),
        "200 PUT /echo 3 nil y abc"
    );
    assert!(ask("/moved", "").starts_with("302 "));
    assert_eq!(ask("/none", ""), "204");
    assert_eq!(ask("/echo", "method = 'HEAD'"), "200");
    // A body that is made piece by piece, with and without a length that is known before.
    let pieces = "body = (function() local n = 0 return function() n = n + 1 if n < 4 then return 'p' .. n end end end)()";
    assert_eq!(
        ask("/echo", &format!("method = 'POST', {pieces}")),
        "200 POST /echo nil chunked nil p1p2p3"
    );
    assert_eq!(
        ask(
            "/echo",
            &format!("method = 'POST', headers = {{ ['Content-Length'] = 6 }}, {pieces}")
        ),
        "200 POST /echo 6 nil nil p1p2p3"
    );
    let short = ask(
        "/echo",
        &format!("method = 'POST', headers = {{ ['Content-Length'] = 5 }}, {pieces}"),
    );
    assert!(short.starts_with("error: "), "{short}");
    for (options, expected) in [
        ("method = 'A B'", "not a method"),
        ("headers = { ['a b'] = 1 }", "not a header"),
        ("headers = { a = 'x\\r\\ny: z' }", "not a header"),
    ] {
        let answer = ask("/echo", options);
        assert!(answer.contains(expected), "{options}: {answer}");
    }
    for url in [
        "nonsense",
        "ftp://127.0.0.1/",
        "http://me@127.0.0.1/",
        "/echo",
    ] {
        let answer = fetch(&server, url, "");
        assert!(answer.contains("not a URL"), "{url}: {answer}");
    }
    let lua = format!(
        "local r = http.fetch('{origin}/echo') return cjson.encode(r.headers.x_two), r.headers['X-TWO'][2], r.headers.Server ~= nil"
    );
    assert_eq!(post(&server, &lua), r#"["a","b"]btrue"#);
    // Several at once, and the first of several.
    let lua = format!(
        "local t = {{}} for i = 1, 3 do t[i] = ngx.thread.spawn(http.fetch, '{origin}/echo?' .. i) end \
         local seen = '' for i = 1, 3 do local _, r = ngx.thread.wait(t[i]) seen = seen .. r.body:match('%?(%d)') end return seen"
    );
    assert_eq!(post(&server, &lua), "123");
    server.stop(Signal::QUIT);
}

#[test]
fn kept_connections_are_counted() {
    let Some((_nginx, origin)) = origin() else {
        return;
    };
    let many = format!(
        "local seen, n = {{}}, 0 for i = 1, 20 do local c = http.fetch('{origin}/which').body \
         if not seen[c] then seen[c] = true n = n + 1 end end return n"
    );
    let keeping = server("", "");
    assert_eq!(post(&keeping, &many), "1");
    keeping.stop(Signal::QUIT);
    let closing = server("[http_client]\nkeepalive = 0\n", "");
    assert_eq!(post(&closing, &many), "20");
    closing.stop(Signal::QUIT);
}

#[test]
fn bodies_stream_with_bounded_memory() {
    let Some((_nginx, origin)) = origin() else {
        return;
    };
    let mut server = server("", "");
    assert!(fetch(&server, &format!("{origin}/echo"), "").starts_with("200"));
    let before = server.process().resident_memory();
    // 128 MiB up, made of one string of 1 MiB.
    let lua = format!(
        "local piece, n = ('x'):rep(2^20), 0 \
         local r, e = http.fetch('{origin}/length', {{ method = 'POST', body = function() n = n + 1 if n <= 128 then return piece end end }}) \
         return r and r.body or e"
    );
    assert_eq!(post(&server, &lua), "134217728");
    // 256 MiB down, read piece by piece, with a pause in which the server must not run ahead.
    let lua = format!(
        "local r = assert(http.open('{origin}/big')) local n, paused = 0 \
         while true do local piece, e = r:read() if not piece then return n, tostring(e) end n = n + #piece \
         if n > 2^20 and not paused then paused = true ngx.sleep(1) end end"
    );
    assert_eq!(post(&server, &lua), "268435456nil");
    // What nobody wants any more is not waited for.
    let lua = format!(
        "local r = assert(http.open('{origin}/big')) local piece = r:read() r:close() local p, e = r:read() return #piece > 0, p, e"
    );
    assert_eq!(post(&server, &lua), "truenilclosed");
    let lua = format!(
        "local r = assert(http.open('{origin}/big')) local b, e = r:read_all(0, 1000) return b, e"
    );
    assert_eq!(post(&server, &lua), "nilthe body is longer than 1000 bytes");
    let more = server.process().peak_memory().saturating_sub(before);
    assert!(more < 64 << 20, "{} MiB more", more >> 20);
    server.stop(Signal::QUIT);
}

/// A server that does with each connection what it is told, and how many came.
pub(crate) fn wicked(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (serve, count) = (Arc::new(serve), Arc::new(AtomicUsize::new(0)));
    let counted = count.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::Relaxed);
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    (port, count)
}

fn says(stream: &mut TcpStream, answer: &[u8]) {
    let mut request = [0; 4096];
    let _read = stream.read(&mut request).unwrap_or(0);
    stream.write_all(answer).ok();
}

/// Writes a piece over and over until nobody takes it.
fn without_end(mut stream: TcpStream, head: &[u8], piece: &[u8], every: Duration) {
    says(&mut stream, head);
    while stream.write_all(piece).is_ok() {
        pause(every);
    }
}

/// Peers that answer as no server should: a name, its port, options, and what the error says.
fn bad_peers() -> Vec<(&'static str, u16, &'static str, &'static str)> {
    let silent = wicked(|mut stream| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok();
    });
    let leaves = wicked(|mut stream| says(&mut stream, b""));
    let lies = wicked(|mut stream| says(&mut stream, b"nonsense\r\n\r\n"));
    let half = wicked(|mut stream| {
        says(
            &mut stream,
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        );
    });
    let slow = wicked(|stream| {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
        without_end(stream, head, b"x", Duration::from_millis(20));
    });
    let headers = wicked(|stream| {
        let line = [&b"X-Long: "[..], &[b'x'; 1000], b"\r\n"].concat();
        without_end(stream, b"HTTP/1.1 200 OK\r\n", &line, Duration::ZERO);
    });
    let many = wicked(|stream| {
        without_end(stream, b"HTTP/1.1 200 OK\r\n", b"A: b\r\n", Duration::ZERO);
    });
    let endless = wicked(|stream| {
        let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
        without_end(stream, head, &[b'x'; 65536], Duration::ZERO);
    });
    let huge = wicked(|stream| {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n";
        without_end(stream, head, &[b'x'; 65536], Duration::ZERO);
    });
    let too_long = "longer than 16777216 bytes";
    vec![
        ("silent", silent.0, "timeout = 300", "timeout"),
        ("slow", slow.0, "timeout = 300", "timeout"),
        ("leaves", leaves.0, "", "error: "),
        ("lies", lies.0, "", "error: "),
        ("half", half.0, "", "error: "),
        ("headers", headers.0, "timeout = 50000", "error: "),
        ("many", many.0, "timeout = 50000", "error: "),
        ("endless", endless.0, "timeout = 50000", too_long),
        ("huge", huge.0, "timeout = 50000", too_long),
        ("nobody", free_port(), "", "refused"),
    ]
}

#[test]
fn servers_that_hang_lie_and_never_end() {
    let mut server = server("", "");
    let before = server.process().resident_memory();
    for (name, port, options, expected) in bad_peers() {
        let answer = fetch(&server, &url(port), options);
        let fits = answer.starts_with("error: ") && answer.contains(expected);
        assert!(fits, "{name}: {answer}");
        let late = answer.contains("timeout");
        assert!(expected == "timeout" || !late, "{name}: {answer}");
    }
    let more = server.process().peak_memory().saturating_sub(before);
    assert!(more < 96 << 20, "{} MiB more", more >> 20);
    server.stop(Signal::QUIT);
}

pub(crate) fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}/")
}

#[test]
fn each_stage_has_its_time_out() {
    let (silent, _) = wicked(|mut stream| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok();
    });
    let (slow, _) = wicked(|stream| {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
        without_end(stream, head, b"x", Duration::from_millis(500));
    });
    let (deaf, _) = wicked(|stream| {
        pause(Duration::from_secs(60));
        drop(stream);
    });
    let server = server("", "");
    let lua = format!("return http.open('{}', {{ timeout = 200 }})", url(silent));
    assert_eq!(post(&server, &lua), "niltimeout");
    let lua = format!(
        "local r = assert(http.open('{}')) local n = 0 \
         while n < 9 do local p, e = r:read(50) if e then return e end n = n + 1 end return n",
        url(slow)
    );
    assert_eq!(post(&server, &lua), "timeout");
    // A server that does not read holds up who uploads, until the time is over.
    let start = Instant::now();
    let lua = format!(
        "local piece = ('x'):rep(2^20) return http.fetch('{}', {{ method = 'POST', timeout = 300, body = function() return piece end }})",
        url(deaf)
    );
    assert_eq!(post(&server, &lua), "niltimeout");
    assert!(start.elapsed() < Duration::from_secs(50));
    server.stop(Signal::QUIT);
}

#[test]
fn an_answer_before_the_body_is_whole() {
    let (early, _) = wicked(|mut stream| {
        says(
            &mut stream,
            b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig",
        );
        let mut rest = [0; 65536];
        while stream.read(&mut rest).is_ok_and(|read| read > 0) {}
    });
    let server = server("", "");
    let lua = format!(
        "local piece = ('x'):rep(2^16) local r, e = http.fetch('{}', {{ method = 'POST', body = function() return piece end }}) return r and r.status .. r.body or e",
        url(early)
    );
    assert_eq!(post(&server, &lua), "413big");
    server.stop(Signal::QUIT);
}

#[test]
fn what_allow_does_not_name_is_refused_and_logged() {
    let (peer, count) = wicked(|mut stream| {
        says(
            &mut stream,
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        );
    });
    let server = server(
        "",
        &format!("allow = {{ http = [\"http://127.0.0.1:{peer}\"] }}"),
    );
    assert_eq!(
        fetch(&server, &format!("http://127.0.0.1:{peer}/"), ""),
        "200 ok"
    );
    for url in [
        format!("http://localhost:{peer}/"),
        format!("https://127.0.0.1:{peer}/"),
    ] {
        let mark = server.mark();
        let answer = fetch(&server, &url, "");
        assert!(answer.contains("allow.http does not cover"), "{answer}");
        let lua =
            format!("return http.open('{url}', {{ method = 'POST', body = function() end }})");
        assert!(post(&server, &lua).contains("allow.http does not cover"));
        server.wait_log("allow.http does not cover", mark);
        let log = server.log_since(mark);
        assert!(log.contains("lua") && log.contains("content"), "{log}");
    }
    assert_eq!(count.load(Ordering::Relaxed), 1);
    server.stop(Signal::QUIT);
}
