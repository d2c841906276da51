//! The cache's level on disk with what stands around it: a Redis that knows better or is away, the HTTP
//! cache and its purges, a device that is full.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cache_disk::{config, kill, written};
use crate::cache_redis::{ask, counter, until};
use crate::client::Client;
use crate::harness::{Folder, Server};
use crate::http_cache::{self, is, origin};
use crate::process::{PATIENCE, have, run};
use crate::redis::Redis;

const L3: &str = "l3 = { redis = \"main\" }\nstale = \"1h\"";

/// A configuration with Redis behind the disk.
fn shared(data: &Folder, name: &str, redis: u16) -> String {
    let redis = format!(
        "[redis.main]\nurl = \"redis://127.0.0.1:{redis}\"\ntimeout = \"5s\"\nconnect_timeout = \"5s\"\n"
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

/// Starts a server behind which a shell has mounted something that it alone sees; `None` without the right
/// to do so.
fn mounted(mount: &str, config: &str) -> Option<Server> {
    let (code, ..) = run(Command::new("unshare").args(["-m", "sh", "-c", mount]));
    (code == 0).then(|| {
        Server::start_with(Folder::new(), config, |command| {
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
        })
    })
}

/// A device of six megabytes.
#[test]
fn a_full_device_costs_values_and_one_line() {
    let data = Folder::new();
    let folder = data.path().display();
    let mount = format!("mount -t tmpfs -o size=6m tmpfs '{folder}'");
    let config = config(&data.path().join("a"), "", "", "");
    let Some(mut server) = mounted(&mount, &config) else {
        return;
    };
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
    let id = server.process().id().to_string();
    let mut more = Command::new("nsenter");
    more.args(["-t", &id, "-m", "mount", "-o", "remount,size=40m"]);
    assert_eq!(run(more.arg(data.path())).0, 0);
    let before = counter(&server, "disk_writes");
    let begin = Instant::now();
    // More than the device has lacked, by the same server.
    while counter(&server, "disk_writes") < before + 100 {
        n += 1;
        let put = format!("/put?key=k{}&version={n}&size=100000", n % 50);
        assert_eq!(ask(&server, &put), "Ok(())");
        assert!(begin.elapsed() < PATIENCE, "nothing is written again");
    }
    server.wait_log("values are written to disk again", 0);
    assert!(!server.log_since(0).contains("panicked"));
}

/// A file system that lets nobody write, as a disk that hangs.
struct Frozen {
    server: i32,
    path: String,
}

impl Frozen {
    fn new(server: i32, path: String) -> Self {
        let frozen = Self { server, path };
        assert!(frozen.turn("-f"), "cannot freeze");
        frozen
    }

    fn turn(&self, to: &str) -> bool {
        let server = self.server.to_string();
        let mut command = Command::new("nsenter");
        command.args(["-t", &server, "-m", "fsfreeze", to, &self.path]);
        run(&mut command).0 == 0
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.turn("-u");
    }
}

#[test]
fn a_disk_that_hangs_holds_no_worker() {
    if !have("fsfreeze") || !have("mkfs.ext4") {
        return;
    }
    let data = Folder::new();
    let image = data.write("image", "");
    std::fs::File::options()
        .write(true)
        .open(&image)
        .and_then(|file| file.set_len(64 << 20))
        .unwrap();
    assert_eq!(
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image)).0,
        0
    );
    std::fs::create_dir(data.path().join("mnt")).unwrap();
    let folder = data.path().join("mnt").display().to_string();
    let mount = format!("mount -o loop '{}' '{folder}'", image.display());
    let path = data.path().join("mnt/products");
    let disk = ", queue = \"64k\", timeout = \"300ms\"";
    let config = config(&path, disk, "", "");
    let Some(mut server) = mounted(&mount, &config) else {
        return;
    };
    assert_eq!(ask(&server, "/put?key=k&version=1&size=1000"), "Ok(())");
    written(&server, 1);
    let frozen = Frozen::new(server.process().id(), folder);
    let port = server.port();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(move || {
                let mut client = Client::connect(port);
                for _ in 0..500 {
                    assert_eq!(client.get("/look?key=k").unwrap().text(), "1");
                }
            });
        }
        for n in 0..6 {
            let put = format!("/put?key=n{n}&version=1&size=30000");
            let begin = Instant::now();
            assert_eq!(ask(&server, &put), "Ok(())");
            assert!(begin.elapsed() >= Duration::from_millis(300), "it was kept");
        }
    });
    server.wait_log("a change is not kept yet: the disk takes too long", 0);
    assert!(counter(&server, "disk_dropped") > 0);
    assert!(counter(&server, "disk_waiting") <= 64 << 10);
    drop(frozen);
    let begin = Instant::now();
    while counter(&server, "disk_waiting") > 0 {
        assert!(begin.elapsed() < PATIENCE, "values wait");
    }
    let before = counter(&server, "disk_errors");
    assert_eq!(ask(&server, "/put?key=k&version=2&size=1000"), "Ok(())");
    assert_eq!(counter(&server, "disk_errors"), before);
}
