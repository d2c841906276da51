//! What a cache does, without Wasm: levels, flights, changes, times.

#![expect(
    clippy::disallowed_methods,
    reason = "there is no worker here to spawn through"
)]

mod full;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;

use super::{Cache, CacheError, Found, Options, Outcome, Registry, Ticket};
use crate::config::model::Cache as Config;
use crate::time_cache;

fn config() -> Config {
    Config {
        name: "test".to_owned(),
        items: 10,
        longest: 1000,
        size: 1 << 20,
        negative: 128 << 10,
        ttl: 30_000,
        negative_ttl: 5_000,
        stale: 0,
        retry: 1_000,
        revalidate: 0,
        refresh_ahead: 0,
        jitter: 0,
        wait: Duration::from_secs(5),
        waiters: 100_000,
        lease: Duration::from_secs(30),
        disk: None,
        l3: None,
    }
}

fn cache(config: &Config) -> Arc<Cache> {
    Registry::default()
        .open_all(std::slice::from_ref(config))
        .unwrap()
        .caches
        .remove(0)
}

fn count(cache: &Cache, name: &str) -> u64 {
    let all = cache.counters();
    all.iter().find(|(known, _)| *known == name).unwrap().1
}

fn value(text: &str) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(text.as_bytes()))
}

fn hit(outcome: Result<Outcome, CacheError>) -> Found {
    match outcome {
        Ok(Outcome::Hit(found)) => found,
        other => panic!("not a hit: {other:?}"),
    }
}

fn miss(outcome: Result<Outcome, CacheError>) -> Ticket {
    match outcome {
        Ok(Outcome::Miss(ticket)) => *ticket,
        other => panic!("not a miss: {other:?}"),
    }
}

/// A change where no level behind makes it wait.
fn done<T>(change: impl Future<Output = T>) -> T {
    change.now_or_never().unwrap()
}

async fn get(cache: &Cache, key: &str) -> Result<Outcome, CacheError> {
    time_cache::update();
    cache.get(key.as_bytes(), Options::default(), false).await
}

async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
    time_cache::update();
}

#[tokio::test]
async fn one_flight_for_ten_thousand() {
    let cache = cache(&config());
    let mut ticket = miss(get(&cache, "k").await);
    let waiters: Vec<_> = (0..10_000)
        .map(|_| {
            let cache = cache.clone();
            tokio::task::spawn(async move { hit(get(&cache, "k").await).value })
        })
        .collect();
    while cache.store.common.waiting.load(Ordering::Relaxed) < 10_000 {
        tokio::task::yield_now().await;
    }
    cache.fill(&mut ticket, value("v"), None).await.unwrap();
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap(), value("v"));
    }
    assert_eq!(count(&cache, "misses"), 1);
    assert_eq!(count(&cache, "coalesced"), 10_000);
}

#[tokio::test]
async fn what_a_waiter_gets_is_fresh_until_something_changes() {
    let cache = cache(&config());
    for changed in [false, true] {
        let mut ticket = miss(cache.get(b"k", Options::default(), true).await);
        let waiter = tokio::task::spawn({
            let cache = cache.clone();
            async move { hit(cache.get(b"k", Options::default(), true).await) }
        });
        tokio::task::yield_now().await;
        cache.fill(&mut ticket, value("v"), None).await.unwrap();
        if changed {
            // Before the one that waited has looked at what it got.
            done(cache.set(b"k", value("w"), Options::default())).unwrap();
        }
        let found = waiter.await.unwrap();
        assert_eq!(found.value, value("v"));
        assert_eq!(cache.fresh(found.stamp), !changed);
        done(cache.delete(b"k")).unwrap();
        assert!(!cache.fresh(found.stamp));
    }
}

#[tokio::test]
async fn a_dropped_flight_goes_to_the_next_in_line_and_past_those_who_left() {
    let cache = cache(&config());
    let first = miss(get(&cache, "k").await);
    let spawn = |cache: &Arc<Cache>| {
        let cache = cache.clone();
        tokio::task::spawn(async move { get(&cache, "k").await })
    };
    let (left, next, last) = (spawn(&cache), spawn(&cache), spawn(&cache));
    tokio::task::yield_now().await;
    left.abort();
    assert!(left.await.is_err());
    drop(first);
    let mut ticket = miss(next.await.unwrap());
    cache.fill(&mut ticket, value("v"), None).await.unwrap();
    assert_eq!(hit(last.await.unwrap()).value, value("v"));
}

#[tokio::test]
async fn callers_keep_their_own_time_to_wait() {
    let cache = cache(&config());
    let _ticket = miss(get(&cache, "k").await);
    let short = Options {
        wait: Some(20),
        ..Options::default()
    };
    let outcome = cache.get(b"k", short, false).await;
    assert_eq!(outcome.unwrap_err(), CacheError::Timeout);
}

#[tokio::test]
async fn a_lease_that_is_over_is_taken_and_the_late_value_refused() {
    let cache = cache(&Config {
        lease: Duration::from_millis(20),
        ..config()
    });
    let mut dead = miss(get(&cache, "k").await);
    let mut second = miss(get(&cache, "k").await);
    assert_eq!(
        cache.fill(&mut dead, value("late"), None).await,
        Err(CacheError::Lost)
    );
    cache.fill(&mut second, value("new"), None).await.unwrap();
    assert_eq!(hit(get(&cache, "k").await).value, value("new"));
}

#[tokio::test]
async fn a_renewed_lease_is_not_taken() {
    let cache = cache(&Config {
        lease: Duration::from_millis(60),
        ..config()
    });
    let mut ticket = miss(get(&cache, "k").await);
    for _ in 0..4 {
        pause(25).await;
        assert!(cache.renew(&mut ticket));
    }
    cache.fill(&mut ticket, value("v"), None).await.unwrap();
}

#[tokio::test]
async fn a_change_wins_over_a_flight_that_began_before() {
    let cache = cache(&config());
    let mut ticket = miss(get(&cache, "k").await);
    cache
        .set(b"k", value("set"), Options::default())
        .await
        .unwrap();
    assert_eq!(
        cache.fill(&mut ticket, value("old"), None).await,
        Err(CacheError::Lost)
    );
    assert_eq!(hit(get(&cache, "k").await).value, value("set"));

    let mut ticket = miss(get(&cache, "other").await);
    cache.purge().await;
    assert_eq!(
        cache.fill(&mut ticket, value("old"), None).await,
        Err(CacheError::Lost)
    );
    assert!(
        get(&cache, "other")
            .await
            .is_ok_and(|o| matches!(o, Outcome::Miss(_)))
    );
}

#[tokio::test]
async fn a_copy_is_fresh_until_a_change_a_purge_or_its_end() {
    let cache = cache(&config());
    let set = async |text| {
        let set = cache.set(b"k", value(text), Options::default()).await;
        set.unwrap()
    };
    let stamp = set("1").await;
    assert!(cache.fresh(stamp));
    let newer = set("2").await;
    assert!(!cache.fresh(stamp) && cache.fresh(newer));
    cache.purge().await;
    assert!(!cache.fresh(newer));
    let short = Options {
        ttl: Some(20),
        ..Options::default()
    };
    let stamp = cache.set(b"k", value("3"), short).await.unwrap();
    assert!(cache.fresh(stamp));
    pause(25).await;
    assert!(!cache.fresh(stamp));
    let stamp = set("4").await;
    cache.delete(b"k").await.unwrap();
    assert!(!cache.fresh(stamp));
}

#[tokio::test]
async fn a_purge_leaves_another_cache_alone() {
    let other = Config {
        name: "other".to_owned(),
        ..config()
    };
    let opened = Registry::default().open_all(&[config(), other]).unwrap();
    let caches = &opened.caches;
    for cache in caches {
        cache
            .set(b"k", value("v"), Options::default())
            .await
            .unwrap();
    }
    caches[0].purge().await;
    time_cache::update();
    assert!(caches[0].hit(b"k").is_none());
    assert!(caches[1].hit(b"k").is_some());
}

#[tokio::test]
async fn a_generation_with_another_size_and_the_one_before_see_each_others_changes() {
    let registry = Registry::default();
    let open = |size| {
        let config = Config { size, ..config() };
        let mut opened = registry.open_all(&[config]).unwrap();
        opened.take_over();
        opened.caches.remove(0)
    };
    let (before, after) = (open(1 << 20), open(2 << 20));
    for (one, other) in [(&before, &after), (&after, &before)] {
        let set = async |cache: &Cache, text| {
            let set = cache.set(b"k", value(text), Options::default()).await;
            set.unwrap()
        };
        let copy = set(other, "old").await;
        assert!(other.fresh(copy));
        set(one, "new").await;
        assert!(!other.fresh(copy));
        assert!(other.hit(b"k").is_none());
        let mut ticket = miss(get(other, "k").await);
        other.fill(&mut ticket, value("late"), None).await.unwrap();
        one.purge().await;
        assert!(other.hit(b"k").is_none());
    }
    drop(before);
    assert_eq!(count(&after, "purges"), 2);
}

#[tokio::test]
async fn stale_if_error_serves_and_leaves_the_source_alone() {
    let cache = cache(&Config {
        stale: 10_000,
        retry: 40,
        ..config()
    });
    let brief = Options {
        ttl: Some(10),
        ..Options::default()
    };
    cache.set(b"k", value("v"), brief).await.unwrap();
    pause(15).await;
    let mut ticket = miss(get(&cache, "k").await);
    let served = cache.fail(&mut ticket, "down").unwrap();
    assert!(served.stale && served.value == value("v"));
    let again = hit(get(&cache, "k").await);
    assert!(again.stale, "{again:?}");
    pause(45).await;
    // The first source's end still counts: there is a limit on how long it serves.
    let mut ticket = miss(get(&cache, "k").await);
    assert!(cache.fail(&mut ticket, "down").is_some());
}

#[tokio::test]
async fn an_error_without_a_stale_value_goes_to_all_who_wait() {
    let cache = cache(&config());
    let mut ticket = miss(get(&cache, "k").await);
    let other = cache.clone();
    let waiter = tokio::task::spawn(async move { get(&other, "k").await });
    tokio::task::yield_now().await;
    assert_eq!(cache.fail(&mut ticket, "down"), None);
    let error = waiter.await.unwrap().unwrap_err();
    assert_eq!(error, CacheError::Source("down".to_owned()));
    assert!(matches!(get(&cache, "k").await, Ok(Outcome::Miss(_))));
}

#[tokio::test]
async fn while_one_brings_a_new_value_the_old_one_serves_the_others() {
    for (ahead, after) in [(29_990, 0), (0, 30_000)] {
        let cache = cache(&Config {
            refresh_ahead: ahead,
            revalidate: after,
            ..config()
        });
        // A tenth of the ttl at least is not ahead: due after 30 ms, over after 300.
        let ttl = if after == 0 { 300 } else { 10 };
        let brief = Options {
            ttl: Some(ttl),
            ..Options::default()
        };
        cache.set(b"k", value("old"), brief).await.unwrap();
        if after == 0 {
            assert_eq!(hit(get(&cache, "k").await).value, value("old"));
        }
        pause(40).await;
        let mut ticket = miss(get(&cache, "k").await);
        let other = hit(get(&cache, "k").await);
        assert_eq!((other.value, other.stale), (value("old"), after > 0));
        cache.fill(&mut ticket, value("new"), None).await.unwrap();
        assert_eq!(hit(get(&cache, "k").await).value, value("new"));
    }
}

#[tokio::test]
async fn negative_values_for_ever_and_too_large_ones() {
    let cache = cache(&config());
    let mut ticket = miss(get(&cache, "none").await);
    cache.fill(&mut ticket, None, None).await.unwrap();
    let none = hit(get(&cache, "none").await);
    assert!(none.value.is_none() && none.remaining.is_some_and(|left| left <= 5_000));

    let mut ticket = miss(get(&cache, "ever").await);
    cache.fill(&mut ticket, value("v"), Some(0)).await.unwrap();
    assert_eq!(hit(get(&cache, "ever").await).remaining, None);

    let big = Bytes::from(vec![0; 2 << 20]);
    cache
        .set(b"big", value("small"), Options::default())
        .await
        .unwrap();
    let refused = cache.set(b"big", Some(big), Options::default()).await;
    assert_eq!(refused.unwrap_err(), CacheError::TooLarge(768 << 10));
    assert!(cache.peek(b"big", true).is_none(), "an older value stays");
    for key in [&b""[..], &[b'x'; 65_536]] {
        assert_eq!(cache.delete(key).await, Err(CacheError::InvalidKey));
    }
}

#[tokio::test]
async fn no_instance_keeps_a_copy_of_a_long_value() {
    let cache = cache(&config());
    for (length, kept) in [(1000, true), (1001, false)] {
        let long = value(&"v".repeat(length));
        let stamp = cache.set(b"k", long.clone(), Options::default()).await;
        assert_eq!(stamp.unwrap().until > 0, kept, "{length}");
        let found = hit(get(&cache, "k").await);
        assert_eq!(found.value, long);
        assert_eq!(cache.fresh(found.stamp), kept, "{length}");
    }
}

#[tokio::test]
async fn nothing_has_more_time_left_than_its_ttl() {
    let cache = cache(&config());
    time_cache::update();
    // This thread's own time stands still meanwhile, as it does while a handler computes.
    tokio::time::sleep(Duration::from_millis(30)).await;
    cache
        .set(b"k", value("v"), Options::default())
        .await
        .unwrap();
    for found in [cache.peek(b"k", false), cache.hit(b"k")] {
        let left = found.unwrap().remaining.unwrap();
        assert!(left <= 30_000, "{left}");
    }
}

#[tokio::test]
async fn a_ttl_is_cut_at_random_and_never_to_for_ever() {
    let cache = cache(&Config {
        jitter: 50,
        ..config()
    });
    let mut ends = std::collections::HashSet::new();
    for n in 0..100 {
        let key = format!("{n}");
        cache
            .set(key.as_bytes(), value("v"), Options::default())
            .await
            .unwrap();
        let left = cache
            .peek(key.as_bytes(), false)
            .unwrap()
            .remaining
            .unwrap();
        assert!((14_000..=30_000).contains(&left), "{left}");
        ends.insert(left);
        let brief = Options {
            ttl: Some(1),
            ..Options::default()
        };
        let stamp = cache.set(b"brief", value("v"), brief).await.unwrap();
        assert_ne!(stamp.until, u64::MAX);
    }
    assert!(ends.len() > 50, "{} ends", ends.len());
}

#[tokio::test]
async fn the_number_of_those_who_wait_is_bounded() {
    let cache = cache(&Config {
        waiters: 0,
        ..config()
    });
    let _ticket = miss(get(&cache, "k").await);
    assert_eq!(get(&cache, "k").await.unwrap_err(), CacheError::Busy);
}

#[test]
fn no_reader_sees_an_older_value_after_the_writer_returned() {
    use std::sync::atomic::{AtomicBool, AtomicU64};
    let cache = cache(&config());
    let (written, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let number = |found: &Found| -> u64 {
        let text = found.value.as_deref().unwrap();
        std::str::from_utf8(text).unwrap().parse().unwrap()
    };
    done(cache.set(b"k", value("0"), Options::default())).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                // What an instance does: keeps a copy, and asks whether it is fresh.
                let mut copy: Option<(u64, super::Stamp)> = None;
                while !over.load(Ordering::Relaxed) {
                    let least = written.load(Ordering::SeqCst);
                    let seen = match copy {
                        Some((seen, stamp)) if cache.fresh(stamp) => seen,
                        _ => {
                            let found = cache.hit(b"k").unwrap();
                            copy = Some((number(&found), found.stamp));
                            number(&found)
                        }
                    };
                    assert!(seen >= least, "{seen} after {least} was written");
                }
            });
        }
        for step in 1..=100_000_u64 {
            let text = step.to_string();
            done(cache.set(b"k", value(&text), Options::default())).unwrap();
            written.store(step, Ordering::SeqCst);
        }
        over.store(true, Ordering::Relaxed);
    });
}
