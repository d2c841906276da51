//! The access log: where its lines go, what stands in them, and that USR1 opens the file anew.

use std::fs;
use std::time::Instant;

use regex::Regex;
use rustix::process::Signal;

use crate::client::{Client, get};
use crate::harness::{Folder, Server, free_port};
use crate::process::PATIENCE;

fn config(access_log: &str) -> String {
    format!(
        "[server]\nlisten = [\"127.0.0.1:8000\", \"127.0.0.1:8001\"]\nworkers = 1\naccess_log = {access_log}\n\n\
         [[route]]\npath = \"/hello\"\nrespond = {{ status = 200, body = \"hello\" }}\n"
    )
}

/// Waits for a line on standard output.
fn line(server: &mut Server, pattern: &str) -> String {
    let stdout = std::sync::Arc::clone(&server.process().stdout);
    let found = stdout.wait_for(&Regex::new(pattern).unwrap(), 0, PATIENCE);
    found.unwrap_or_else(|| panic!("no match of {pattern} in {:?}", stdout.since(0)))
}

#[test]
fn combined() {
    let mut server = Server::start(&config("{ path = \"-\" }"), &[]);
    let ports = server.ports().to_vec();
    // Both listeners serve.
    for port in ports {
        let mut client = Client::connect(port);
        client.send(
            "GET /hello?a=1 HTTP/1.1\r\nHost: x\r\nUser-Agent: tester\r\nReferer: here\r\n\r\n",
        );
        assert_eq!(client.response(false).unwrap().status, 200);
    }
    let request = r#""GET /hello\?a=1 HTTP/1\.1" 200 5 "here" "tester""#;
    line(
        &mut server,
        &format!(r"(?m)^127\.0\.0\.1 - - \[[^\]]+\] {request}$"),
    );
    server.stop(Signal::QUIT);
}

#[test]
fn json() {
    let mut server = Server::start(&config("{ path = \"-\", format = \"json\" }"), &[]);
    get(server.port(), "/hello");
    let line = line(&mut server, r"(?m)^\{.*\}$");
    let value: serde_json::Value = serde_json::from_str(&line).expect(&line);
    assert_eq!(value["status"].as_u64(), Some(200), "{line}");
    server.stop(Signal::QUIT);
}

/// Routes on which Lua has nothing but the log phase; it leaves a variable for the access log.
const LOG_ONLY: &str = r#"
[server]
listen = ["127.0.0.1:8000"]
workers = 1
access_log = { path = "-", format = "$request_method $uri $status $body_bytes_sent $mine;" }

[[route]]
path = "/fixed"
respond = { status = 200, body = "fixed" }

[[route]]
path = "/files/*"
files = { root = "www" }

[[route]]
path = "/proxy"
proxy = "http://127.0.0.1:8000/fixed"

[[route]]
path = "/away"
proxy = "http://127.0.0.1:AWAY"
"#;

#[test]
fn the_log_phase_and_the_access_log_say_the_same() {
    let config = LOG_ONLY.replace("AWAY", &free_port().to_string()).replace(
        "[[route]]",
        "[[route]]\nset = { mine = 'unset' }\nlua.log = \"ngx.var.mine = 'of ' .. ngx.var.uri ngx.log(ngx.WARN, \
         ngx.req.get_method(), ' ', ngx.var.uri, ' ', ngx.status, ' ', ngx.var.body_bytes_sent, ';')\"",
    );
    let mut server = Server::start(&config, &[("www/files/a.txt", "a file")]);
    let mut client = Client::connect(server.port());
    for (request, status, bytes) in [
        ("GET /fixed", 200, 5),
        ("HEAD /fixed", 200, 0),
        ("GET /files/a.txt", 200, 6),
        ("GET /files/none", 404, 0),
        ("POST /files/a.txt", 405, 0),
        ("GET /proxy", 200, 5),
        ("HEAD /proxy", 200, 0),
        ("GET /away", 502, 0),
    ] {
        let mark = server.mark();
        client.send(format!(
            "{request} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        ));
        let answer = client.response(request.starts_with("HEAD")).unwrap();
        assert_eq!(answer.status, status, "{request}");
        // An error page has a body, too.
        let bytes = bytes.max(answer.body.len());
        let uri = request.split(' ').next_back().unwrap();
        let both = format!("{request} {status} {bytes}");
        server.wait_log(&format!("{both};"), mark);
        line(&mut server, &format!("(?m)^{both} of {uri};$"));
    }
    server.stop(Signal::QUIT);
}

/// Both logs, of a server in a zone: its offset as `+hhmm`, and the lines.
fn in_zone(zone: &str, offset: &str) {
    let config = config("{ path = \"-\", format = \"$time_local|$time_iso8601|$msec\" }");
    let mut server = Server::start_with(Folder::new(), &config, |command| {
        command.env("TZ", zone);
    });
    get(server.port(), "/hello");
    let (hours, minutes) = offset.split_at(3);
    let found = line(
        &mut server,
        &format!(
            r"(?m)^\d\d/\w{{3}}/\d{{4}}:\d\d:\d\d:\d\d \{offset}\|\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\{hours}:{minutes}\|\d+"
        ),
    );
    // The clock is that of the zone, too: what `date` says of the same second.
    let seconds = found.rsplit('|').next().unwrap();
    let date = |format: &str| {
        let (code, text, _) = crate::process::run(
            std::process::Command::new("date")
                .env("TZ", zone)
                .env("LC_ALL", "C")
                .args([&format!("--date=@{seconds}"), format]),
        );
        assert_eq!(code, 0);
        text.trim().to_owned()
    };
    let local = date("+%d/%b/%Y:%H:%M:%S %z|%Y-%m-%dT%H:%M:%S%:z");
    assert_eq!(found, format!("{local}|{seconds}"), "TZ={zone}");
    // The error log has no zone in its lines, but the same clock.
    let log = server.log_since(0);
    assert!(log.starts_with(&date("+%Y/%m/%d ")), "TZ={zone}: {log}");
    let hour: String = log.chars().skip(11).take(2).collect();
    let now = date("+%H").parse::<i32>().unwrap();
    let hour = hour.parse::<i32>().unwrap();
    // It may have begun in the hour before.
    assert!(
        hour == now || (hour + 1) % 24 == now,
        "TZ={zone}: {hour} is not {now}"
    );
    server.stop(Signal::QUIT);
}

#[test]
fn times_are_local() {
    in_zone("UTC", "+0000");
    // A zone by its rule, west of UTC, with half an hour; and one by its name, without summer time.
    in_zone("XXX3:30", "-0330");
    in_zone("Asia/Kathmandu", "+0545");
}

#[test]
fn usr1_opens_the_file_anew() {
    let mut server = Server::start(
        &config("{ path = \"access.log\", format = \"$uri $status\" }"),
        &[],
    );
    let path = server.folder().path().join("access.log");
    get(server.port(), "/hello");
    let moved = path.with_extension("old");
    fs::rename(&path, &moved).unwrap();
    server.process().signal(Signal::USR1);
    let deadline = Instant::now() + PATIENCE;
    while !path.exists() {
        assert!(Instant::now() < deadline, "USR1 opened no new file");
        get(server.port(), "/other");
    }
    get(server.port(), "/last");
    // The lines are written when the server ends, at the latest; its folder goes with it.
    let (first, second) = server.stop_and(Signal::QUIT, || {
        (
            fs::read_to_string(&moved).unwrap(),
            fs::read_to_string(&path).unwrap(),
        )
    });
    assert!(first.starts_with("/hello 200\n"), "{first}");
    assert!(second.ends_with("/last 404\n"), "{second}");
}
