//! What a hit costs inside a guest: 10,000 in one request, beside the loop alone, so that what is left of
//! the request itself is next to nothing in each.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use http::uri::PathAndQuery;
use phasor::engine;
use phasor::exchange;

use crate::site::{Bench, connection, exchange_for};

/// In one request.
const HITS: u64 = 10_000;

/// A cache whose level 1 has so many places, behind a guest in Rust and a route in Lua.
fn configuration(items: u32) -> String {
    let guest = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target/wasm32-wasip2/guest/cache.wasm")
        .display()
        .to_string();
    format!(
        r#"
[server]
access_log = {{ path = "off" }}
[shared.calls]
size = "64k"
[cache.things]
l1 = {{ items = {items} }}
ttl = "1h"
[plugin.cache]
component = "{guest}"
allow = {{ cache = ["things"], shared = ["calls"] }}
limits = {{ cpu = "10s" }}
[plugin.lua]
config = {{ init = "things = require('phasor.cache').open('things')" }}
limits = {{ cpu = "10s" }}
[[route]]
path = "/hits"
content = "cache"
[[route]]
path = "/lua/hits"
lua.content = """
local things, found = things, 0
things:get("k", nil, function() return ("x"):rep(1024) end)
for i = 1, {HITS} do
    if things:get("k") then found = found + 1 end
end
if found ~= {HITS} then error(found) end
"""
[[route]]
path = "/lua/loop"
lua.content = """
local found = 0
for i = 1, {HITS} do
    if i > 0 then found = found + 1 end
end
"""
"#
    )
}

/// In level 1 from Rust and from Lua, and in level 2, 1 KiB, from both.
pub(crate) fn in_guests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hit in a guest");
    group.throughput(Throughput::Elements(HITS));
    group.measurement_time(Duration::from_secs(3));
    let rust = format!("/hits?count={HITS}&size=1024");
    let alone = format!("{rust}&look=no");
    for (items, level, cases) in [
        (
            100,
            "level 1",
            &[
                ("Rust", rust.as_str()),
                ("Rust, the loop alone", &alone),
                ("Lua", "/lua/hits"),
                ("Lua, the loop alone", "/lua/loop"),
            ][..],
        ),
        (
            0,
            "level 2, 1 KiB",
            &[("Rust", rust.as_str()), ("Lua", "/lua/hits")],
        ),
    ] {
        let mut bench = Bench::new();
        let config = bench.config(&configuration(items));
        let generation = bench.build(config);
        let served = bench.serve(generation);
        let client = connection();
        for (language, target) in cases {
            let target: PathAndQuery = target.parse().expect("a path");
            let once = async || {
                let id = exchange_for(&client, &target);
                let answered = Rc::new(RefCell::new(served.fallback().clone()));
                let start = engine::start(id, &*served);
                engine::run(id, served.clone(), answered, start).await;
                let status = exchange::with(id, |x| x.response.status);
                exchange::end(id);
                assert!(status < 300, "{target}: {status}");
            };
            group.bench_function(format!("{level}, {language}"), |b| {
                b.iter_custom(|count| bench.time(count, once));
            });
        }
    }
    group.finish();
}
