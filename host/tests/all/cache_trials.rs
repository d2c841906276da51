//! Trials of the cache through whole servers: what would go wrong rarely, or only with many callers.
//! Each turn runs Lua, or what the test guest does, in requests. `PHASOR_SOAK=1` makes them long and
//! lets them say what they measured.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::harness::Server;
use crate::process::{PATIENCE, soaks};
use crate::redis::{Redis, wait_until};

/// A server whose requests run the Lua that they bring; `c` is the cache, `d` a shared dict.
fn server(workers: u32, cache: &str, more: &str) -> Server {
    let config = format!(
        r#"
[server]
workers = {workers}
keepalive_requests = 1000000
[shared.d]
size = "1m"
[cache.things]
{cache}
{more}
[plugin.lua]
config = {{ init = "cache, mlcache = require 'phasor.cache', require 'resty.mlcache'" }}
limits = {{ cpu = "20s", deadline = "600s" }}
[[route]]
path = "/run"
lua.content = """
ngx.req.read_body()
local run = assert(loadstring("local c, d = ... " .. ngx.req.get_body_data()))
local good, err = xpcall(function() ngx.print(run(cache.open("things"), ngx.shared.d)) end, debug.traceback)
if not good then
    ngx.status = 500
    ngx.print(err)
end
"""
"#
    );
    Server::start(&config, &[])
}

/// Sends Lua on a connection of its own.
fn begin(server: &Server, lua: &str) -> Client {
    let mut client = Client::connect(server.port());
    again(&mut client, lua);
    client
}

fn again(client: &mut Client, lua: &str) {
    let length = lua.len();
    client.send(format!(
        "POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{lua}"
    ));
}

fn end(client: &mut Client) -> String {
    let answer = client.response(false).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

fn run(server: &Server, lua: &str) -> String {
    end(&mut begin(server, lua))
}

/// In sixteen requests on two workers; the source's value is when it was done.
#[test]
fn ten_thousand_who_want_one_value() {
    const LUA: &str = r#"
local function source()
    d:incr("calls", 1, 0)
    while d:get("arrived") < 10000 do ngx.sleep(0.01) end
    ngx.sleep(0.2)
    ngx.update_time()
    return ngx.now()
end
local late, threads = {}, {}
local function want()
    d:incr("arrived", 1, 0)
    local done, err, level = c:get("one", { wait = 300 }, source)
    if not done then error(err) end
    ngx.update_time()
    late[#late + 1] = string.format("%d", (ngx.now() - done) * 1000 + 0.5)
end
for i = 1, 625 do threads[i] = ngx.thread.spawn(want) end
for i = 1, 625 do assert(ngx.thread.wait(threads[i])) end
return table.concat(late, " ")
"#;
    let server = server(2, "lease = \"10m\"", "");
    let mut clients: Vec<_> = (0..16).map(|_| begin(&server, LUA)).collect();
    let mut late: Vec<u64> = clients
        .iter_mut()
        .flat_map(|client| {
            let text = end(client);
            let numbers = text.split(' ').map(|number| number.parse().unwrap());
            numbers.collect::<Vec<_>>()
        })
        .collect();
    late.sort_unstable();
    assert_eq!(late.len(), 10_000);
    let said = run(
        &server,
        "return d:get('calls'), ' ', c:counters().misses, ' ', c:counters().timeouts",
    );
    assert_eq!(said, "1 1 0");
    let (p50, p99, most) = (late[5_000], late[9_900], late[9_999]);
    if soaks() {
        eprintln!("after the source was done: p50 {p50} ms, p99 {p99} ms, the last {most} ms");
    }
    // The figure to reach is 5 ms on a machine that does nothing else.
    assert!(
        p99 < 2_000,
        "p50 {p50} ms, p99 {p99} ms, the last {most} ms"
    );
}

/// As in `cache.rs`, through the copies of Lua's VMs: a million writes in the soak.
#[test]
fn no_vm_sees_an_older_value_after_the_writers_call() {
    const WRITE: &str = r#"
local n = d:get("written") or 0
for _ = 1, 2000 do
    n = n + 1
    assert(c:set("counted", n))
    d:set("written", n)
end
return "written"
"#;
    const READ: &str = r#"
for _ = 1, 2000 do
    local least = d:get("written") or 0
    local seen = c:get("counted", nil, function() return nil, "there is none" end)
    if not seen or seen < least then return tostring(seen), " after ", least, " was written" end
end
return "fresh"
"#;
    let turns = if soaks() { 500 } else { 10 };
    let server = server(4, "", "");
    assert_eq!(run(&server, "return tostring(c:set('counted', 0))"), "true");
    let (port, over) = (server.port(), AtomicBool::new(false));
    let turn = |client: &mut Client, lua: &str| {
        again(client, lua);
        end(client)
    };
    let reads: u32 = std::thread::scope(|scope| {
        let reader = || {
            let mut client = Client::connect(port);
            let mut turns = 0;
            while turns == 0 || !over.load(Ordering::Relaxed) {
                assert_eq!(turn(&mut client, READ), "fresh");
                turns += 1;
            }
            turns
        };
        let readers: Vec<_> = (0..8).map(|_| scope.spawn(reader)).collect();
        let mut client = Client::connect(port);
        let done = (0..turns).all(|_| turn(&mut client, WRITE) == "written");
        over.store(true, Ordering::Relaxed);
        assert!(done, "a write failed");
        let counts = readers.into_iter().map(|reader| reader.join().unwrap());
        counts.sum()
    });
    if soaks() {
        eprintln!("{} writes, {} reads", turns * 2000, u64::from(reads) * 2000);
    }
    assert!(reads >= 8, "somebody did not read");
}

#[test]
fn a_callback_that_never_returns_loses_its_flight() {
    let server = server(2, "lease = \"500ms\"\nwait = \"60s\"", "");
    let misses = |count: &str| {
        wait_until(|| run(&server, "return c:counters().misses") == count);
    };
    let _stuck = begin(
        &server,
        "return c:get('a', nil, function() ngx.sleep(500) return 'never' end)",
    );
    misses("1");
    let second = "local v, e, l = c:get('a', nil, function() return 'second' end) return v, ' ', l";
    assert_eq!(run(&server, second), "second callback");

    // One that comes late has its own value, and nobody else gets it.
    let mut late = begin(
        &server,
        "return (c:get('b', nil, function() \
             while not d:get('go') do ngx.sleep(0.01) end return 'late' end))",
    );
    misses("3");
    let second = second.replace("'a'", "'b'");
    assert_eq!(run(&server, &second), "second callback");
    assert_eq!(run(&server, "d:set('go', true) return 'gone'"), "gone");
    assert_eq!(end(&mut late), "late");
    for _ in 0..8 {
        // A connection each, so that both workers are asked.
        assert_eq!(run(&server, "return (c:get('b'))"), "second");
    }
    assert_eq!(run(&server, "return c:counters().lost"), "1");
}

/// Two hundred products are asked for all the time, and between two rounds of that as many keys that
/// nobody has as fill the cache: by age alone all products would go each time.
#[test]
fn a_flood_of_negative_values_leaves_what_is_used() {
    const LUA: &str = r#"
local v, left = ("x"):rep(1000), 0
local function product() return v end
local function read()
    local found = 0
    for i = 1, 200 do
        local _, err, level = c:get("p" .. i, nil, product)
        if err then error(err) end
        if level == "memory" then found = found + 1 end
    end
    return found
end
for i = 1, 2000 do c:set("f" .. i, v) end
for turn = 1, 8 do
    for _ = 1, 10 do read() end
    for i = 1, 12000 do
        local _, err = c:get(turn .. " " .. i, nil, function() end)
        if err then error(err) end
    end
    left = read()
end
return left
"#;
    let config = "l1 = { items = 0 }\nl2 = { size = \"1m\" }\nttl = \"0s\"\nnegative_ttl = \"0s\"";
    let server = server(1, config, "");
    let left: u32 = run(&server, LUA).parse().unwrap();
    assert_eq!(left, 200, "of 200 are left");
    let evicted: u64 = run(&server, "return c:counters().evictions")
        .parse()
        .unwrap();
    assert!(evicted > 20_000, "{evicted}: it was no flood");
}

/// A value is asked for without pause until it is over: never before its time, a negative one neither,
/// and never after it.
#[test]
fn a_value_serves_to_its_last_millisecond() {
    const LUA: &str = r#"
for _, value in ipairs({ "one", "none" }) do
    local asked, begun = 0
    local function source()
        asked = asked + 1
        ngx.update_time()
        begun = ngx.now()
        if value ~= "none" then return value end
    end
    for turn = 1, 10 do
        get(value .. turn, source)
        local first = begun
        -- Its time began when it was kept, and not before the source gave it.
        ngx.update_time()
        local kept = ngx.now()
        repeat
            ngx.update_time()
            local before = ngx.now()
            local seen = get(value .. turn, source)
            if seen ~= (value ~= "none" and value or nil) then return "it is " .. tostring(seen) end
            if begun == first and before - kept > 0.0525 then return "it serves too long" end
        until begun ~= first
        -- The clock counts milliseconds: one may have begun before, and one after.
        if begun - first < 0.049 then return value .. " was over after " .. (begun - first) end
    end
    if asked ~= 20 then return asked .. " calls" end
end
return "to the last"
"#;
    let server = server(1, "l1 = { items = 50 }", "[shared.m]\nsize = \"1m\"");
    for get in [
        "local function get(k, f) return (c:get(k, { ttl = 0.05, negative_ttl = 0.05 }, f)) end",
        "local c = cache.open('things', { namespace = 'none', items = 0 }) \
         local function get(k, f) return (c:get(k, { ttl = 0.05, negative_ttl = 0.05 }, f)) end",
        "local m = mlcache.new('m', 'm', { ttl = 0.05, neg_ttl = 0.05 }) \
         local function get(k, f) return (m:get(k, nil, f)) end",
        "local m = mlcache.new('m0', 'm', { ttl = 0.05, neg_ttl = 0.05, lru_size = 1 }) \
         local function get(k, f) m:get('other', { ttl = 0, neg_ttl = 0 }, function() end) return (m:get(k, nil, f)) end",
    ] {
        assert_eq!(
            run(&server, &format!("{get} {LUA}")),
            "to the last",
            "{get}"
        );
    }
}

#[test]
fn a_value_from_redis_keeps_the_time_that_it_has_left() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let more = format!("[redis.main]\nurl = \"redis://127.0.0.1:{}\"", redis.port);
    let start = || server(1, "l3 = { redis = \"main\", prefix = \"t:\" }", &more);
    let (first, second) = (start(), start());
    let begun = Instant::now();
    assert_eq!(
        run(&first, "return tostring(c:set('k', 'v', { ttl = 60 }))"),
        "true"
    );
    assert_eq!(run(&first, "ngx.sleep(1.5) return 'later'"), "later");
    let left: f64 = run(
        &second,
        "local v, e, level = c:get('k') assert(level == 'redis', level) \
         local there, value, left = c:peek('k') return left",
    )
    .parse()
    .unwrap();
    let passed = begun.elapsed().as_secs_f64();
    assert!(
        left <= 58.6 && left >= 59.9 - passed,
        "{left} s after {passed} s"
    );
    // One that Redis has no longer is nowhere.
    assert_eq!(
        run(
            &first,
            "return tostring(c:set('brief', 'v', { ttl = 0.3, stale = 0 }))"
        ),
        "true"
    );
    let brief = Instant::now();
    wait_until(|| run(&second, "return tostring((c:get('brief')))") == "nil");
    assert!(
        brief.elapsed() < PATIENCE / 2,
        "after {:?}",
        brief.elapsed()
    );
    assert!(begun.elapsed() > Duration::from_secs(1));
}
