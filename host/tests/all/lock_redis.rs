//! Locks in Redis: two servers and a real Redis, owners that die, that come too late, that leave, and a
//! Redis that is away and has lost everything.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cache_redis::{ask, redis, send};
use crate::client::Client;
use crate::harness::Server;
use crate::process::PATIENCE;
use crate::redis::Redis;

fn server(store: &Redis) -> Server {
    let config = format!(
        r#"
[server]
workers = 2
[redis.main]
url = "redis://127.0.0.1:{}"
timeout = "2s"
connect_timeout = "2s"
breaker = {{ failures = 2, pause = "200ms" }}
[lock.orders]
redis = "main"
waiters = 2000
hold = "3s"
wait = "50s"
[plugin.lock]
component = "{{guests}}/lock.wasm"
allow = {{ lock = ["orders"], redis = ["main: *"] }}
limits = {{ instances = 600 }}
[[route]]
path = "/*"
content = "lock"
"#,
        store.port
    );
    Server::start(&config, &[])
}

/// The number of an owner that got the lock, and what followed it.
fn owner(answer: &str) -> (u64, String) {
    let (number, rest) = answer.split_once(' ').unwrap_or((answer, ""));
    let number = number.parse();
    (
        number.unwrap_or_else(|_| panic!("{answer}")),
        rest.to_owned(),
    )
}

fn got(server: &Server, path: &str) -> u64 {
    let (number, released) = owner(&ask(server, path));
    assert_eq!(released, "ok", "{path}");
    number
}

fn answer(client: &mut Client) -> String {
    client.response(false).unwrap().text()
}

/// Asks until the lock is got.
fn until_got(server: &Server, path: &str) -> u64 {
    let begin = Instant::now();
    loop {
        let text = ask(server, path);
        if text.ends_with(" ok") {
            return owner(&text).0;
        }
        assert!(begin.elapsed() < PATIENCE, "{path}: {text}");
    }
}

#[test]
fn one_owner_at_a_time_on_two_servers() {
    let Some(store) = Redis::start(&[]) else {
        return;
    };
    let (first, second) = (server(&store), server(&store));
    let mut clients: Vec<Client> = (0..300)
        .map(|n| send([&first, &second][n % 2], "/add-in-redis"))
        .collect();
    for client in &mut clients {
        let text = answer(client);
        assert!(text.parse::<u64>().is_ok(), "{text}");
    }
    assert!(redis(store.port, &[b"GET", b"n"]).contains("300"));
    // The numbers, in the order in which their owners wrote.
    let mut owners = Vec::new();
    for n in 0..300 {
        let place = n.to_string();
        let reply = redis(store.port, &[b"LINDEX", b"owners", place.as_bytes()]);
        owners.push(reply.lines().nth(1).unwrap().parse::<u64>().unwrap());
    }
    assert!(owners.windows(2).all(|two| two[0] < two[1]), "{owners:?}");
}

#[test]
fn a_release_wakes_the_other_server() {
    let Some(store) = Redis::start(&[]) else {
        return;
    };
    let servers = [server(&store), server(&store)];
    let mut mark = servers[0].mark();
    let mut holder = send(&servers[0], "/keep?hold=60000&keep=100");
    servers[0].wait_log("holds", mark);
    let begin = Instant::now();
    for n in 1..=20 {
        let server = &servers[n % 2];
        mark = server.mark();
        let next = send(server, "/keep?hold=60000&keep=100");
        assert_eq!(owner(&answer(&mut holder)).1, "ok");
        server.wait_log("holds", mark);
        holder = next;
    }
    // Each kept it for 100 ms. Whoever only looked by itself would have waited a second each time.
    assert!(
        begin.elapsed() < Duration::from_secs(15),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn a_killed_owner_is_followed_when_its_hold_is_over() {
    let Some(store) = Redis::start(&[]) else {
        return;
    };
    let (mut dead, second) = (server(&store), server(&store));
    let (begin, mark) = (Instant::now(), dead.mark());
    let _holds = send(&dead, "/keep?hold=2000&keep=60000");
    dead.wait_log("holds", mark);
    dead.process().signal(Signal::KILL);
    assert_eq!(ask(&second, "/keep?wait=0"), "timeout");
    got(&second, "/keep");
    assert!(begin.elapsed() >= Duration::from_secs(2));
}

#[test]
fn a_late_owner_hears_of_it_and_takes_nothing_from_the_next() {
    let Some(store) = Redis::start(&[]) else {
        return;
    };
    let (first, second) = (server(&store), server(&store));
    let mark = first.mark();
    let mut late = send(&first, "/keep?hold=500&keep=4000&renew=1000");
    first.wait_log("holds", mark);
    let mark = second.mark();
    let mut next = send(&second, "/keep?hold=60000&keep=8000");
    second.wait_log("holds", mark);
    let (before, said) = owner(&answer(&mut late));
    assert_eq!(said, "lost lost");
    assert_eq!(ask(&first, "/keep?wait=0"), "timeout");
    let (after, said) = owner(&answer(&mut next));
    assert_eq!(said, "ok");
    assert!(before < after, "{before} {after}");
}

#[test]
fn a_hold_that_is_renewed_goes_on() {
    let Some(store) = Redis::start(&[]) else {
        return;
    };
    let (first, second) = (server(&store), server(&store));
    let mark = first.mark();
    let mut holds = send(&first, "/keep?hold=20000&keep=1000&renew=60000");
    first.wait_log("holds", mark);
    let left = redis(store.port, &[b"PTTL", b"lock:orders:=a"]);
    let left: u64 = left.trim_start_matches(':').trim_end().parse().unwrap();
    assert!(left <= 20_000, "{left}");
    let (before, said) = owner(&answer(&mut holds));
    assert_eq!(said, "ok ok");
    assert!(before < got(&second, "/keep"));
}

#[test]
fn an_owner_that_leaves_or_traps_keeps_no_lock() {
    let Some(store) = Redis::start(&[]) else {
        return;
    };
    let (first, second) = (server(&store), server(&store));
    for leaving in ["/keep?hold=600000&keep=60000", "/trap"] {
        let begin = Instant::now();
        let mark = first.mark();
        let mut client = send(&first, leaving);
        first.wait_log("holds", mark);
        let mut next = send(&second, "/keep");
        if leaving == "/trap" {
            assert_eq!(client.response(false).unwrap().status, 500);
        }
        drop(client);
        assert_eq!(owner(&answer(&mut next)).1, "ok");
        assert!(begin.elapsed() < PATIENCE);
    }
}

#[test]
fn a_server_that_is_stopped_gives_back_what_its_owners_have() {
    let Some(store) = Redis::start(&[]) else {
        return;
    };
    let (first, second) = (server(&store), server(&store));
    let mark = first.mark();
    let _cut = send(&first, "/keep?hold=600000&keep=60000");
    first.wait_log("holds", mark);
    first.stop(Signal::TERM);
    got(&second, "/keep?wait=0");
}

#[test]
fn numbers_grow_over_servers_and_their_restarts_and_an_emptied_redis() {
    let Some(store) = Redis::start(&[]) else {
        return;
    };
    let mut numbers = Vec::new();
    for round in 0..3 {
        let (first, second) = (server(&store), server(&store));
        for n in 0..6 {
            numbers.push(got([&first, &second][n % 2], "/keep"));
        }
        drop((first, second));
        if round == 1 {
            // Nobody is there who could know of it.
            redis(store.port, &[b"FLUSHALL"]);
        }
    }
    assert!(numbers.windows(2).all(|two| two[0] < two[1]), "{numbers:?}");
}

#[test]
fn a_redis_that_does_not_answer_costs_a_bounded_time() {
    let Some(store) = Redis::start(&[]) else {
        return;
    };
    let (first, second) = (server(&store), server(&store));
    let mark = first.mark();
    let mut holds = send(&first, "/keep?hold=600000&keep=3000");
    first.wait_log("holds", mark);
    let mut waits = send(&second, "/keep");
    store.signal(Signal::STOP);
    let begin = Instant::now();
    // One of this server may wait in front.
    let at_once = ask(&second, "/keep?wait=0");
    assert!(["timeout", "unavailable"].contains(&&*at_once), "{at_once}");
    assert_eq!(answer(&mut waits), "unavailable");
    assert_eq!(ask(&second, "/keep"), "unavailable");
    assert!(
        begin.elapsed() < Duration::from_secs(30),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(owner(&answer(&mut holds)).1, "unavailable");
    store.signal(Signal::CONT);
    // The release that did not reach Redis comes later, and long before the hold's end.
    until_got(&second, "/keep");
}

#[test]
fn a_redis_that_comes_back_empty_gives_no_lock_to_two() {
    let Some(mut store) = Redis::start(&[]) else {
        return;
    };
    let (first, second) = (server(&store), server(&store));
    let before = got(&second, "/keep");
    let (begin, mark) = (Instant::now(), first.mark());
    let mut holds = send(&first, "/keep?hold=60000&keep=6000");
    first.wait_log("holds", mark);
    let mark = first.mark();
    store.kill();
    assert_eq!(ask(&second, "/keep?wait=0"), "unavailable");
    first.wait_log("releases of other servers are not heard now", mark);
    store.run();
    first.wait_log("releases of other servers are heard again", mark);
    // Redis did not know the owner any more; its server did.
    let after = until_got(&second, "/keep");
    assert!(
        begin.elapsed() >= Duration::from_secs(6),
        "{:?}",
        begin.elapsed()
    );
    let (held, said) = owner(&answer(&mut holds));
    assert_eq!(said, "ok");
    assert!(before < held && held < after, "{before} {held} {after}");
    first.wait_log("Redis has lost what it knew: 1 locks are put back", mark);
}
