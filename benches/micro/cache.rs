//! The cache's own part of a look-up: what a copy's check, a hit in the process's memory, a change
//! and a flight cost.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::Criterion;
use futures_util::FutureExt as _;
use phasor::cache::{Options, Outcome, Registry};
use phasor::config::model::Cache as Config;

fn config() -> Config {
    Config {
        name: "bench".to_owned(),
        items: 0,
        longest: 64 << 10,
        size: 64 << 20,
        negative: 8 << 20,
        ttl: 3_600_000,
        negative_ttl: 5_000,
        stale: 0,
        retry: 1_000,
        revalidate: 0,
        refresh_ahead: 0,
        jitter: 0,
        wait: Duration::from_secs(5),
        waiters: 65_536,
        disk: None,
        l3: None,
        lease: Duration::from_secs(30),
    }
}

/// On one thread, with values of 1 KiB under 1,000 keys.
pub(crate) fn look_up(criterion: &mut Criterion) {
    let opened = Registry::default().open_all(&[config()]);
    let cache = opened.expect("nothing is on disk").caches.remove(0);
    let value = Bytes::from(vec![b'x'; 1024]);
    let keys: Vec<_> = (0..1000).map(|n| format!("products:{n}")).collect();
    let mut stamp = None;
    for key in &keys {
        let set = cache.set(key.as_bytes(), Some(value.clone()), Options::default());
        let set = set.now_or_never().expect("nothing is behind memory");
        stamp = Some(set.expect("it fits"));
    }
    let stamp = stamp.expect("there are keys");
    let mut next = keys.iter().cycle();
    let mut key = || next.next().map_or(&b""[..], String::as_bytes);
    let mut group = criterion.benchmark_group("cache");
    group.bench_function("is a copy fresh", |b| {
        b.iter(|| cache.fresh(black_box(stamp)));
    });
    group.bench_function("hit in memory, 1 KiB copied", |b| {
        b.iter(|| {
            cache
                .hit(black_box(key()))
                .map(|found| found.value.map(|v| v.to_vec()))
        });
    });
    group.bench_function("set, 1 KiB", |b| {
        b.iter(|| {
            let set = cache.set(black_box(key()), Some(value.clone()), Options::default());
            set.now_or_never()
        });
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let guard = runtime.enter();
    group.bench_function("flight: miss and fill, 1 KiB", |b| {
        b.iter(|| {
            let got = cache.get(key(), Options::default(), true).now_or_never();
            if let Some(Ok(Outcome::Miss(mut ticket))) = got {
                let fill = cache.fill(&mut ticket, Some(value.clone()), None);
                black_box(fill.now_or_never());
            }
        });
    });
    drop(guard);
    group.finish();
}
