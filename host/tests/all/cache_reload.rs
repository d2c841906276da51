//! What a reload does to a cache's levels: one that fails does nothing, and one that comes to pass lets no
//! change be missed in between.

use std::time::Instant;

use crate::cache_disk::{config as on_disk, kill, written};
use crate::cache_redis::{ask, config as in_redis, counter, redis, until};
use crate::harness::{Folder, Server};
use crate::process::PATIENCE;
use crate::redis::Redis;

#[test]
fn a_reload_that_fails_leaves_the_level_on_disk_as_it_is() {
    const BROKEN: &str = "[plugin.broken]\ncomponent = \"no/such.wasm\"";
    let data = Folder::new();
    let (path, elsewhere) = (data.path().join("a"), data.path().join("b"));
    let small = on_disk(&path, "", "", "");
    let large = |more: &str| on_disk(&path, "", "", more).replace("\"16m\"", "\"32m\"");
    let server = Server::start(&small, &[]);
    ask(&server, "/put?key=before&version=1&size=100");
    written(&server, 1);
    for broken in [large(BROKEN), on_disk(&elsewhere, "", "", BROKEN)] {
        server.rewrite(&broken);
        let log = server.reload();
        assert!(log.contains("reload failed"), "{log}");
    }
    ask(&server, "/put?key=after&version=2&size=100");
    written(&server, 2);
    kill(server);
    let server = Server::start(&small, &[]);
    assert_eq!(ask(&server, "/look?key=before"), "1");
    assert_eq!(ask(&server, "/look?key=after"), "2");
    assert_eq!(counter(&server, "disk_hits"), 2);
    // One that comes to pass takes the folder over, and the next takes it back.
    for (config, version) in [(large(""), "3"), (on_disk(&elsewhere, "", "", ""), "4")] {
        server.rewrite(&config);
        let log = server.reload();
        assert!(log.contains("serves"), "{log}");
        ask(&server, &format!("/put?key=k&version={version}&size=100"));
        written(&server, 1);
    }
    server.rewrite(&large(""));
    server.reload();
    kill(server);
    let server = Server::start(&large(""), &[]);
    assert_eq!(ask(&server, "/look?key=k"), "3");
}

#[test]
fn after_a_reload_the_level_in_redis_hears_of_changes_from_the_start() {
    let Some(store) = Redis::start(&[]) else {
        return;
    };
    let cache = "ttl = \"1h\"";
    let config = |cache: &str, l3: &str| in_redis(store.port, cache, l3);
    let start = || Server::start(&config(cache, ""), &[]);
    let (first, second) = (start(), start());
    ask(&first, "/put?key=k&version=1&size=10");
    until(&second, "/look?key=k", "1");
    // Each makes a new level behind the same memory.
    for (version, l3) in [("2", ", compress = \"1k\""), ("3", ", compress = \"2k\"")] {
        second.rewrite(&config(cache, l3));
        second.reload();
        ask(&first, &format!("/put?key=k&version={version}&size=10"));
        until(&second, "/look?key=k", version);
    }
    // And behind one that had none so far.
    let alone = config(cache, "").replace("l3 = { redis = \"main\"  }", "");
    assert!(!alone.contains("l3"));
    let third = Server::start(&alone, &[]);
    ask(&third, "/put?key=k&version=0&size=10");
    third.rewrite(&config(cache, ""));
    third.reload();
    until(&third, "/look?key=k", "3");
}

#[test]
fn changes_that_wait_for_redis_outlive_a_reload() {
    let kept = ["--appendonly", "yes", "--appendfsync", "always"];
    let Some(mut store) = Redis::start(&kept) else {
        return;
    };
    let cache = "ttl = \"1h\"";
    let server = Server::start(&in_redis(store.port, cache, ""), &[]);
    ask(&server, "/put?key=k&version=1&size=10");
    store.kill();
    ask(&server, "/put?key=k&version=2&size=10");
    assert_eq!(counter(&server, "l3_waiting"), 1);
    server.rewrite(&in_redis(store.port, cache, ", compress = \"1k\""));
    server.reload();
    assert_eq!(counter(&server, "l3_waiting"), 1);
    store.run();
    // The older value is taken away there.
    let begin = Instant::now();
    while redis(store.port, &[b"EXISTS", b"things:=k"]) != ":0\r\n" {
        assert!(begin.elapsed() < PATIENCE, "it is there still");
    }
}
