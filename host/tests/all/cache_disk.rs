//! The cache's level on disk: what it keeps over restarts, kills and reloads, what it never gives back,
//! and what becomes of it when the disk, Redis or the source fails.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cache_redis::{ask, counter, until};
use crate::client::Client;
use crate::harness::{Folder, PHASOR, Server, prepare, walk};
use crate::process::{PATIENCE, bound, run};

/// A configuration with a level on disk in that folder.
pub(crate) fn config(path: &Path, disk: &str, cache: &str, more: &str) -> String {
    let path = path.display();
    format!(
        r#"
[server]
workers = 2
keepalive_requests = 1000000
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

pub(crate) fn server(path: &Path) -> Server {
    Server::start(&config(path, "", "", ""), &[])
}

/// As the machine's memory does when it is full.
pub(crate) fn kill(mut server: Server) {
    server.process().signal(Signal::KILL);
    assert!(server.process().wait(PATIENCE).is_some());
}

/// Waits until so many values are on disk.
pub(crate) fn written(server: &Server, least: u64) {
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

/// The size is a bound, the oldest goes first, and a value that is dropped leaves no older one.
#[test]
fn bytes_are_bounded_and_what_is_dropped_leaves_nothing_older() {
    let data = Folder::new();
    let path = data.path().join("products");
    let small = config(&path, ", queue = \"150k\"", "", "");
    let first = Server::start(&small, &[]);
    ask(&first, "/put?key=first&version=1&size=100000");
    written(&first, 1);
    let mut sent = 1;
    while sent < 320 {
        ask(&first, &format!("/put?key=k{sent}&version=1&size=100000"));
        sent += 1;
        // So that none finds the queue full.
        written(&first, sent);
    }
    assert_eq!(counter(&first, "disk_dropped"), 0);
    let bytes = counter(&first, "disk_bytes");
    assert!((8 << 20..=16 << 20).contains(&bytes), "{bytes} bytes");
    ask(&first, "/put?key=twice&version=1&size=1000");
    written(&first, sent + 1);
    ask(&first, "/put?key=twice&version=2&size=200000");
    assert_eq!(counter(&first, "disk_dropped"), 1);
    ask(&first, "/put?key=long&version=1&size=1000000");
    assert_eq!(counter(&first, "disk_dropped"), 2);
    assert_eq!(ask(&first, "/look?key=twice"), "2");
    kill(first);

    let second = Server::start(&small, &[]);
    assert_eq!(ask(&second, "/look?key=first"), "none");
    assert_eq!(ask(&second, "/look?key=twice"), "none");
    assert_eq!(ask(&second, "/look?key=k319"), "1");
    assert_eq!(counter(&second, "disk_hits"), 1);
}

#[test]
fn a_reload_keeps_what_is_on_disk_and_another_size_or_folder_begins_empty() {
    let data = Folder::new();
    let (path, elsewhere) = (data.path().join("a"), data.path().join("b"));
    let server = server(&path);
    let found = |key: &str, expected: &str| {
        assert_eq!(ask(&server, &format!("/look?key={key}")), expected, "{key}");
    };
    ask(&server, "/put?key=k&version=1&size=100");
    written(&server, 1);
    // Another memory begins empty.
    server.rewrite(&config(&path, "", "l2 = { size = \"1m\" }", ""));
    server.reload();
    until(&server, "/peek?key=k", "nothing");
    found("k", "1");
    assert_eq!(counter(&server, "disk_hits"), 1);
    server.rewrite(&config(&elsewhere, "", "l2 = { size = \"2m\" }", ""));
    server.reload();
    until(&server, "/peek?key=k", "nothing");
    found("k", "none");
    server.rewrite(&config(&path, "", "l2 = { size = \"3m\" }", ""));
    server.reload();
    until(&server, "/look?key=k", "1");
    let larger = config(&path, "", "", "").replace("size = \"16m\"", "size = \"32m\"");
    server.rewrite(&larger);
    server.reload();
    server.wait_log(THROWN_AWAY, 0);
    until(&server, "/peek?key=k", "nothing");
    found("k", "none");
    ask(&server, "/put?key=k&version=2&size=100");
    written(&server, 1);
    kill(server);
    let server = Server::start(&larger, &[]);
    assert_eq!(ask(&server, "/look?key=k"), "2");
}

const THROWN_AWAY: &str =
    r"\[warn\].* cache `things`: .*: what was there is another cache's, .* begins empty";

/// The files of the store.
fn blocks(path: &Path) -> Vec<PathBuf> {
    let mut files = walk(&path.join("blocks"));
    files.sort();
    files
}

#[test]
fn what_is_damaged_on_disk_is_a_miss_and_a_store_without_room_goes_on() {
    let data = Folder::new();
    let path = data.path().join("products");
    let first = server(&path);
    for n in 0..100 {
        ask(&first, &format!("/put?key=k{n}&version={n}&size=20000"));
    }
    written(&first, 90);
    first.stop(Signal::QUIT);
    for file in blocks(&path) {
        let mut bytes = std::fs::read(&file).unwrap();
        // The tables of blocks stay, most values do not.
        for at in (4096 + 9000..bytes.len()).step_by(50_000) {
            bytes[at] ^= 0x40;
        }
        std::fs::write(&file, bytes).unwrap();
    }
    let second = server(&path);
    let (mut whole, mut missing) = (0, 0);
    for n in 0..100 {
        match ask(&second, &format!("/look?key=k{n}")).as_str() {
            "none" => missing += 1,
            seen => {
                assert_eq!(seen, n.to_string());
                whole += 1;
            }
        }
    }
    assert!(
        whole > 20 && missing > 20,
        "{whole} whole, {missing} missing"
    );
    kill(second);

    // A kill at the wrong moment leaves no empty block.
    let files = blocks(&path);
    let full = files
        .iter()
        .find(|file| std::fs::read(file).unwrap()[0] != 0);
    let full = std::fs::read(full.unwrap()).unwrap();
    for file in &files {
        if std::fs::read(file).unwrap()[..4096]
            .iter()
            .all(|byte| *byte == 0)
        {
            std::fs::write(file, &full).unwrap();
        }
    }
    let third = server(&path);
    ask(&third, "/put?key=new&version=1&size=1000");
    written(&third, 1);
    assert!(!third.log_since(0).contains("begins empty"));
    kill(third);
    let fourth = server(&path);
    assert_eq!(ask(&fourth, "/look?key=new"), "1");
    kill(fourth);

    // Without a table of what counts nothing does, and whoever looks after the server is told.
    let ledger = path.join("ledger");
    let mut bytes = std::fs::read(&ledger).unwrap();
    bytes[..4096].fill(0x40);
    std::fs::write(&ledger, bytes).unwrap();
    let fifth = server(&path);
    fifth.wait_log(THROWN_AWAY, 0);
    assert_eq!(ask(&fifth, "/look?key=new"), "none");
}

/// Runs a server that is not to start; gives what it says.
fn refused(config: &str) -> String {
    let folder = Folder::new();
    let file = folder.write("phasor.toml", prepare(config).0);
    let (code, out, err) = run(Command::new(PHASOR)
        .arg("run")
        .arg(&file)
        .current_dir(folder.path())
        .env("XDG_RUNTIME_DIR", folder.path())
        .env("NO_COLOR", "1"));
    let text = format!("{out}{err}");
    assert_eq!(code, 78, "{text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

#[test]
fn a_folder_is_one_servers_and_has_to_be_writable() {
    let data = Folder::new();
    let path = data.path().join("products");
    let mut first = server(&path);
    let text = refused(&config(&path, "", "", ""));
    let owner = format!("products: process {} uses it", first.process().id());
    assert!(text.contains("phasor.toml:10:"), "{text}");
    assert!(text.contains("[cache.things] disk:"), "{text}");
    assert!(text.contains(&owner), "{text}");
    // A look at a configuration leaves the folder of the server that runs alone.
    let folder = Folder::new();
    let file = folder.write("phasor.toml", prepare(&config(&path, "", "", "")).0);
    let (code, out, err) = run(Command::new(PHASOR).arg("check").arg(&file));
    assert_eq!(code, 0, "{out}{err}");
    let file = data.write("file", "");
    let text = refused(&config(&file.join("products"), "", "", ""));
    assert!(text.contains("file/products: Not a directory"), "{text}");
}

/// What a writer knows of its keys.
#[derive(Default, Clone)]
struct Known {
    /// What was sent last: a version, or a deletion's number.
    sent: u64,
    /// Nothing older may be found: what was acknowledged.
    least: u64,
}

const KEYS: usize = 60;

/// Sets and deletes its keys until the server is gone, or does not answer.
fn write_until_killed(port: u16, own: &str, known: &mut [Known], seed: usize, done: &AtomicUsize) {
    let mut client = Client::connect(port);
    let mut random = seed as u64;
    loop {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let (key, dice) = ((random >> 33) as usize % KEYS, (random >> 20) % 100);
        let state = &mut known[key];
        state.sent += 1;
        let version = state.sent;
        let path = match dice {
            0..15 => format!("/delete?key={own}{key}"),
            _ => {
                let size = if dice < 30 { 200_000 } else { 100 + dice * 300 };
                format!("/put?key={own}{key}&version={version}&size={size}")
            }
        };
        let Ok(answer) = client.get(&path) else {
            return;
        };
        assert_eq!(answer.text(), "Ok(())", "{path}");
        state.least = version;
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// A hundred times with `PHASOR_TRIALS=1`, else a few.
#[test]
fn a_server_that_is_killed_while_it_writes_gives_whole_values_and_takes_nothing_back() {
    let rounds = match std::env::var_os("PHASOR_TRIALS") {
        Some(_) => 100,
        None => 6,
    };
    let data = Folder::new();
    let path = data.path().join("products");
    let mut known = vec![vec![Known::default(); KEYS]; 2];
    let (mut found, mut lost, mut written, mut slowest) = (0, 0, 0, Duration::ZERO);
    for round in 0..rounds {
        let begin = Instant::now();
        let mut server = server(&path);
        slowest = slowest.max(begin.elapsed());
        let mut client = Client::connect(server.port());
        for (own, known) in ["a", "b"].iter().zip(&known) {
            for (key, state) in known.iter().enumerate() {
                let seen = client.get(&format!("/look?key={own}{key}")).unwrap().text();
                if seen == "none" {
                    lost += 1;
                    continue;
                }
                let version: u64 = seen
                    .parse()
                    .unwrap_or_else(|_| panic!("{own}{key}: {seen}"));
                assert!(
                    (state.least..=state.sent).contains(&version),
                    "round {round}, {own}{key}: {version}, not {} to {}",
                    state.least,
                    state.sent
                );
                found += 1;
            }
        }
        assert_eq!(counter(&server, "disk_errors"), 0, "round {round}");
        let (port, done) = (server.port(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for (n, (own, known)) in ["a", "b"].into_iter().zip(&mut known).enumerate() {
                let (done, seed) = (&done, round * 2 + n);
                scope.spawn(move || write_until_killed(port, own, known, seed, done));
            }
            let begin = Instant::now();
            while done.load(Ordering::Relaxed) < 20 + round * 37 % 300 {
                assert!(begin.elapsed() < PATIENCE, "nothing is written");
                std::thread::yield_now();
            }
            server.process().signal(Signal::KILL);
            assert!(server.process().wait(PATIENCE).is_some());
        });
        written += done.into_inner();
    }
    eprintln!(
        "{rounds} kills, {written} changes, {found} values found whole, {lost} not there, \
         slowest start {slowest:?}"
    );
    assert!(found > rounds * 10, "{found} found, {lost} not");
}

/// With `PHASOR_TRIALS=1` a gigabyte of values of 4 KiB, else less.
#[test]
fn a_start_with_a_full_disk_is_quick() {
    let (size, values) = match std::env::var_os("PHASOR_TRIALS") {
        Some(_) => ("1g", 300_000),
        None => ("64m", 10_000),
    };
    let data = Folder::new();
    let path = data.path().join("products");
    let config = config(&path, ", queue = \"64m\"", "", "").replace("16m", size);
    let first = Server::start(&config, &[]);
    std::thread::scope(|scope| {
        for n in 0..4 {
            let port = first.port();
            scope.spawn(move || {
                let mut client = Client::connect(port);
                for key in 0..values / 4 / 50 {
                    let path = format!("/many?key=k{n}-{key}-&count=50&size=3500");
                    assert_eq!(client.get(&path).unwrap().text(), "written");
                }
            });
        }
    });
    let begin = Instant::now();
    while counter(&first, "disk_waiting") > 0 {
        assert!(begin.elapsed() < PATIENCE, "values wait");
    }
    assert_eq!(counter(&first, "disk_errors"), 0);
    let (bytes, dropped) = (
        counter(&first, "disk_bytes"),
        counter(&first, "disk_dropped"),
    );
    kill(first);
    let begin = Instant::now();
    let second = Server::start(&config, &[]);
    let time = begin.elapsed();
    let line = second.wait_log("bytes on disk, opened in [^\n]*", 0);
    eprintln!("{bytes} bytes, {dropped} dropped, started in {time:?}: {line}");
    let most = bound(Duration::from_secs(3), Duration::from_secs(20));
    assert!(time < most, "{time:?}");
    let last = format!("/look?key=k3-{}-49", values / 4 / 50 - 1);
    assert_eq!(ask(&second, &last), "1");
}
