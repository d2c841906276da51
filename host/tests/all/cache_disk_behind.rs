//! The cache's level on disk with what stands around it: a Redis that knows better or is away, the HTTP
//! cache and its purges, a device that is full.

use std::process::Command;
use std::time::Instant;

use rustix::process::Signal;

use crate::cache_disk::{config, kill, written};
use crate::cache_redis::{ask, counter, until};
use crate::harness::{Folder, Server};
use crate::http_cache::{self, is, origin};
use crate::process::{PATIENCE, run};
use crate::redis::Redis;

const L3: &str = "l3 = { redis = \"main\" }\nstale = \"1h\"";

/// A configuration with Redis behind the disk.
fn shared(data: &Folder, name: &str, redis: u16) -> String {
    let redis = format!(
        "[redis.main]\nurl = \"redis://127.0.0.1:{redis}\"\ntimeout = \"500ms\"\nconnect_timeout = \"500ms\"\n"
    );
    config(&data.path().join(name), "", L3, &redis)
}

#[test]
fn redis_knows_better_than_the_disk_of_before() {
    let Some(store) = Redis::start(&[]) else {
        return;
    };
    let data = Folder::new();
    let (one, two) = (
        shared(&data, "a", store.port),
        shared(&data, "b", store.port),
    );
    let (first, second) = (Server::start(&one, &[]), Server::start(&two, &[]));
    for key in ["same", "changed", "deleted", "heard"] {
        ask(&first, &format!("/set?key={key}&value=old"));
    }
    written(&first, 4);
    // What another server does while this one listens reaches its disk.
    until(&second, "/get?key=heard&source=x", "Some(\"old\")");
    assert_eq!(ask(&second, "/delete?key=heard"), "Ok(())");
    until(&first, "/peek?key=heard", "nothing");
    kill(first);
    assert_eq!(ask(&second, "/set?key=changed&value=new"), "Ok(())");
    assert_eq!(ask(&second, "/delete?key=deleted"), "Ok(())");

    let first = Server::start(&one, &[]);
    let get = |key: &str| ask(&first, &format!("/get?key={key}&source=asked"));
    assert!(get("same").starts_with("Some(\"old\") Some(Level::Remote)"));
    assert!(get("changed").starts_with("Some(\"new\") Some(Level::Remote)"));
    assert!(get("deleted").starts_with("Some(\"asked\") Some(Level::Callback)"));
    assert!(get("heard").starts_with("Some(\"asked\") Some(Level::Callback)"));
    drop(second);
}

#[test]
fn with_redis_and_the_source_away_the_values_of_the_last_run_serve() {
    let Some(mut store) = Redis::start(&[]) else {
        return;
    };
    let data = Folder::new();
    let (one, two) = (
        shared(&data, "a", store.port),
        shared(&data, "b", store.port),
    );
    let (first, second) = (Server::start(&one, &[]), Server::start(&two, &[]));
    ask(&first, "/set?key=kept&value=v");
    ask(&first, "/set?key=past&value=v&ttl=1");
    ask(&first, "/set?key=gone&value=v");
    written(&first, 3);
    until(&second, "/get?key=gone&source=x", "Some(\"v\")");
    ask(&second, "/delete?key=gone");
    until(&first, "/peek?key=gone", "nothing");
    first.stop(Signal::QUIT);
    store.kill();

    let first = Server::start(&one, &[]);
    let get = |key: &str| ask(&first, &format!("/get?key={key}&source=error"));
    assert_eq!(get("kept"), "Some(\"v\") Some(Level::Disk) false");
    assert!(
        get("past").starts_with("Some(\"v\")"),
        "a stale value serves"
    );
    assert_eq!(get("gone"), "CacheError::Source(\"down\")");
    // Redis is back, and empty: what it lacks others may have taken away.
    store.run();
    until(&first, "/get?key=kept&source=asked", "Some(\"asked\")");
}

#[test]
fn answers_stay_purged_after_a_restart() {
    let Some((_nginx, origin)) = origin() else {
        return;
    };
    let data = Folder::new();
    let route = format!(
        r#"
[[route]]
path = "/shop/*"
proxy = "http://127.0.0.1:{origin}"
cache = {{ name = "things", valid = "10m" }}
"#
    );
    let config = config(&data.path().join("a"), "", "", "") + &route;
    let first = Server::start(&config, &[]);
    let paths = [
        "/shop/a?h=Surrogate-Key:%20lamp",
        "/shop/b/1",
        "/shop/c?h=Surrogate-Key:%20chair",
    ];
    for path in paths {
        is(&http_cache::ask(first.port(), path, ""), "MISS", "1");
        http_cache::until(first.port(), path, "HIT");
    }
    let begin = Instant::now();
    while counter(&first, "disk_writes") < 3 {
        assert!(begin.elapsed() < PATIENCE);
    }
    kill(first);
    let second = Server::start(&config, &[]);
    for path in paths {
        is(&http_cache::ask(second.port(), path, ""), "HIT", "1");
    }
    for what in ["tag=lamp", "prefix=http://localhost/shop/b"] {
        assert_eq!(ask(&second, &format!("/purge-answers?{what}")), "Ok(())");
    }
    kill(second);
    let third = Server::start(&config, &[]);
    is(&http_cache::ask(third.port(), paths[0], ""), "MISS", "2");
    is(&http_cache::ask(third.port(), paths[1], ""), "MISS", "2");
    is(&http_cache::ask(third.port(), paths[2], ""), "HIT", "1");
}

/// A device of six megabytes, which only the server sees.
#[test]
fn a_full_device_costs_values_and_one_line() {
    let data = Folder::new();
    let mount = format!(
        "mount -t tmpfs -o size=6m tmpfs '{}'",
        data.path().display()
    );
    let (code, ..) = run(Command::new("unshare").args(["-m", "sh", "-c", &mount]));
    if code != 0 {
        // No right to mount.
        return;
    }
    let config = config(&data.path().join("a"), "", "", "");
    let server = Server::start_with(Folder::new(), &config, |command| {
        let mut wrapped = Command::new("unshare");
        let line = format!("{mount} && exec \"$@\"");
        wrapped.args(["-m", "sh", "-c", &line, "sh"]);
        wrapped.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            wrapped.env(name, value.unwrap_or_default());
        }
        if let Some(folder) = command.get_current_dir() {
            wrapped.current_dir(folder);
        }
        *command = wrapped;
    });
    let begin = Instant::now();
    let mut n = 0;
    while counter(&server, "disk_errors") == 0 {
        n += 1;
        let put = format!("/put?key=k{n}&version={n}&size=100000");
        assert_eq!(ask(&server, &put), "Ok(())");
        assert!(begin.elapsed() < PATIENCE, "{n} values, and no error");
    }
    server.wait_log(
        "values are not written to disk: no space left on the device",
        0,
    );
    for n in 1000..1020 {
        assert_eq!(
            ask(&server, &format!("/put?key=k{n}&version={n}&size=100000")),
            "Ok(())"
        );
        assert_eq!(ask(&server, &format!("/look?key=k{n}")), n.to_string());
    }
    assert_eq!(ask(&server, "/delete?key=k1"), "Ok(())");
    assert_eq!(ask(&server, "/look?key=k1"), "none");
    let lines = server.log_since(0);
    assert_eq!(
        lines.matches("values are not written").count(),
        1,
        "{lines}"
    );
}
