//! Locks from a component in Rust: one owner at a time on all workers, in line, and none that stays
//! locked when its owner is gone.

use std::time::Duration;

use rustix::process::Signal;

use crate::client::Client;
use crate::harness::Server;

const CONFIG: &str = r#"
[server]
workers = 4
[shared.count]
size = "64k"
[lock.orders]
waiters = 2000
wait = "20s"
[lock.other]
[plugin.lock]
component = "{guests}/lock.wasm"
allow = { lock = ["orders"], shared = ["count"] }
limits = { instances = 600 }
[[route]]
path = "/*"
content = "lock"
"#;

fn send(server: &Server, path: &str) -> Client {
    let mut client = Client::connect(server.port());
    client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    client
}

fn ask(server: &Server, path: &str) -> String {
    send(server, path).response(false).unwrap().text()
}

#[test]
fn one_owner_at_a_time() {
    let server = Server::start(CONFIG, &[]);
    // Each reads a number, waits, and writes it back with one more: without the lock they would lose
    // most of it.
    let clients: Vec<Client> = (0..500).map(|_| send(&server, "/add")).collect();
    let mut owners: Vec<u64> = clients
        .into_iter()
        .map(|mut client| client.response(false).unwrap().text().parse().unwrap())
        .collect();
    assert_eq!(ask(&server, "/count"), "500");
    owners.sort_unstable();
    owners.dedup();
    assert_eq!(owners.len(), 500, "an owner's number came twice");
    server.stop(Signal::QUIT);
}

#[test]
fn an_owner_that_is_gone_keeps_no_lock() {
    let server = Server::start(CONFIG, &[]);
    let mark = server.mark();
    let trap = send(&server, "/trap");
    server.wait_log("holds", mark);
    // Its owner traps after 300 ms, and 30 s is the hold.
    assert_eq!(ask(&server, "/try?wait=10000"), "got");
    drop(trap);
    let mark = server.mark();
    let leaves = send(&server, "/hold");
    server.wait_log("holds", mark);
    assert_eq!(ask(&server, "/try?wait=0"), "timeout");
    drop(leaves);
    assert_eq!(ask(&server, "/try?wait=10000"), "got");
    server.stop(Signal::QUIT);
}

#[test]
fn a_hold_ends_and_goes_on_over_a_reload() {
    let server = Server::start(CONFIG, &[]);
    let mark = server.mark();
    let mut late = send(&server, "/late");
    server.wait_log("holds", mark);
    server.reload();
    assert_eq!(ask(&server, "/try?wait=0"), "timeout");
    let begin = std::time::Instant::now();
    assert_eq!(ask(&server, "/try?wait=10000"), "got");
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(late.response(false).unwrap().text(), "lost lost");
    assert_eq!(ask(&server, "/other"), "refused unknown-table invalid-name");
    server.stop(Signal::QUIT);
}

#[test]
fn an_entry_of_a_shared_dict_is_added_in_turn() {
    let server = Server::start(CONFIG, &[]);
    assert_eq!(
        ask(&server, "/turn"),
        "Ok(true) Ok(false), true Ok(true) Some(Number(2.0)), true Ok(true) Some(Number(3.0))"
    );
    server.stop(Signal::QUIT);
}

const LUA: &str = r#"
[server]
workers = 1
[lock.orders]
wait = "50s"
hold = "600s"
[plugin.lua]
config = { init = "orders = require('phasor.lock').open('orders')" }
[[route]]
path = "/hold"
lua.content = "local guard = orders:acquire('a') ngx.log(ngx.WARN, 'holds') ngx.sleep(60)"
[[route]]
path = "/wait"
lua.content = "ngx.log(ngx.WARN, 'waits') local guard = orders:acquire('a') ngx.sleep(60)"
[[route]]
path = "/try"
lua.content = "local guard, err = orders:acquire('a') ngx.print(guard and 'got' or err)"
"#;

#[test]
fn in_lua_who_leaves_keeps_no_lock_and_no_place_in_line() {
    let server = Server::start(LUA, &[]);
    let mark = server.mark();
    let holds = send(&server, "/hold");
    server.wait_log("holds", mark);
    let waits = send(&server, "/wait");
    server.wait_log("waits", mark);
    let mut next = send(&server, "/try");
    drop(waits);
    drop(holds);
    assert_eq!(next.response(false).unwrap().text(), "got");
    server.stop(Signal::QUIT);
}

const RESTY: &str = r#"
[server]
workers = 2
[shared.locks]
size = "64k"
[[route]]
path = "/hold"
lua.content = """
local l = require('resty.lock'):new('locks')
l:lock('a')
ngx.log(ngx.WARN, 'holds')
ngx.shared.locks:wait('go', nil, 50)
ngx.print(l:unlock())
"""
[[route]]
path = "/go"
lua.content = "ngx.shared.locks:set('go', true) ngx.print('went')"
[[route]]
path = "/try"
lua.content = """
ngx.log(ngx.WARN, 'tries')
local l = require('resty.lock'):new('locks', { exptime = 60, timeout = 50 })
local waited, err = l:lock('a')
ngx.print(waited and 'got' or err, ' ', l:unlock())
"""
"#;

#[test]
fn resty_lock_goes_on_over_a_reload() {
    let server = Server::start(RESTY, &[]);
    let mark = server.mark();
    let mut holds = send(&server, "/hold");
    server.wait_log("holds", mark);
    let mut before = send(&server, "/try");
    server.wait_log("tries", mark);
    server.reload();
    let mark = server.mark();
    let mut after = send(&server, "/try");
    server.wait_log("tries", mark);
    assert_eq!(ask(&server, "/go"), "went");
    for (client, said) in [
        (&mut holds, "1"),
        (&mut before, "got 1"),
        (&mut after, "got 1"),
    ] {
        assert_eq!(client.response(false).unwrap().text(), said);
    }
    server.stop(Signal::QUIT);
}
