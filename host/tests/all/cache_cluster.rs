//! One flight per key for several servers: a thousand misses, an owner that dies, one that comes back
//! too late, one that fails.

use rustix::process::Signal;

use crate::cache_redis::{ask, counter, send, server, until};
use crate::client::Client;
use crate::redis::Redis;

#[test]
fn a_thousand_misses_on_two_servers_ask_the_source_once() {
    let Some(store) = Redis::start(&[]) else {
        return;
    };
    let cache = "wait = \"60s\"";
    let start = || server(store.port, cache, ", cluster = true");
    let (first, second) = (start(), start());
    let mut clients: Vec<Client> = (0..1000)
        .map(|n| send([&first, &second][n % 2], "/get?slow=2000"))
        .collect();
    for client in &mut clients {
        let text = client.response(false).unwrap().text();
        assert!(text.starts_with(r#"Some("call 1")"#), "{text}");
    }
    let calls = counter(&first, "misses") + counter(&second, "misses");
    assert_eq!(calls, 1, "flights that asked the source");
}

#[test]
fn a_dead_owner_is_followed_and_a_late_one_refused() {
    let Some(store) = Redis::start(&[]) else {
        return;
    };
    let cache = "wait = \"60s\"\nttl = \"1h\"";
    let start = || server(store.port, cache, ", cluster = true, lease = \"2s\"");
    let (mut dead, mut late, second) = (start(), start(), start());
    let _asked = send(&dead, "/get?key=dead&slow=600000");
    until(&dead, "/counter?key=misses", "1");
    let mut next = send(&second, "/get?key=dead&source=new");
    dead.process().signal(Signal::KILL);
    assert!(
        next.response(false)
            .unwrap()
            .text()
            .starts_with(r#"Some("new")"#)
    );

    let mut stopped = send(&late, "/get?key=late&slow=5000&source=late");
    until(&late, "/counter?key=misses", "1");
    late.process().signal(Signal::STOP);
    assert!(ask(&second, "/get?key=late&source=new").starts_with(r#"Some("new")"#));
    late.process().signal(Signal::CONT);
    // Its own caller gets what it brought; nobody else does.
    assert!(
        stopped
            .response(false)
            .unwrap()
            .text()
            .starts_with(r#"Some("late")"#)
    );
    assert_eq!(counter(&late, "l3_refused"), 1);
    until(&late, "/get?key=late&source=other", r#"Some("new")"#);
    assert!(ask(&second, "/get?key=late&source=other").starts_with(r#"Some("new")"#));
}

#[test]
fn a_flight_that_fails_is_handed_to_the_other_server_at_once() {
    let Some(store) = Redis::start(&[]) else {
        return;
    };
    let cache = "wait = \"60s\"";
    let start = || server(store.port, cache, ", cluster = true, lease = \"60s\"");
    let (first, second) = (start(), start());
    let mut failing = send(&first, "/get?slow=1000&source=error");
    until(&first, "/counter?key=misses", "1");
    let mut next = send(&second, "/get?source=ok");
    assert!(failing.response(false).unwrap().text().contains("down"));
    assert!(
        next.response(false)
            .unwrap()
            .text()
            .starts_with(r#"Some("ok")"#)
    );
}

#[test]
fn a_purge_reaches_the_values_and_the_flights_of_the_other_server() {
    let Some(store) = Redis::start(&[]) else {
        return;
    };
    let start = || {
        server(
            store.port,
            "wait = \"60s\"\nttl = \"1h\"",
            ", cluster = true",
        )
    };
    let (first, second) = (start(), start());
    ask(&first, "/put?key=k&version=1&size=10");
    until(&second, "/look?key=k", "1");
    let mut slow = send(&second, "/get?key=flying&slow=2000&source=old");
    until(&second, "/counter?key=misses", "1");
    assert_eq!(ask(&first, "/purge"), "Ok(())");
    until(&second, "/look?key=k", "none");
    // What was asked for before serves who asked, and nobody else.
    let text = slow.response(false).unwrap().text();
    assert!(text.starts_with(r#"Some("old")"#), "{text}");
    for server in [&first, &second] {
        until(server, "/get?key=flying&source=new", r#"Some("new")"#);
    }
    assert_eq!(
        counter(&second, "lost") + counter(&second, "l3_refused"),
        1,
        "the late value"
    );
}
