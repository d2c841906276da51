//! The cache's level on disk: what it keeps over restarts, kills and reloads, what it never gives back,
//! and what becomes of it when the disk, Redis or the source fails.

use std::path::Path;
use std::time::Instant;

use rustix::process::Signal;

use crate::cache_redis::{ask, counter};
use crate::harness::{Folder, Server};
use crate::process::PATIENCE;

/// A configuration with a level on disk in that folder.
fn config(path: &Path, disk: &str, cache: &str, more: &str) -> String {
    let path = path.display();
    format!(
        r#"
[server]
workers = 2
[shared.calls]
size = "64k"
{more}
[cache.things]
disk = {{ path = "{path}", size = "16m", min_ttl = "1s" {disk} }}
ttl = "1h"
negative_ttl = "1h"
{cache}
[plugin.cache]
component = "{{guests}}/cache.wasm"
allow = {{ cache = ["things"], shared = ["calls"] }}
limits = {{ cpu = "5s" }}
[[route]]
path = "/*"
content = "cache"
"#
    )
}

fn server(path: &Path) -> Server {
    Server::start(&config(path, "", "", ""), &[])
}

/// As the machine's memory does when it is full.
fn kill(mut server: Server) {
    server.process().signal(Signal::KILL);
    assert!(server.process().wait(PATIENCE).is_some());
}

/// Waits until so many values are on disk.
fn written(server: &Server, least: u64) {
    let begin = Instant::now();
    while counter(server, "disk_writes") < least {
        assert!(begin.elapsed() < PATIENCE, "not written: {least} values");
    }
}

#[test]
fn values_survive_a_restart_and_a_kill_and_what_was_changed_does_not_come_back() {
    let data = Folder::new();
    let path = data.path().join("a/products");
    let first = server(&path);
    assert!(ask(&first, "/get").starts_with(r#"Some("call 1") Some(Level::Callback)"#));
    ask(&first, "/get?key=none&source=none");
    ask(&first, "/set?key=deleted&value=old");
    ask(&first, "/set?key=changed&value=old");
    ask(&first, "/set?key=short&value=x&ttl=500");
    written(&first, 4);
    assert_eq!(ask(&first, "/delete?key=deleted"), "Ok(())");
    assert_eq!(ask(&first, "/set?key=changed&value=new"), "Ok(())");
    first.stop(Signal::QUIT);

    let second = server(&path);
    assert!(ask(&second, "/get?source=x").starts_with(r#"Some("call 1") Some(Level::Disk)"#));
    assert!(ask(&second, "/get?source=x").starts_with(r#"Some("call 1")"#));
    assert_eq!(
        ask(&second, "/get?key=none&source=x"),
        "None Some(Level::Disk) false"
    );
    assert!(
        ask(&second, "/get?key=deleted&source=x").starts_with(r#"Some("x") Some(Level::Callback)"#)
    );
    assert!(
        ask(&second, "/get?key=changed&source=x").starts_with(r#"Some("new") Some(Level::Disk)"#)
    );
    assert!(
        ask(&second, "/get?key=short&source=y").starts_with(r#"Some("y") Some(Level::Callback)"#)
    );
    assert_eq!(counter(&second, "disk_hits"), 3);
    assert_eq!(counter(&second, "disk_misses"), 2);
    assert_eq!(counter(&second, "disk_errors"), 0);
    assert!(counter(&second, "disk_bytes") > 0);
    ask(&second, "/set?key=killed&value=v");
    ask(&second, "/set?key=gone&value=v");
    written(&second, 4);
    assert_eq!(ask(&second, "/delete?key=gone"), "Ok(())");
    kill(second);

    let third = server(&path);
    assert!(ask(&third, "/get?key=killed&source=x").starts_with(r#"Some("v") Some(Level::Disk)"#));
    assert!(
        ask(&third, "/get?key=gone&source=x").starts_with(r#"Some("x") Some(Level::Callback)"#)
    );
    assert_eq!(ask(&third, "/purge"), "Ok(())");
    kill(third);

    let fourth = server(&path);
    assert!(ask(&fourth, "/get?source=y").starts_with(r#"Some("y") Some(Level::Callback)"#));
    assert!(
        ask(&fourth, "/get?key=killed&source=y").starts_with(r#"Some("y") Some(Level::Callback)"#)
    );
}
