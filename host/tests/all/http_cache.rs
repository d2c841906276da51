//! `cache` on a route: answers of a real nginx, of Lua, of files and of fixed texts, kept by HTTP's
//! rules. What the origin counts says how often it was asked.

use std::time::{Duration, Instant};

use crate::client::{Client, Response};
use crate::harness::{Folder, Server, free_port};
use crate::nginx::{Nginx, frame};
use crate::process::have;

/// Answers as the query says: `h=Name: value` (any number), `status`, `sleep`, `size`, `etag`; the
/// body is how often this path was asked. `/count/…` says how often another was.
const ORIGIN: &str = r#"
location /count/ { content_by_lua_block {
    ngx.print(ngx.shared.n:get(ngx.var.uri:sub(7)) or 0)
} }
location / { content_by_lua_block {
    local a, n = ngx.req.get_uri_args(), ngx.shared.n:incr(ngx.var.uri, 1, 0)
    if a.sleep then ngx.sleep(tonumber(a.sleep)) end
    local h = a.h or {}
    for _, line in ipairs(type(h) == "table" and h or {h}) do
        local name, value = line:match("^(.-): (.*)$")
        ngx.header[name] = value
    end
    if a.etag then
        ngx.header.ETag = a.etag
        if ngx.var.http_if_none_match == a.etag then
            ngx.header["X-New"] = tostring(n)
            return ngx.exit(304)
        end
    end
    if a.fail and ngx.shared.n:get("fail") then ngx.status = tonumber(a.fail) return ngx.print("broken") end
    ngx.status = tonumber(a.status or 200)
    if a.echo then return ngx.print(n, " ", ngx.var["http_" .. a.echo] or "none") end
    if a.size then
        local s = string.rep("0123456789abcdef", 4096)
        ngx.header["Content-Length"] = a.size
        for i = 1, tonumber(a.size) / #s do ngx.print(s) ngx.flush(true) end
        return
    end
    ngx.print(n)
} }
location = /fail { content_by_lua_block { ngx.shared.n:set("fail", true) } }
"#;

pub(crate) fn origin() -> Option<(Nginx, u16)> {
    if !have("nginx") {
        return None;
    }
    let port = free_port();
    let text = frame("lua_shared_dict n 1m;", ORIGIN, port);
    Some((Nginx::start_with(Folder::new(), &text, port), port))
}

pub(crate) fn server(origin: u16, workers: u32, cache: &str, more: &str) -> Server {
    let config = format!(
        r#"
[server]
workers = {workers}
[cache.pages]
{cache}
[[route]]
path = "/*"
proxy = "http://127.0.0.1:{origin}"
[route.cache]
name = "pages"
{more}
"#
    );
    Server::start(&config, &[])
}

/// A GET with headers.
pub(crate) fn ask(port: u16, path: &str, headers: &str) -> Response {
    request(port, "GET", path, headers)
}

fn request(port: u16, method: &str, path: &str, headers: &str) -> Response {
    let mut client = Client::connect(port);
    client.send(format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"
    ));
    client.response(method == "HEAD").unwrap()
}

/// Its status in the cache, and its body.
pub(crate) fn said(answer: &Response) -> (String, String) {
    let status = answer.header("x-cache").unwrap_or_default();
    (status, answer.text())
}

pub(crate) fn is(answer: &Response, status: &str, body: &str) {
    assert_eq!(said(answer), (status.to_owned(), body.to_owned()));
}

/// Asks until the cache says so.
pub(crate) fn until(port: u16, path: &str, status: &str) -> Response {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = ask(port, path, "");
        if answer.header("x-cache").as_deref() == Some(status) {
            return answer;
        }
        assert!(Instant::now() < deadline, "never {status}: {answer:?}");
    }
}

/// How often the origin was asked for a path.
pub(crate) fn count(origin: u16, path: &str) -> String {
    ask(origin, &format!("/count{path}"), "").text()
}

pub(crate) const LONG: &str = "h=Cache-Control:%20max-age=3600";

#[test]
fn what_may_be_kept_is_kept() {
    let Some((_nginx, origin)) = origin() else {
        return;
    };
    let server = server(origin, 2, "", "");
    let port = server.port();
    let path = format!("/a?{LONG}&h=X-Mine:%201");
    let first = ask(port, &path, "");
    is(&first, "MISS", "1");
    assert_eq!(first.header("age"), None);
    let second = ask(port, &path, "");
    is(&second, "HIT", "1");
    assert_eq!(second.header("x-mine").as_deref(), Some("1"));
    assert!(second.header("age").is_some());
    assert!(second.header("date").is_some());
    assert_eq!(second.header("content-length").as_deref(), Some("1"));
    // HEAD has the head of what GET would get.
    let head = request(port, "HEAD", &path, "");
    is(&head, "HIT", "");
    assert_eq!(head.header("content-length").as_deref(), Some("1"));
    // Another query is another answer; so is another host.
    is(&ask(port, &format!("{path}&x"), ""), "MISS", "2");
    let other = "GET /a?x HTTP/1.1\r\nHost: other\r\n\r\n";
    let mut client = Client::connect(port);
    client.send(other);
    is(&client.response(false).unwrap(), "MISS", "3");
    // A HEAD that comes first brings a whole for those that follow.
    let path = format!("/head?{LONG}");
    is(&request(port, "HEAD", &path, ""), "MISS", "");
    is(&ask(port, &path, ""), "HIT", "1");
    assert_eq!(count(origin, "/head"), "1");
}

#[test]
fn what_may_not_be_kept_is_not() {
    let Some((_nginx, origin)) = origin() else {
        return;
    };
    let server = server(
        origin,
        1,
        "",
        "no_store = \"$arg_secret\"\nbypass = [\"$cookie_fresh\"]",
    );
    let port = server.port();
    for (path, headers) in [
        ("/nothing?", ""),
        ("/private?h=Cache-Control:%20private,max-age=60", ""),
        ("/no-store?h=Cache-Control:%20no-store", ""),
        ("/no-cache?h=Cache-Control:%20no-cache,max-age=60", ""),
        ("/zero?h=Cache-Control:%20max-age=0", ""),
        (
            "/expired?h=Expires:%20Thu,%2001%20Jan%201970%2000:00:00%20GMT",
            "",
        ),
        (
            "/accel?h=Cache-Control:%20max-age=60&h=X-Accel-Expires:%200",
            "",
        ),
        (
            "/cookie?h=Cache-Control:%20max-age=60&h=Set-Cookie:%20a=b",
            "",
        ),
        ("/star?h=Cache-Control:%20max-age=60&h=Vary:%20*", ""),
        (
            "/password?h=Cache-Control:%20max-age=60",
            "Authorization: Basic YTpi\r\n",
        ),
        ("/secret?secret=1&h=Cache-Control:%20max-age=60", ""),
        ("/status?status=500&h=Cache-Control:%20max-age=60", ""),
    ] {
        for round in ["1", "2"] {
            let answer = ask(port, path, headers);
            is(&answer, "MISS", round);
            assert_eq!(answer.header("x-accel-expires"), None, "{path}");
        }
    }
    // One who shows a password gets what is for all, and no other.
    let path = "/public?h=Cache-Control:%20public,max-age=60";
    let password = "Authorization: Basic YTpi\r\n";
    is(&ask(port, path, password), "MISS", "1");
    until(port, path, "HIT");
    is(&ask(port, path, password), "HIT", "1");
    let path = format!("/plain?{LONG}");
    is(&ask(port, &path, ""), "MISS", "1");
    is(&ask(port, &path, password), "BYPASS", "2");
    is(&ask(port, &path, ""), "HIT", "1");
    // A bypass brings a new answer, for others too.
    is(&ask(port, &path, "Cookie: fresh=0\r\n"), "HIT", "1");
    is(&ask(port, &path, "Cookie: fresh=1\r\n"), "BYPASS", "3");
    is(&ask(port, &path, ""), "HIT", "3");
    // What changes a resource makes what is kept wrong.
    is(
        &request(port, "POST", &path, "Content-Length: 0\r\n"),
        "",
        "4",
    );
    is(&ask(port, &path, ""), "MISS", "5");
}

#[test]
fn answers_differ_by_vary() {
    let Some((_nginx, origin)) = origin() else {
        return;
    };
    let server = server(origin, 2, "", "variants = 2");
    let port = server.port();
    let path = format!("/v?echo=x_a&h=Vary:%20X-A&{LONG}");
    let ask = |value: &str| ask(port, &path, &format!("X-A: {value}\r\n"));
    is(&ask("one"), "MISS", "1 one");
    is(&ask("two"), "MISS", "2 two");
    is(&ask("one"), "HIT", "1 one");
    is(&ask("two"), "HIT", "2 two");
    is(&self::ask(port, &path, ""), "MISS", "3 none");
    // There are as many as may be: the oldest went.
    is(&ask("two"), "HIT", "2 two");
    is(&ask("one"), "MISS", "4 one");
    let path = format!("/e?echo=accept_encoding&h=Vary:%20Accept-Encoding&{LONG}");
    let ask = |value: &str| self::ask(port, &path, &format!("Accept-Encoding: {value}\r\n"));
    is(&ask("gzip, br"), "MISS", "1 gzip, br");
    is(&ask("br,gzip"), "HIT", "1 gzip, br");
    // A header that is not named does not tell answers apart, and cannot poison one that is kept.
    let path = format!("/p?{LONG}");
    is(
        &self::ask(port, &path, "X-Forwarded-Host: evil\r\n"),
        "MISS",
        "1",
    );
    is(&self::ask(port, &path, ""), "HIT", "1");
}

#[test]
fn a_client_that_has_it_gets_304_and_a_range_comes_from_the_whole() {
    let Some((_nginx, origin)) = origin() else {
        return;
    };
    let server = server(origin, 1, "", "");
    let port = server.port();
    let path = format!("/r?size=655360&etag=%22a%22&{LONG}");
    // The first asks for a range, or on condition: the origin makes the whole even so.
    let first = ask(
        port,
        &path,
        "Range: bytes=16-19\r\nIf-None-Match: \"b\"\r\n",
    );
    assert_eq!(first.status, 206);
    is(&first, "MISS", "0123");
    let range = first.header("content-range");
    assert_eq!(range.as_deref(), Some("bytes 16-19/655360"));
    let whole = until(port, &path, "HIT");
    assert_eq!(whole.body.len(), 655_360);
    assert!(
        whole
            .body
            .chunks(16)
            .all(|line| line == b"0123456789abcdef")
    );
    for (headers, status, body) in [
        ("Range: bytes=262140-262147\r\n", 206, "cdef0123"),
        ("Range: bytes=-3\r\n", 206, "def"),
        ("Range: bytes=655360-\r\n", 416, ""),
        ("Range: bytes=1-2\r\nIf-Range: \"a\"\r\n", 206, "12"),
        ("If-None-Match: W/\"a\"\r\n", 304, ""),
        (
            "If-None-Match: \"b\", \"a\"\r\nRange: bytes=1-2\r\n",
            304,
            "",
        ),
    ] {
        let answer = ask(port, &path, headers);
        assert_eq!(answer.status, status, "{headers}");
        is(&answer, "HIT", body);
    }
    let other = ask(port, &path, "Range: bytes=1-2\r\nIf-Range: \"b\"\r\n");
    assert_eq!((other.status, other.body.len()), (200, 655_360));
    let parts = ask(port, &path, "Range: bytes=0-0,17-18\r\n");
    assert_eq!(parts.status, 206);
    let text = parts.text();
    assert!(text.contains("bytes 17-18/655360\r\n\r\n12\r\n"), "{text}");
    assert_eq!(count(origin, "/r"), "1");
    // 304 to the first client, and the whole is kept for the next.
    let path = format!("/n?etag=%22a%22&{LONG}");
    let first = ask(port, &path, "If-None-Match: \"a\"\r\n");
    assert_eq!(first.status, 304);
    is(&until(port, &path, "HIT"), "HIT", "1");
    assert_eq!(count(origin, "/n"), "1");
}

#[test]
fn what_is_past_its_time_is_validated() {
    let Some((_nginx, origin)) = origin() else {
        return;
    };
    let server = server(origin, 1, "", "stale = \"1h\"");
    let port = server.port();
    let path = "/e?etag=%22a%22&h=Cache-Control:%20max-age=1";
    is(&ask(port, path, ""), "MISS", "1");
    let again = until(port, path, "REVALIDATED");
    is(&again, "REVALIDATED", "1");
    assert!(again.header("x-new").is_some(), "{again:?}");
    is(&until(port, path, "HIT"), "HIT", "1");
    // Without anything to validate by it is brought anew.
    let path = "/f?h=Cache-Control:%20max-age=1";
    is(&ask(port, path, ""), "MISS", "1");
    let again = until(port, path, "EXPIRED");
    assert_eq!(again.text(), "2");
}

#[test]
fn http_2_gets_the_same_answers() {
    let Some((_nginx, origin)) = origin() else {
        return;
    };
    if !have("curl") {
        return;
    }
    let server = server(origin, 1, "", "");
    let path = format!("/h2?size=655360&{LONG}");
    let url = format!("http://localhost:{}{path}", server.port());
    let curl = |head: bool| {
        let mut command = std::process::Command::new("curl");
        command.args(["-s", "-i", "--http2-prior-knowledge", "-g"]);
        if head {
            command.arg("-I");
        }
        let output = command.arg(&url).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let first = curl(false);
    assert!(first.starts_with("HTTP/2 200"), "{first:.200}");
    assert!(first.contains("x-cache: MISS"), "{first:.400}");
    // HTTP/1.1 asks by the same key.
    let plain = until(server.port(), &path, "HIT");
    assert_eq!(plain.body.len(), 655_360);
    let second = curl(false);
    assert!(second.contains("x-cache: HIT"), "{second:.400}");
    assert_eq!(second.len() - second.find("\r\n\r\n").unwrap() - 4, 655_360);
    let head = curl(true);
    assert!(head.contains("content-length: 655360"), "{head}");
}

#[test]
fn an_answer_is_kept_when_it_was_asked_for_often() {
    let Some((_nginx, origin)) = origin() else {
        return;
    };
    let rules = "min_uses = 2\nignore = [\"set-cookie\", \"cache-control\"]\nvalid = \"1m\"\nkey = \"$uri\"\nstatus_header = \"\"";
    let server = server(origin, 1, "", rules);
    let port = server.port();
    let path = "/u?h=Set-Cookie:%20a=b&h=Cache-Control:%20no-store";
    for (expected, cookie) in [("1", true), ("2", true), ("2", false)] {
        let answer = ask(port, path, "");
        assert_eq!(answer.text(), expected);
        assert_eq!(answer.header("set-cookie").is_some(), cookie);
        assert_eq!(answer.header("x-cache"), None);
    }
    // The key says that the query does not matter.
    assert_eq!(ask(port, "/u?other", "").text(), "2");
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    for (rules, message) in [
        ("name = \"page\"", "did you mean `pages`"),
        (
            "name = \"pages\"\nmethods = [\"GET\", \"POST\"]",
            "add `key`",
        ),
        (
            "name = \"pages\"\nignore = [\"etag\"]",
            "decides nothing here",
        ),
        (
            "name = \"pages\"\nvalid = { 304 = \"1m\" }",
            "no status of an answer",
        ),
    ] {
        let folder = Folder::new();
        let text = format!(
            "[cache.pages]\n[[route]]\npath = \"/\"\nrespond = {{}}\n[route.cache]\n{rules}\n"
        );
        let file = folder.write("phasor.toml", text);
        let mut command = std::process::Command::new(crate::harness::PHASOR);
        let output = command.arg("check").arg(file).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(message), "{rules}: {told}");
    }
}
