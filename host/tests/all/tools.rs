//! The clients that people use: curl, ab, wrk, nghttp. What they count as a failure is one.

use std::process::Command;

use regex::Regex;
use rustix::process::Signal;

use crate::harness::{Folder, Server};
use crate::process::{have, run};

const CONFIG: &str = r#"
[server]
workers = 2

[[route]]
path = "/hello"
lua.content = "ngx.say('hello')"

[[route]]
path = "/echo"
lua.content = "ngx.req.read_body() ngx.print(ngx.req.get_body_data() or '')"

[[route]]
path = "/files/*"
files = { root = "www" }
"#;

fn server() -> Server {
    Server::start(CONFIG, &[("www/files/page.html", "<p>page</p>\n")])
}

/// The first group of a pattern in a tool's output, as a number.
fn number(pattern: &str, text: &str) -> Option<f64> {
    Regex::new(pattern)
        .unwrap()
        .captures(text)
        .and_then(|found| found[1].parse().ok())
}

#[test]
fn curl() {
    if !have("curl") {
        return;
    }
    let server = server();
    let base = format!("http://127.0.0.1:{}", server.port());
    let ask = |arguments: &[&str]| {
        let (code, out, err) = run(Command::new("curl")
            .args(["-sS", "--max-time", "30"])
            .args(arguments));
        assert_eq!(code, 0, "curl {arguments:?}: {err}");
        out
    };
    assert_eq!(ask(&[&format!("{base}/hello")]), "hello\n");
    assert_eq!(
        ask(&["-d", "some=body", &format!("{base}/echo")]),
        "some=body"
    );
    assert!(ask(&["-I", &format!("{base}/hello")]).starts_with("HTTP/1.1 200 OK"));
    assert_eq!(
        ask(&["-r", "3-6", &format!("{base}/files/page.html")]),
        "page"
    );
    // HTTP/2 without TLS, by prior knowledge. One transfer a time: Debian's curl 7.88 cannot use such
    // a connection again (it reports a framing error before it has sent anything).
    let h2 = |path: &str| ask(&["--http2-prior-knowledge", &format!("{base}{path}")]);
    assert_eq!(h2("/hello"), "hello\n");
    assert_eq!(h2("/files/page.html"), "<p>page</p>\n");
    // A body longer than curl sends without `Expect: 100-continue`.
    let folder = Folder::new();
    let file = folder.write("body", vec![b'x'; 500_000]);
    let data = format!("@{}", file.display());
    assert_eq!(
        ask(&["--data-binary", &data, &format!("{base}/echo")]).len(),
        500_000
    );
    server.stop(Signal::QUIT);
}

#[test]
fn ab() {
    if !have("ab") {
        return;
    }
    let server = server();
    for extra in [&["-k"][..], &[]] {
        let url = format!("http://127.0.0.1:{}/hello", server.port());
        let (code, out, err) = run(Command::new("ab")
            .args(["-q", "-n", "5000", "-c", "50"])
            .args(extra)
            .arg(url));
        assert_eq!(code, 0, "{err}");
        assert_eq!(
            number(r"Complete requests:\s+(\d+)", &out),
            Some(5000.0),
            "{out}"
        );
        assert_eq!(
            number(r"Failed requests:\s+(\d+)", &out),
            Some(0.0),
            "{out}"
        );
        assert_eq!(number(r"Non-2xx responses:\s+(\d+)", &out), None, "{out}");
    }
    server.stop(Signal::QUIT);
}

#[test]
fn wrk() {
    if !have("wrk") {
        return;
    }
    let server = server();
    let url = format!("http://127.0.0.1:{}/hello", server.port());
    let (code, out, err) = run(Command::new("wrk").args(["-t1", "-c64", "-d2s", &url]));
    assert_eq!(code, 0, "{err}");
    assert!(
        !out.contains("Socket errors") && !out.contains("Non-2xx"),
        "{out}"
    );
    assert!(
        number(r"(\d+) requests in", &out).is_some_and(|count| count > 100.0),
        "{out}"
    );
    server.stop(Signal::QUIT);
}

#[test]
fn nghttp() {
    if !have("nghttp") {
        return;
    }
    let server = server();
    let url = format!("http://127.0.0.1:{}/hello", server.port());
    let (code, out, err) = run(Command::new("nghttp").args(["-m", "20", &url]));
    assert_eq!(code, 0, "{err}");
    assert_eq!(out, "hello\n".repeat(20));
    let file = format!("http://127.0.0.1:{}/files/page.html", server.port());
    let (code, out, _) = run(Command::new("h2load").args(["-n2000", "-c4", "-m32", &file]));
    // h2load is in the same package; some systems split it.
    if code == 0 {
        assert!(out.contains("2000 succeeded, 0 failed"), "{out}");
    }
    server.stop(Signal::QUIT);
}
