//! The cache's own part of a look-up: what a copy's check, a hit in the process's memory, a change
//! and a flight cost.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::Criterion;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use phasor::cache::{Cache, Options, Outcome, Registry};
use phasor::config::model::Cache as Config;
use tokio::time::Instant;

/// So many want one value at once.
const CROWD: usize = 10_000;

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
    let mut keys = 0..;
    group.sample_size(20);
    group.bench_function("flight: 10,000 who wait, until 99 % have it", |b| {
        b.iter_custom(|count| {
            let crowds = async {
                let mut time = Duration::ZERO;
                for key in keys.by_ref().take(usize::try_from(count).unwrap_or(0)) {
                    time += crowd(&cache, format!("crowd:{key}"), value.clone()).await;
                }
                time
            };
            // As the one task of a worker that serves all: without tokio's budget.
            runtime.block_on(tokio::task::unconstrained(crowds))
        });
    });
    group.finish();
}

/// How long it takes from the end of the source until 99 of 100 have the value. They wait as calls of
/// guests do: polled by one task, each when it was woken.
async fn crowd(cache: &Arc<Cache>, key: String, value: Bytes) -> Duration {
    let got = cache.get(key.as_bytes(), Options::default(), false).await;
    let mut ticket = match got {
        Ok(Outcome::Miss(ticket)) => Some(ticket),
        Ok(Outcome::Hit(_)) | Err(_) => None,
    }
    .expect("the key is new");
    let (waiting, key) = (Cell::new(0), key.as_bytes());
    let want = async || {
        waiting.set(waiting.get() + 1);
        cache.get(key, Options::default(), false).await
    };
    let mut all: FuturesUnordered<_> = (0..CROWD).map(|_| Box::pin(want())).collect();
    while waiting.get() < CROWD {
        assert!(all.next().now_or_never().is_none(), "nobody has it yet");
    }
    let done = Instant::now();
    let filled = cache.fill(&mut ticket, Some(value), None).await;
    assert!(filled.is_ok(), "the flight was its own");
    for _ in 0..CROWD / 100 * 99 {
        let got = all.next().await;
        assert!(
            matches!(got, Some(Ok(Outcome::Hit(_)))),
            "nobody else brings it"
        );
    }
    done.elapsed()
}
