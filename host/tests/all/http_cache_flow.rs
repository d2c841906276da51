//! `cache` on a route in motion: many who ask at once, sources that fail, clients that leave, bodies
//! that are long, and purges.

use std::time::{Duration, Instant};

use crate::client::Client;
use crate::harness::Server;
use crate::http_cache::{LONG, ask, count, is, origin, said, server, until};

#[test]
fn a_thousand_who_ask_at_once_ask_the_origin_once() {
    let Some((_nginx, origin)) = origin() else {
        return;
    };
    let server = server(origin, 2, "wait = \"60s\"", "");
    let path = format!("/slow?sleep=2&{LONG}");
    let mut clients: Vec<_> = (0..1000)
        .map(|_| {
            let mut client = Client::connect(server.port());
            client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            client
        })
        .collect();
    for client in &mut clients {
        assert_eq!(client.response(false).unwrap().text(), "1");
    }
    assert_eq!(count(origin, "/slow"), "1");
}

#[test]
fn answers_that_may_not_be_kept_make_nobody_wait() {
    let Some((_nginx, origin)) = origin() else {
        return;
    };
    let server = server(origin, 1, "wait = \"60s\"", "");
    // The first tells; after that each has its own answer at the same time.
    let path = "/private?h=Cache-Control:%20private&sleep=1";
    is(&ask(server.port(), path, ""), "MISS", "1");
    let start = Instant::now();
    let mut clients: Vec<_> = (0..50)
        .map(|_| {
            let mut client = Client::connect(server.port());
            client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            client
        })
        .collect();
    for client in &mut clients {
        client.response(false).unwrap();
    }
    assert_eq!(count(origin, "/private"), "51");
    // One after the other would take 50 seconds.
    assert!(start.elapsed() < Duration::from_secs(25), "they waited");
}

#[test]
fn a_stale_answer_serves_when_the_origin_fails() {
    let Some((mut nginx, origin)) = origin() else {
        return;
    };
    let server = server(origin, 1, "", "stale = \"1h\"\nretry = \"100ms\"");
    let port = server.port();
    let (own, no, rule) = (
        "/own?fail=503&h=Cache-Control:%20max-age=1,stale-if-error=600",
        "/no?fail=503&h=Cache-Control:%20max-age=1,must-revalidate",
        "/rule?h=Cache-Control:%20max-age=1",
    );
    for path in [own, no, rule] {
        is(&ask(port, path, ""), "MISS", "1");
    }
    ask(origin, "/fail", "");
    is(&until(port, own, "STALE"), "STALE", "1");
    let deadline = Instant::now() + Duration::from_secs(20);
    while ask(port, no, "").status != 503 {
        assert!(Instant::now() < deadline, "it never fails");
    }
    nginx.kill();
    is(&until(port, rule, "STALE"), "STALE", "1");
    is(&until(port, own, "STALE"), "STALE", "1");
    assert_eq!(ask(port, no, "").status, 502);
    assert_eq!(ask(port, "/never", "").status, 502);
}

#[test]
fn a_stale_answer_serves_while_a_new_one_is_brought() {
    let Some((_nginx, origin)) = origin() else {
        return;
    };
    let server = server(origin, 2, "", "");
    let port = server.port();
    let path = "/s?h=Cache-Control:%20max-age=1,stale-while-revalidate=600";
    is(&ask(port, path, ""), "MISS", "1");
    // Who comes first past its time gets what is kept at once, and the new one is brought for all.
    let stale = until(port, path, "STALE");
    assert_eq!(stale.text(), "1");
    let deadline = Instant::now() + Duration::from_secs(20);
    while ask(port, path, "").text() == "1" {
        assert!(Instant::now() < deadline, "no new one comes");
    }
}

#[test]
fn whatever_makes_the_answer_and_filters_run_on_each() {
    let config = r#"
[server]
workers = 1
[cache.pages]
[[route]]
path = "/lua"
cache = "pages"
lua.access = "ngx.ctx.seen = ngx.var.arg_x"
lua.content = """
count = (count or 0) + 1
ngx.header['Cache-Control'] = 'max-age=60'
ngx.print('count ') ngx.flush(true) ngx.print(count)
"""
lua.header_filter = "ngx.header['X-Status'] = ngx.var.upstream_cache_status ngx.header['Content-Length'] = nil"
lua.body_filter = "ngx.arg[1] = ngx.arg[1]:upper()"
lua.log = "ngx.log(ngx.NOTICE, 'was ', ngx.var.upstream_cache_status)"
[[route]]
path = "/fixed"
cache = { name = "pages", valid = "1m" }
set = { now = "$request_id" }
respond = { body = "$now" }
[[route]]
path = "/*"
cache = { name = "pages", valid = { 200 = "1m", 404 = "1m" } }
files = { root = "www" }
[[route]]
path = "/broken"
cache = { name = "pages", valid = "1m" }
lua.content = "ngx.print('half') ngx.flush(true) error('over')"
"#;
    let server = Server::start(config, &[("www/a.txt", "file")]);
    let port = server.port();
    let mark = server.mark();
    for status in ["MISS", "HIT"] {
        let answer = ask(port, "/lua", "");
        is(&answer, status, "COUNT 1");
        assert_eq!(answer.header("x-status").as_deref(), Some(status));
        server.wait_log(&format!("was {status}"), mark);
    }
    let first = ask(port, "/fixed", "");
    is(&ask(port, "/fixed", ""), "HIT", &first.text());
    is(&ask(port, "/a.txt", ""), "MISS", "file");
    is(&ask(port, "/a.txt", ""), "HIT", "file");
    let part = ask(port, "/a.txt", "Range: bytes=1-2\r\n");
    assert_eq!((part.status, part.text().as_str()), (206, "il"));
    assert_eq!(ask(port, "/none", "").status, 404);
    let none = ask(port, "/none", "");
    assert_eq!((none.status, said(&none).0.as_str()), (404, "HIT"));
    // What breaks off is not kept.
    for _ in 0..2 {
        let mut client = Client::connect(port);
        client.send("GET /broken HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(client.response(false).is_err());
    }
    let fresh = ask(port, "/fixed", "");
    assert_eq!(fresh.text(), first.text());
    // A reload keeps what is kept.
    server.rewrite(&config.replace("60", "61"));
    assert!(server.reload().contains("serves"));
    is(&ask(port, "/fixed", ""), "HIT", &first.text());
}

#[test]
fn an_answer_is_brought_to_its_end_although_its_client_leaves() {
    let Some((_nginx, origin)) = origin() else {
        return;
    };
    let server = server(origin, 1, "", "");
    let path = format!("/left?sleep=1&{LONG}");
    let mut client = Client::connect(server.port());
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    let deadline = Instant::now() + Duration::from_secs(20);
    while count(origin, "/left") == "0" {
        assert!(Instant::now() < deadline, "the origin is not asked");
    }
    drop(client);
    is(&until(server.port(), &path, "HIT"), "HIT", "1");
}

#[test]
fn a_long_body_streams_and_is_kept_in_pieces() {
    let Some((_nginx, origin)) = origin() else {
        return;
    };
    let cache = "l2 = { size = \"64m\" }";
    let server = server(origin, 1, cache, "body_limit = \"52m\"");
    let size = 50 << 20;
    let path = format!("/big?size={size}&{LONG}");
    let first = ask(server.port(), &path, "");
    assert_eq!(first.body.len(), size);
    let again = until(server.port(), &path, "HIT");
    assert_eq!(again.body, first.body);
    let part = ask(server.port(), &path, "Range: bytes=52428784-\r\n");
    is(&part, "HIT", "0123456789abcdef");
    assert_eq!(count(origin, "/big"), "1");
    let mut server = server;
    let memory = server.process().peak_memory();
    assert!(memory < 400 << 20, "{memory} bytes");
    // One that is longer than may be kept streams past.
    let path = format!("/huge?size={}&{LONG}", 53 << 20);
    for _ in 0..2 {
        let answer = ask(server.port(), &path, "");
        assert_eq!(answer.body.len(), 53 << 20);
        assert_eq!(said(&answer).0, "MISS");
    }
}

#[test]
fn answers_are_purged_by_uri_prefix_and_tag() {
    let Some((_nginx, origin)) = origin() else {
        return;
    };
    let config = format!(
        r#"
[server]
workers = 2
[cache.things]
[plugin.cache]
component = "{{guests}}/cache.wasm"
allow = {{ cache = ["things"] }}
[[route]]
path = "/purge-answers"
content = "cache"
[[route]]
path = "/*"
proxy = "http://127.0.0.1:{origin}"
cache = {{ name = "things", valid = "10m" }}
"#
    );
    let server = Server::start(&config, &[]);
    let port = server.port();
    let purge = |what: &str| {
        let answer = ask(port, &format!("/purge-answers?{what}"), "");
        assert_eq!(answer.text(), "Ok(())");
    };
    let keep = |path: &str, n: usize| {
        let n = n.to_string();
        is(&ask(port, path, ""), "MISS", &n);
        is(&until(port, path, "HIT"), "HIT", &n);
    };
    let plain = "/one?h=Cache-Control:%20max-age=600";
    keep(plain, 1);
    purge("uri=http://localhost/one?h=Cache-Control:%20max-age");
    is(&ask(port, plain, ""), "HIT", "1");
    purge(&format!("uri=http://localhost{plain}"));
    keep(plain, 2);
    let (a, b) = (
        "/shop/a?h=Cache-Control:%20max-age=600&h=Surrogate-Key:%20lamp%20all",
        "/shop/b?h=Cache-Control:%20max-age=600&h=Cache-Tag:%20all,chair",
    );
    keep(a, 1);
    keep(b, 1);
    purge("tag=lamp");
    is(&ask(port, b, ""), "HIT", "1");
    keep(a, 2);
    purge("tag=all");
    keep(a, 3);
    keep(b, 2);
    purge("prefix=http://localhost/shop/");
    is(&ask(port, plain, ""), "HIT", "2");
    keep(a, 4);
    keep(b, 3);
    // All answers of a URI go together.
    let vary = "/v?h=Vary:%20X-A";
    is(&ask(port, vary, "X-A: 1\r\n"), "MISS", "1");
    is(&ask(port, vary, "X-A: 2\r\n"), "MISS", "2");
    purge(&format!("uri=http://localhost{vary}"));
    is(&ask(port, vary, "X-A: 2\r\n"), "MISS", "3");
    is(&ask(port, vary, "X-A: 1\r\n"), "MISS", "4");
    // What was asked for before a purge is not kept when it comes.
    let slow = "/slow?sleep=1&h=Cache-Control:%20max-age=600&h=Cache-Tag:%20late";
    let mut client = Client::connect(port);
    client.send(format!("GET {slow} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    let deadline = Instant::now() + Duration::from_secs(20);
    while count(origin, "/slow") == "0" {
        assert!(Instant::now() < deadline, "the origin is not asked");
    }
    purge("tag=late");
    assert_eq!(client.response(false).unwrap().text(), "1");
    is(&ask(port, slow, ""), "MISS", "2");
}
