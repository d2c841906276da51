//! Purges of answers by prefix and by tag among servers that share a real Redis: who serves, who was cut
//! off, who starts later, and a Redis that is away, new, or full.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use crate::cache_disk::{config, kill, written};
use crate::cache_redis::{ask as call, redis};
use crate::harness::{Folder, Server};
use crate::http_cache::{ask, is, origin, said};
use crate::process::{PATIENCE, bound};
use crate::redis::Redis;

const LAMP: &str = "/shop/lamp?h=Surrogate-Key:%20lamp";
const OTHER: &str = "/shop/lamp/2?h=Cache-Tag:%20lamp";
const CHAIR: &str = "/shop/chair?h=Surrogate-Key:%20chair";

fn routes(origin: u16, redis: u16) -> String {
    format!(
        r#"
[redis.main]
url = "redis://127.0.0.1:{redis}"
timeout = "2s"
connect_timeout = "2s"
breaker = {{ failures = 2, pause = "200ms" }}
[[route]]
path = "/shop/*"
proxy = "http://127.0.0.1:{origin}"
cache = {{ name = "things", valid = "10m" }}
"#
    )
}

fn server(origin: u16, redis: u16) -> Server {
    server_with(origin, redis, "")
}

fn server_with(origin: u16, redis: u16, l3: &str) -> Server {
    let more = routes(origin, redis);
    let config = format!(
        r#"
[server]
workers = 2
[shared.calls]
size = "64k"
[cache.things]
l3 = {{ redis = "main" {l3} }}
[plugin.cache]
component = "{{guests}}/cache.wasm"
allow = {{ cache = ["things"], shared = ["calls"] }}
[[route]]
path = "/*"
content = "cache"
{more}
"#
    );
    Server::start(&config, &[])
}

fn on_disk(data: &Folder, origin: u16, redis: u16) -> String {
    let more = routes(origin, redis);
    config(
        &data.path().join("things"),
        "",
        "l3 = { redis = \"main\" }",
        &more,
    )
}

fn purge(server: &Server, what: &str) {
    let answer = call(server, &format!("/purge-answers?{what}"));
    assert_eq!(answer, "Ok(())", "{what}");
}

/// Waits until a server says so, and says how long that took.
fn until(server: &Server, path: &str, expected: (&str, Option<&str>)) -> Duration {
    let begin = Instant::now();
    loop {
        let answer = said(&ask(server.port(), path, ""));
        let body = expected.1.is_none_or(|body| body == answer.1);
        if answer.0 == expected.0 && body {
            return begin.elapsed();
        }
        assert!(
            begin.elapsed() < PATIENCE,
            "{path}: {answer:?}, not {expected:?}"
        );
    }
}

/// The first has a page, and Redis.
fn keep(store: &Redis, first: &Server, page: &str) {
    is(&ask(first.port(), page, ""), "MISS", "1");
    let begin = Instant::now();
    while !redis(store.port, &[b"KEYS", b"things:=*"]).contains(page) {
        assert!(begin.elapsed() < PATIENCE, "{page} is not kept");
    }
    is(&ask(first.port(), page, ""), "HIT", "1");
}

/// Both have the pages in memory.
fn both_have(store: &Redis, first: &Server, second: &Server, pages: &[&str]) {
    for page in pages {
        keep(store, first, page);
        is(&ask(second.port(), page, ""), "HIT", "1");
    }
}

#[test]
fn a_purge_is_heard_by_the_other_server() {
    let (Some((_nginx, origin)), Some(store)) = (origin(), Redis::start(&[])) else {
        return;
    };
    let (first, second) = (server(origin, store.port), server(origin, store.port));
    both_have(&store, &first, &second, &[LAMP, OTHER, CHAIR]);
    let times = (1..=40).map(|n| {
        until(&second, LAMP, ("HIT", None));
        // A tag and a prefix in turn; the prefix is of this page alone.
        purge(
            &first,
            match n % 2 {
                0 => "tag=lamp",
                _ => "prefix=http://localhost/shop/lamp?",
            },
        );
        // What is purged is brought by the one that heard of it.
        until(&second, LAMP, ("MISS", None))
    });
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    let most = bound(Duration::from_millis(100), Duration::from_millis(250));
    assert!(times[20] < most, "{times:?}");
    is(&ask(second.port(), OTHER, ""), "MISS", "2");
    is(&ask(second.port(), CHAIR, ""), "HIT", "1");
}

/// Two servers that have the pages, of which the first has purged one while the second stood still and
/// its connection was cut: it missed what was told.
fn purged_unheard(store: &Redis, origin: u16) -> (Server, Server) {
    let (first, mut second) = (server(origin, store.port), server(origin, store.port));
    both_have(store, &first, &second, &[LAMP, CHAIR, OTHER]);
    // Only who hears changes knows which Redis it was, and compares what it got before once more.
    purge(&first, "prefix=http://localhost/shop/lamp/2");
    until(&second, OTHER, ("MISS", None));
    for page in [LAMP, CHAIR] {
        is(&ask(second.port(), page, ""), "HIT", "1");
    }
    second.process().signal(Signal::STOP);
    let mark = first.mark();
    redis(store.port, &[b"CLIENT", b"KILL", b"TYPE", b"pubsub"]);
    first.wait_log("changes of other servers are heard again", mark);
    purge(&first, "tag=lamp");
    (first, second)
}

#[test]
fn who_was_cut_off_hears_when_its_connection_is_back() {
    let (Some((_nginx, origin)), Some(store)) = (origin(), Redis::start(&[])) else {
        return;
    };
    let (_first, mut second) = purged_unheard(&store, origin);
    second.process().signal(Signal::CONT);
    until(&second, LAMP, ("MISS", Some("2")));
    is(&ask(second.port(), CHAIR, ""), "HIT", "1");
}

#[test]
fn servers_with_one_flight_for_all_hear_of_purges_too() {
    let (Some((_nginx, origin)), Some(store)) = (origin(), Redis::start(&[])) else {
        return;
    };
    let start = || server_with(origin, store.port, ", cluster = true");
    let (first, second) = (start(), start());
    both_have(&store, &first, &second, &[LAMP, CHAIR]);
    let mut purged = 1;
    for what in ["tag=lamp", "prefix=http://localhost/shop/lamp"] {
        purge(&first, what);
        until(&second, LAMP, ("MISS", None));
        // What is made in the moment of a purge may be made once more: both come to one answer, and
        // it is none that was purged.
        let begin = Instant::now();
        purged = loop {
            let [one, other] = [&first, &second].map(|server| said(&ask(server.port(), LAMP, "")));
            let number: u32 = one.1.parse().unwrap();
            if one == other && one.0 == "HIT" {
                assert!(number > purged, "{what}: {one:?}");
                break number;
            }
            assert!(begin.elapsed() < PATIENCE, "{what}: {one:?}, {other:?}");
        };
    }
    is(&ask(second.port(), CHAIR, ""), "HIT", "1");
}

/// It forgets the record of purges with all else while all connections to it live.
#[test]
fn a_redis_that_is_emptied_on_the_way_gets_its_record_of_purges_back() {
    let (Some((_nginx, origin)), Some(store)) = (origin(), Redis::start(&[])) else {
        return;
    };
    let (_first, mut second) = purged_unheard(&store, origin);
    redis(store.port, &[b"FLUSHALL"]);
    let begin = Instant::now();
    while redis(store.port, &[b"ZSCORE", b"things:!purges", b"tlamp"]).starts_with("$-1") {
        assert!(begin.elapsed() < PATIENCE, "the purge is forgotten");
    }
    // It was cut off and would give back what it has: but not this.
    second.process().signal(Signal::CONT);
    until(&second, LAMP, ("MISS", Some("2")));
    is(&ask(second.port(), CHAIR, ""), "HIT", "1");
}

#[test]
fn who_starts_later_does_not_serve_what_was_purged() {
    let (Some((_nginx, origin)), Some(store)) = (origin(), Redis::start(&[])) else {
        return;
    };
    let data = Folder::new();
    let config = on_disk(&data, origin, store.port);
    let (first, second) = (server(origin, store.port), Server::start(&config, &[]));
    both_have(&store, &first, &second, &[LAMP, OTHER, CHAIR]);
    written(&second, 3);
    kill(second);
    purge(&first, "tag=lamp");
    // Its first look-up is that of what was purged: on its disk, and in Redis.
    let second = Server::start(&config, &[]);
    is(&ask(second.port(), LAMP, ""), "MISS", "2");
    is(&ask(second.port(), CHAIR, ""), "HIT", "1");
    let third = server(origin, store.port);
    is(&ask(third.port(), OTHER, ""), "MISS", "2");
    is(&ask(third.port(), CHAIR, ""), "HIT", "1");
}

#[test]
fn a_purge_waits_for_a_redis_that_is_away() {
    let (Some((_nginx, origin)), Some(mut store)) = (origin(), Redis::start(&[])) else {
        return;
    };
    let (first, second) = (server(origin, store.port), server(origin, store.port));
    both_have(&store, &first, &second, &[LAMP, CHAIR]);
    purge(&first, "tag=before");
    store.kill();
    purge(&first, "tag=lamp");
    is(&ask(second.port(), LAMP, ""), "HIT", "1");
    store.run();
    until(&second, LAMP, ("MISS", Some("2")));
    is(&ask(second.port(), CHAIR, ""), "HIT", "1");
    // The new Redis has the one of before, too.
    let begin = Instant::now();
    let known = |member: &[u8]| redis(store.port, &[b"ZSCORE", b"things:!purges", member]);
    for member in [&b"tbefore"[..], b"tlamp"] {
        while known(member).starts_with("$-1") {
            assert!(begin.elapsed() < PATIENCE, "{}", member.escape_ascii());
        }
    }
}

#[test]
fn too_many_purges_become_one_of_all_that_is_older() {
    let (Some((_nginx, origin)), Some(store)) = (origin(), Redis::start(&[])) else {
        return;
    };
    let (first, second) = (server(origin, store.port), server(origin, store.port));
    both_have(&store, &first, &second, &[LAMP, CHAIR]);
    let many = b"for i = 1, 4096 do
        redis.call('ZADD', 'things:!purges', i, 'tn' .. i)
        redis.call('HSET', 'things:!purged', 'tn' .. i, ARGV[1], '#', i)
    end";
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = now.as_millis().to_string();
    redis(store.port, &[b"EVAL", many, b"0", now.as_bytes()]);
    is(&ask(second.port(), CHAIR, ""), "HIT", "1");
    purge(&first, "tag=other");
    until(&second, CHAIR, ("MISS", Some("2")));
    until(&second, LAMP, ("MISS", Some("2")));
    let left = redis(store.port, &[b"ZCARD", b"things:!purges"]);
    assert_eq!(left, ":2049\r\n");
    keep(&store, &first, OTHER);
    // One that starts then knows it, too: what is newer serves.
    let third = server(origin, store.port);
    is(&ask(third.port(), OTHER, ""), "HIT", "1");
}

#[test]
fn a_redis_that_is_full_is_emptied() {
    let (Some((_nginx, origin)), Some(store)) = (origin(), Redis::start(&[])) else {
        return;
    };
    let (first, second) = (server(origin, store.port), server(origin, store.port));
    both_have(&store, &first, &second, &[LAMP, CHAIR]);
    redis(store.port, &[b"CONFIG", b"SET", b"maxmemory", b"1"]);
    purge(&first, "tag=lamp");
    until(&second, LAMP, ("MISS", Some("2")));
}
