//! The cache's level in Redis: two servers and a real Redis, which is emptied, stopped, killed, slow and
//! full while they serve.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::Client;
use crate::harness::Server;
use crate::process::{PATIENCE, bound};
use crate::redis::Redis;

pub(crate) fn server(redis: u16, cache: &str, l3: &str) -> Server {
    Server::start(&config(redis, cache, l3), &[])
}

/// A configuration with a level in that Redis.
pub(crate) fn config(redis: u16, cache: &str, l3: &str) -> String {
    format!(
        r#"
[server]
workers = 2
[shared.calls]
size = "64k"
[redis.main]
url = "redis://127.0.0.1:{redis}"
timeout = "2s"
connect_timeout = "2s"
breaker = {{ failures = 2, pause = "200ms" }}
[cache.things]
l3 = {{ redis = "main" {l3} }}
{cache}
[plugin.cache]
component = "{{guests}}/cache.wasm"
allow = {{ cache = ["things"], shared = ["calls"] }}
limits = {{ instances = 1100, cpu = "5s" }}
[[route]]
path = "/*"
content = "cache"
"#
    )
}

pub(crate) fn send(server: &Server, path: &str) -> Client {
    let mut client = Client::connect(server.port());
    client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    client
}

pub(crate) fn ask(server: &Server, path: &str) -> String {
    send(server, path).response(false).unwrap().text()
}

/// Waits until an answer begins so.
pub(crate) fn until(server: &Server, path: &str, start: &str) -> Duration {
    let begin = Instant::now();
    loop {
        let text = ask(server, path);
        if text.starts_with(start) {
            return begin.elapsed();
        }
        assert!(begin.elapsed() < PATIENCE, "{path}: {text}, not {start}");
    }
}

pub(crate) fn counter(server: &Server, name: &str) -> u64 {
    ask(server, &format!("/counter?key={name}"))
        .parse()
        .unwrap()
}

/// A command to Redis, and the first bytes of its reply.
pub(crate) fn redis(port: u16, command: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = format!("*{}\r\n", command.len()).into_bytes();
    for part in command {
        text.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        text.extend_from_slice(part);
        text.extend_from_slice(b"\r\n");
    }
    stream.write_all(&text).unwrap();
    let mut reply = [0; 4096];
    let length = stream.read(&mut reply).unwrap();
    String::from_utf8_lossy(&reply[..length]).into_owned()
}

#[test]
fn servers_share_values_and_a_restart_finds_them() {
    let Some(store) = Redis::start(&[]) else {
        return;
    };
    let cache = "ttl = \"60s\"\nnegative_ttl = \"60s\"";
    let (first, second) = (server(store.port, cache, ""), server(store.port, cache, ""));
    assert_eq!(
        ask(&first, "/get"),
        r#"Some("call 1") Some(Level::Callback) false"#
    );
    assert_eq!(
        ask(&second, "/get"),
        r#"Some("call 1") Some(Level::Remote) false"#
    );
    assert_eq!(counter(&second, "l3_hits"), 1);
    ask(&first, "/get?key=none&source=none");
    assert_eq!(
        ask(&second, "/get?key=none"),
        "None Some(Level::Remote) false"
    );
    let long = "x".repeat(7000);
    ask(&first, &format!("/set?key=long&value={long}"));
    let length: u64 = redis(store.port, &[b"STRLEN", b"things:=long"])
        .trim_start_matches(':')
        .trim_end()
        .parse()
        .unwrap();
    assert!(length < 1000, "{length} bytes");
    assert!(ask(&second, "/get?key=long").contains(&long));
    second.stop(Signal::QUIT);

    let third = server(store.port, cache, "");
    assert!(ask(&third, "/get").starts_with(r#"Some("call 1") Some(Level::Remote)"#));
    let left = redis(store.port, &[b"PTTL", b"things:=k"]);
    let left: u64 = left.trim_start_matches(':').trim_end().parse().unwrap();
    assert!((1..=60_000).contains(&left), "{left}");
    ask(&first, "/purge");
    until(&third, "/get?source=new", r#"Some("new")"#);
    // What came before the news of the purge is not kept; what comes from memory was kept in Redis, too.
    until(
        &third,
        "/get?source=new",
        r#"Some("new") Some(Level::Memory)"#,
    );
    third.stop(Signal::QUIT);
    let fourth = server(store.port, cache, "");
    assert!(ask(&fourth, "/get").starts_with(r#"Some("new") Some(Level::Remote)"#));
    assert!(ask(&fourth, "/get?key=long&source=y").starts_with(r#"Some("y")"#));
}

#[test]
fn what_is_no_value_is_a_miss_with_a_line_in_the_log() {
    let Some(store) = Redis::start(&[]) else {
        return;
    };
    let server = server(store.port, "", "");
    let rubbish: [(&[u8], &str); 4] = [
        (b"short", "it was not written by a cache"),
        (&[b'x'; 100], "it was not written by a cache"),
        (
            b"\0\0\0\0\0\0\0\0phc9and so on until it is as long as a head at least, or longer",
            "version `9`",
        ),
        (
            b"\0\0\0\0\0\0\0\0phc1and so on until it is as long as a head at least, or longer",
            "it is damaged",
        ),
    ];
    for (n, (bytes, why)) in rubbish.iter().enumerate() {
        let key = format!("things:=r{n}");
        redis(store.port, &[b"SET", key.as_bytes(), bytes]);
        let mark = server.mark();
        let begin = Instant::now();
        assert!(ask(&server, &format!("/get?key=r{n}&source=ok")).starts_with(r#"Some("ok")"#));
        server.wait_log(
            &format!("what Redis has for `r{n}` is no value: {why}"),
            mark,
        );
        // One line a second at most.
        while begin.elapsed() < Duration::from_millis(1100) {
            std::thread::yield_now();
        }
    }
    redis(store.port, &[b"LPUSH", b"things:=list", b"1"]);
    assert!(ask(&server, "/get?key=list&source=ok").starts_with(r#"Some("ok")"#));
}

#[test]
fn a_change_is_seen_by_the_other_server() {
    let Some(store) = Redis::start(&[]) else {
        return;
    };
    let (first, second) = (server(store.port, "", ""), server(store.port, "", ""));
    ask(&first, "/set?value=0");
    until(&second, "/get", r#"Some("0")"#);
    let mut times: Vec<Duration> = (1..=200)
        .map(|n| {
            let (from, to) = if n % 2 == 0 {
                (&first, &second)
            } else {
                (&second, &first)
            };
            // Both have a copy of the value before.
            until(to, "/get", &format!("Some(\"{}\")", n - 1));
            assert_eq!(ask(from, &format!("/set?value={n}")), "Ok(())");
            until(to, "/get", &format!("Some(\"{n}\")"))
        })
        .collect();
    times.sort_unstable();
    assert!(
        // Who only looked from time to time would see half of them later than this.
        times[100] < Duration::from_millis(250)
            && times[180] < bound(Duration::from_millis(100), PATIENCE),
        "p50 {:?}, p90 {:?}, p99 {:?}",
        times[100],
        times[180],
        times[198]
    );
    ask(&first, "/delete");
    until(&second, "/get?source=gone", r#"Some("gone")"#);
}

#[test]
fn after_a_lost_connection_nothing_older_is_believed() {
    let Some(store) = Redis::start(&[]) else {
        return;
    };
    let (first, second) = (server(store.port, "", ""), server(store.port, "", ""));
    ask(&first, "/set?value=0");
    until(&second, "/get", r#"Some("0")"#);
    for n in 1..=10 {
        // Whether the news comes before or after the cut, the second server hears of it.
        redis(store.port, &[b"CLIENT", b"KILL", b"TYPE", b"pubsub"]);
        ask(&first, &format!("/set?value={n}"));
        until(&second, "/get", &format!("Some(\"{n}\")"));
    }
    assert_eq!(counter(&second, "misses"), 0, "the source was asked");
}

/// A Redis that is away: changes are told when it is back, values of then with `away = "queue"`.
#[test]
fn changes_made_while_redis_is_away_come_later() {
    for (l3, expected) in [("", "asked"), (", away = \"queue\"", "new")] {
        let Some(store) = Redis::start(&[]) else {
            return;
        };
        let (first, second) = (server(store.port, "", l3), server(store.port, "", l3));
        ask(&first, "/set?value=old");
        until(&second, "/get", r#"Some("old")"#);
        store.signal(Signal::STOP);
        assert_eq!(ask(&first, "/set?value=new"), "Ok(())");
        assert!(ask(&first, "/get").starts_with(r#"Some("new")"#));
        assert!(ask(&second, "/get").starts_with(r#"Some("old")"#));
        assert_eq!(counter(&first, "l3_waiting"), 1);
        store.signal(Signal::CONT);
        // Redis may have had the change already when it stopped to answer.
        let begin = Instant::now();
        let seen = loop {
            let seen = ask(&second, "/get?source=asked");
            if !seen.contains("old") {
                break seen;
            }
            assert!(begin.elapsed() < PATIENCE, "{seen}");
        };
        assert!(seen.contains(expected) || seen.contains("new"), "{seen}");
        until(&first, "/counter?key=l3_waiting", "0");
    }
}

/// Passes bytes on, each after a while, or nothing at all.
struct Delay {
    port: u16,
    millis: Arc<AtomicU64>,
}

impl Delay {
    fn before(redis: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let millis = Arc::new(AtomicU64::new(0));
        let delay = millis.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", redis)) else {
                    continue;
                };
                let pass = |mut from: TcpStream, mut to: TcpStream, delay: Arc<AtomicU64>| {
                    std::thread::spawn(move || {
                        let mut buffer = [0; 16384];
                        while let Ok(length @ 1..) = from.read(&mut buffer) {
                            let wait = Duration::from_millis(delay.load(Ordering::Relaxed));
                            let until = Instant::now() + wait;
                            while let Some(left) = until.checked_duration_since(Instant::now()) {
                                std::thread::park_timeout(left);
                            }
                            if to.write_all(&buffer[..length]).is_err() {
                                break;
                            }
                        }
                        let _shut = to.shutdown(std::net::Shutdown::Both).is_ok();
                    });
                };
                pass(
                    client.try_clone().unwrap(),
                    server.try_clone().unwrap(),
                    delay.clone(),
                );
                pass(server, client, Arc::default());
            }
        });
        Self { port, millis }
    }
}

/// What clients saw.
#[derive(Default)]
struct Seen {
    answers: AtomicUsize,
    failed: AtomicUsize,
    slowest: AtomicU64,
    /// Connections that ended without an answer.
    lost: Mutex<Vec<String>>,
}

/// Clients that ask for twenty keys all the while; each answer is to be a value.
fn load<T>(servers: [&Server; 2], trial: impl FnOnce(&Seen) -> T) -> (T, Seen) {
    let (over, seen) = (AtomicBool::new(false), Seen::default());
    let result = std::thread::scope(|scope| {
        for n in 0..4 {
            let (over, seen) = (&over, &seen);
            let port = servers[n % 2].port();
            scope.spawn(move || {
                let mut client = Client::connect(port);
                let mut step = n;
                while !over.load(Ordering::Relaxed) {
                    step += 1;
                    let begin = Instant::now();
                    client.send(format!(
                        "GET /get?key=k{}&source=v HTTP/1.1\r\nHost: x\r\n\r\n",
                        step % 20
                    ));
                    let answer = match client.response(false) {
                        Ok(answer) => answer,
                        Err(why) => {
                            seen.lost.lock().unwrap().push(why);
                            return;
                        }
                    };
                    if !answer.text().starts_with(r#"Some("v")"#) {
                        seen.failed.fetch_add(1, Ordering::Relaxed);
                    }
                    // After `keepalive_requests`.
                    if answer.header("connection").as_deref() == Some("close") {
                        client = Client::connect(port);
                    }
                    let millis = u64::try_from(begin.elapsed().as_millis()).unwrap();
                    seen.slowest.fetch_max(millis, Ordering::Relaxed);
                    seen.answers.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let result = trial(&seen);
        over.store(true, Ordering::Relaxed);
        result
    });
    let lost = seen.lost.lock().unwrap();
    let logs = servers.map(|server| server.log_since(0));
    assert!(lost.is_empty(), "{lost:?}\n{}", logs.join("\n"));
    drop(lost);
    (result, seen)
}

/// Waits for so many more answers.
fn answers(seen: &Seen, more: usize) {
    let (begin, before) = (Instant::now(), seen.answers.load(Ordering::Relaxed));
    while seen.answers.load(Ordering::Relaxed) < before + more {
        assert!(begin.elapsed() < PATIENCE, "no answers");
        std::thread::yield_now();
    }
}

#[test]
fn no_request_fails_whatever_becomes_of_redis() {
    let Some(mut store) = Redis::start(&[]) else {
        return;
    };
    let delay = Delay::before(store.port);
    let cache = "ttl = \"300ms\"\nstale = \"60s\"\nrevalidate = \"60s\"";
    let (first, second) = (server(delay.port, cache, ""), server(delay.port, cache, ""));
    let servers = [&first, &second];
    let check = |name: &str, seen: &Seen| {
        let slowest = seen.slowest.load(Ordering::Relaxed);
        assert_eq!(seen.failed.load(Ordering::Relaxed), 0, "{name}");
        assert!(slowest < 10_000, "{name}: {slowest} ms");
    };
    load(servers, |seen| answers(seen, 200));
    let ((), seen) = load(servers, |seen| {
        store.signal(Signal::STOP);
        answers(seen, 500);
        store.signal(Signal::CONT);
        answers(seen, 200);
    });
    check("stopped", &seen);
    let ((), seen) = load(servers, |seen| {
        redis(store.port, &[b"FLUSHALL"]);
        answers(seen, 500);
    });
    check("emptied", &seen);
    let ((), seen) = load(servers, |seen| {
        delay.millis.store(100, Ordering::Relaxed);
        answers(seen, 300);
        delay.millis.store(0, Ordering::Relaxed);
    });
    check("slow", &seen);
    let ((), seen) = load(servers, |seen| {
        redis(store.port, &[b"CONFIG", b"SET", b"maxmemory", b"1mb"]);
        answers(seen, 500);
        redis(store.port, &[b"CONFIG", b"SET", b"maxmemory", b"0"]);
        answers(seen, 100);
    });
    check("full", &seen);
    let ((), seen) = load(servers, |seen| {
        store.kill();
        answers(seen, 500);
        store.run();
        answers(seen, 500);
    });
    check("killed, and empty when it was back", &seen);
    // What one server sets the other sees, as soon as the first's breaker has closed again: what is set
    // before that is told to the other without its value.
    let begin = Instant::now();
    loop {
        assert_eq!(ask(&first, "/set?key=after&value=all"), "Ok(())");
        let text = ask(&second, "/get?key=after&source=nothing&ttl=1");
        if text.starts_with(r#"Some("all")"#) {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{text}");
    }
}

#[test]
fn a_redis_that_was_emptied_gets_back_what_servers_have() {
    let Some(mut store) = Redis::start(&[]) else {
        return;
    };
    let server = server(store.port, "ttl = \"1h\"", "");
    for n in 0..20 {
        ask(&server, &format!("/get?key=k{n}&source=v"));
    }
    let calls = counter(&server, "misses");
    let begin = Instant::now();
    while redis(store.port, &[b"EXISTS", b"things:!life"]) != ":1\r\n" {
        assert!(begin.elapsed() < PATIENCE, "Redis gets no mark");
    }
    let mark = server.mark();
    store.kill();
    server.wait_log("changes of other servers are not heard now", mark);
    store.run();
    server.wait_log("changes of other servers are heard again", mark);
    for n in 0..20 {
        assert!(ask(&server, &format!("/get?key=k{n}&source=new")).starts_with(r#"Some("v")"#));
    }
    assert_eq!(counter(&server, "misses"), calls, "the source was asked");
    let exists = redis(store.port, &[b"EXISTS", b"things:=k0", b"things:=k19"]);
    assert_eq!(exists, ":2\r\n");
}
