//! Calls into components: the boundary that every plugin pays for.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use phasor::api::WorkerInfo;
use phasor::exchange;
use phasor::phase::Phase;
use phasor::plugin::Pool;
use phasor::plugin::instance::Instance;
use tokio::time::Instant;

use crate::site::{Bench, connection, exchange as begin};

const GUEST: &str = r#"
[plugin.guest]
component = "guest.wasm"
limits = { cpu = "10s" }
"#;

/// A call on a warm instance, empty and with 1,000 host calls.
pub(crate) fn calls(criterion: &mut Criterion) {
    let mut bench = Bench::new();
    let config = bench.config(GUEST);
    let generation = bench.build(config);
    let pool = Pool::new(generation.plugins[0].clone(), WorkerInfo::default());
    let id = begin(&connection());
    let call = async |phase| {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut lease = pool.take(deadline).await.expect("an instance");
        let instance = lease.instance().expect("an instance");
        black_box(instance.call(phase, id).await.expect("an answer"));
        lease.give_back();
    };
    let mut group = criterion.benchmark_group("call");
    group.bench_function("empty phase, warm instance", |b| {
        b.iter_custom(|count| bench.time(count, async || call(Phase::Access).await));
    });
    group.throughput(Throughput::Elements(1000));
    group.bench_function("phase with 1,000 host calls", |b| {
        b.iter_custom(|count| bench.time(count, async || call(Phase::Rewrite).await));
    });
    group.finish();
    exchange::end(id);
}

/// A fresh instance from the pooling allocator, dropped again: a small component, and one that starts
/// from a heap image.
pub(crate) fn instances(criterion: &mut Criterion) {
    let mut bench = Bench::new();
    let config = bench.config(
        r#"
[plugin.guest]
component = "guest.wasm"
[plugin.demo]
component = "bundled:demo"
[plugin.lua]
"#,
    );
    let generation = bench.build(config);
    let mut group = criterion.benchmark_group("instance");
    for (title, name) in [
        ("fresh, smallest component", "guest"),
        ("fresh, Rust component", "demo"),
        ("fresh, heap image of the Lua VM", "lua"),
    ] {
        let plugin = generation
            .plugins
            .iter()
            .find(|plugin| &*plugin.info.name == name)
            .expect("the configuration has it");
        group.bench_function(title, |b| {
            b.iter_custom(|count| {
                bench.time(count, async || {
                    let fresh = Instance::new(plugin, WorkerInfo::default()).await;
                    drop(black_box(fresh).expect("an instance"));
                })
            });
        });
    }
    group.finish();
}
