//! The tiered cache from a component in Rust: levels, one call of a source however many want its
//! value, changes that all workers see, and what an expired value may still do.

use std::time::{Duration, Instant};

use crate::client::Client;
use crate::harness::Server;
use crate::process::{PATIENCE, soaks};
use crate::redis::wait_until;

fn server(workers: u32, more: &str) -> Server {
    let config = format!(
        r#"
[server]
workers = {workers}
keepalive_requests = 1000000
[shared.calls]
size = "64k"
[cache.things]
{more}
[cache.other]
[plugin.cache]
component = "{{guests}}/cache.wasm"
allow = {{ cache = ["things"], shared = ["calls"] }}
limits = {{ instances = 1100, cpu = "5s" }}
[[route]]
path = "/*"
content = "cache"
"#
    );
    Server::start(&config, &[])
}

fn ask(server: &Server, path: &str) -> String {
    let mut client = Client::connect(server.port());
    client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    client.response(false).unwrap().text()
}

/// Asks on one connection, so that it is the same worker.
fn asks(server: &Server, paths: &[(&str, &str)]) {
    let mut client = Client::connect(server.port());
    for (path, expected) in paths {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(client.response(false).unwrap().text(), *expected, "{path}");
    }
}

#[test]
fn levels_negative_values_and_changes() {
    let server = server(1, "");
    asks(
        &server,
        &[
            ("/get", r#"Some("call 1") Some(Level::Callback) false"#),
            ("/get", r#"Some("call 1") None false"#),
            ("/peek", r#"Some("call 1") true"#),
            ("/set?value=mine", "Ok(())"),
            ("/get", r#"Some("mine") None false"#),
            ("/delete", "Ok(())"),
            ("/peek", "nothing"),
            ("/get?source=none", "None Some(Level::Callback) false"),
            ("/get", "None None false"),
            (
                "/renew?source=new",
                r#"Some("new") Some(Level::Callback) false"#,
            ),
            ("/get", r#"Some("new") None false"#),
            ("/purge", "Ok(())"),
            (
                "/get?source=b&store=no",
                r#"Some("b") Some(Level::Callback) false"#,
            ),
            ("/peek", "nothing"),
            (
                "/get?source=c&own=0",
                r#"Some("c") Some(Level::Callback) false"#,
            ),
            ("/get?key=e&source=error", r#"CacheError::Source("down")"#),
            ("/parts", r#"Some("first") Some("second")"#),
            (
                "/other",
                "Some(CacheError::Refused) Some(CacheError::UnknownCache)",
            ),
        ],
    );
    server.wait_log("allow.cache does not cover `other`", 0);
}

#[test]
fn a_thousand_misses_ask_the_source_once_and_a_trap_hands_it_on() {
    let server = server(2, "");
    let ask = |path: &'static str| {
        let mut client = Client::connect(server.port());
        client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        client
    };
    let mut clients: Vec<_> = (0..1000).map(|_| ask("/get?slow=1500")).collect();
    for client in &mut clients {
        let text = client.response(false).unwrap().text();
        assert!(text.starts_with(r#"Some("call 1")"#), "{text}");
    }
    let mut first = ask("/get?key=t&source=trap&slow=500");
    let deadline = Instant::now() + PATIENCE;
    while self::ask(&server, "/counter?key=misses") == "1" {
        assert!(Instant::now() < deadline, "no second flight begins");
    }
    let mut second = ask("/get?key=t&source=taken");
    assert_eq!(first.response(false).unwrap().status, 500);
    let text = second.response(false).unwrap().text();
    assert_eq!(text, r#"Some("taken") Some(Level::Callback) false"#);
}

/// The answer does not wait for the source, nor do others; the instance goes on after its request.
#[test]
fn a_new_value_comes_in_the_background() {
    let server = server(1, "revalidate = \"10m\"\nstale = \"10m\"");
    asks(
        &server,
        &[
            (
                "/background?source=first&late=60000",
                r#"Some("first") Some(Level::Callback) false"#,
            ),
            (
                "/background?source=other&late=60000",
                r#"Some("first") None false"#,
            ),
            ("/set?value=old&ttl=1", "Ok(())"),
        ],
    );
    let expired = |key: &str| {
        wait_until(|| ask(&server, &format!("/peek?key={key}")) == "nothing");
    };
    expired("k");
    let begun = Instant::now();
    let (old, meanwhile) = asks_two(
        &server,
        "/background?source=new&slow=1500&late=60000",
        "/get?source=mine",
    );
    assert_eq!(old, r#"Some("old") Some(Level::Memory) true"#);
    assert_eq!(meanwhile, r#"Some("old") Some(Level::Memory) true"#);
    assert!(begun.elapsed() < Duration::from_millis(1400));
    // A reload does not take the source's time away.
    server.reload();
    wait_until(|| ask(&server, "/peek") == r#"Some("new") true"#);
    assert_eq!(ask(&server, "/counter?key=misses"), "2");

    // One that is over for longer does not serve; one whose source fails serves again, for a while.
    ask(&server, "/set?key=o&value=old&ttl=1");
    expired("o");
    assert_eq!(
        ask(&server, "/background?key=o&source=own&late=0"),
        r#"Some("own") Some(Level::Callback) false"#
    );
    ask(&server, "/set?key=e&value=old&ttl=1");
    expired("e");
    assert_eq!(
        ask(&server, "/background?key=e&source=error&late=60000&stale=0"),
        r#"Some("old") Some(Level::Memory) true"#
    );
    server.wait_log(
        r#"a refresh in the background failed: CacheError::Source\("down"\)"#,
        0,
    );
    // A source that traps takes its instance along, and the next in line gets the flight.
    ask(&server, "/set?key=t&value=old&ttl=1");
    expired("t");
    assert_eq!(
        ask(&server, "/background?key=t&source=trap&late=60000"),
        r#"Some("old") Some(Level::Memory) true"#
    );
    server.wait_log("wasm `unreachable` instruction executed", 0);
    assert_eq!(
        ask(&server, "/get?key=t&source=taken"),
        r#"Some("taken") Some(Level::Callback) false"#
    );
}

/// Two requests on one connection, and what they were answered.
fn asks_two(server: &Server, first: &str, second: &str) -> (String, String) {
    let mut client = Client::connect(server.port());
    let mut one = |path: &str| {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        client.response(false).unwrap().text()
    };
    (one(first), one(second))
}

#[test]
fn several_keys_at_once() {
    let server = server(1, "");
    asks(
        &server,
        &[
            ("/set?key=b&value=mine", "Ok(())"),
            (
                "/bulk?key=a,b,bad,none,a",
                r#"Some("<a>") Some("mine") CacheError::Source("down") None Some("<a>")"#,
            ),
            (
                "/bulk?key=a,b,none,c",
                r#"Some("<a>") Some("mine") None Some("<c>")"#,
            ),
            (
                "/get?key=fresh",
                r#"Some("call 3") Some(Level::Callback) false"#,
            ),
        ],
    );
}

/// Two that bring what the other wants do not wait for each other.
#[test]
fn several_keys_in_opposite_orders() {
    let server = server(2, "wait = \"1m\"");
    let start = Instant::now();
    let mut clients: Vec<_> = (0..40).map(|_| Client::connect(server.port())).collect();
    for round in 0..20 {
        for (place, client) in clients.iter_mut().enumerate() {
            let keys = match place % 2 {
                0 => format!("a{round},b{round}"),
                _ => format!("b{round},a{round}"),
            };
            client.send(format!("GET /bulk?key={keys} HTTP/1.1\r\nHost: x\r\n\r\n"));
        }
        for client in &mut clients {
            let text = client.response(false).unwrap().text();
            assert!(text.contains(&format!("<a{round}>")), "{text}");
        }
    }
    assert!(start.elapsed() < Duration::from_secs(30), "they waited");
}

#[test]
fn stale_values_serve_when_the_source_fails() {
    let server = server(1, "stale = \"1m\"\nretry = \"1m\"");
    ask(&server, "/set?value=old&ttl=1");
    let deadline = Instant::now() + PATIENCE;
    while ask(&server, "/peek") != "nothing" {
        assert!(Instant::now() < deadline, "it does not expire");
    }
    for expected in [
        r#"Some("old") Some(Level::Memory) true"#,
        r#"Some("old") Some(Level::Memory) true"#,
    ] {
        assert_eq!(ask(&server, "/get?source=error"), expected);
    }
    assert_eq!(ask(&server, "/counter?key=failures"), "1");
    ask(&server, "/set?key=n&value=old&ttl=1&stale=0");
    let deadline = Instant::now() + PATIENCE;
    while ask(&server, "/peek?key=n") != "nothing" {
        assert!(Instant::now() < deadline, "it does not expire");
    }
    let text = ask(&server, "/get?key=n&source=error&stale=0");
    assert_eq!(text, r#"CacheError::Source("down")"#);
}

#[test]
fn a_change_is_seen_by_every_worker_when_it_returns() {
    let server = server(4, "");
    let mut readers: Vec<_> = (0..16).map(|_| Client::connect(server.port())).collect();
    for step in 0..200 {
        let text = ask(&server, &format!("/set?value={step}"));
        assert_eq!(text, "Ok(())");
        for reader in &mut readers {
            reader.send("GET /get HTTP/1.1\r\nHost: x\r\n\r\n");
        }
        for reader in &mut readers {
            let text = reader.response(false).unwrap().text();
            assert!(
                text.starts_with(&format!("Some(\"{step}\")")),
                "{step}: {text}"
            );
        }
    }
}

#[test]
fn a_reload_keeps_the_values() {
    let server = server(1, "");
    assert_eq!(ask(&server, "/set?value=kept"), "Ok(())");
    server.reload();
    let text = ask(&server, "/get");
    assert_eq!(text, r#"Some("kept") Some(Level::Memory) false"#);
}

#[test]
fn a_value_over_the_capacity_is_used_and_not_stored() {
    let server = server(1, "l2 = { size = \"8k\" }");
    let long = "x".repeat(9000);
    let text = ask(&server, &format!("/get?source={long}"));
    assert!(text.contains("Level::Callback"), "{text}");
    assert_eq!(ask(&server, "/peek"), "nothing");
    let text = ask(&server, &format!("/set?value={long}"));
    assert_eq!(text, "Err(CacheError::TooLarge(6144))");
    assert_eq!(ask(&server, "/counter?key=too_large"), "2");
}

#[test]
fn callers_keep_their_own_time_to_wait() {
    let server = server(1, "wait = \"1m\"");
    let mut slow = Client::connect(server.port());
    slow.send("GET /get?slow=5000 HTTP/1.1\r\nHost: x\r\n\r\n");
    let deadline = Instant::now() + PATIENCE;
    while ask(&server, "/counter?key=misses") == "0" {
        assert!(Instant::now() < deadline, "no flight begins");
    }
    assert_eq!(ask(&server, "/get?wait=20"), "CacheError::Timeout");
    let text = slow.response(false).unwrap().text();
    assert!(text.starts_with(r#"Some("call 1")"#), "{text}");
}

#[test]
fn an_instance_looks_up_its_own_copy_quickly() {
    let server = server(1, "");
    let nanoseconds: u64 = ask(&server, "/speed").parse().unwrap();
    // Far above the figure of a machine that is idle: it catches a way through the host.
    assert!(nanoseconds < 5_000, "{nanoseconds} ns");
    let hits: u64 = ask(&server, "/counter?key=l1_hits").parse().unwrap();
    assert!(hits >= 200_000, "{hits}");
}

/// `PHASOR_SOAK=1`: a million writes.
#[test]
fn no_reader_sees_an_older_value_after_the_writers_call() {
    let turns = if soaks() { 500 } else { 10 };
    let server = server(4, "");
    assert_eq!(ask(&server, "/set?key=counted&value=0"), "Ok(())");
    let (port, over) = (server.port(), std::sync::atomic::AtomicBool::new(false));
    let turn = |client: &mut Client, path: &str| {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        client.response(false).unwrap().text()
    };
    let reads: u32 = std::thread::scope(|scope| {
        let reader = || {
            let mut client = Client::connect(port);
            let mut turns = 0;
            while turns == 0 || !over.load(std::sync::atomic::Ordering::Relaxed) {
                assert_eq!(turn(&mut client, "/read"), "fresh");
                turns += 1;
            }
            turns
        };
        let readers: Vec<_> = (0..8).map(|_| scope.spawn(reader)).collect();
        let mut client = Client::connect(port);
        let done = (0..turns).all(|_| turn(&mut client, "/write") == "written");
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(done, "a write failed");
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .sum()
    });
    assert!(reads > 0, "nobody read");
}
