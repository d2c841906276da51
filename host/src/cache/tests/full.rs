//! What memory that is full keeps: what is used, and what was just set.

use bytes::Bytes;

use super::{Config, cache, config, count, done, get, hit, miss, value};
use crate::cache::{Cache, CacheError, Options};

#[test]
fn a_flood_of_negative_values_leaves_what_is_used() {
    let cache = cache(&Config {
        size: 64 << 10,
        negative: 8 << 10,
        ..config()
    });
    let keys: Vec<_> = (0..50).map(|n| format!("product {n}")).collect();
    for key in &keys {
        done(cache.set(key.as_bytes(), value("v"), Options::default())).unwrap();
    }
    let live = || {
        keys.iter()
            .filter(|key| cache.hit(key.as_bytes()).is_some())
            .count()
    };
    for step in 0..100 {
        assert!(live() > 45, "{} of 50 after {step} floods", live());
        for n in 0..200 {
            let key = format!("no such thing {step} {n}");
            done(cache.set(key.as_bytes(), None, Options::default())).unwrap();
        }
    }
    assert!(count(&cache, "l2_bytes") <= 64 << 10);
    assert!(count(&cache, "evictions") > 10_000);
}

/// Reads the products ten times each, so that they are what is used.
fn warm(cache: &Cache, keys: &[String]) {
    for key in keys {
        done(cache.set(key.as_bytes(), value(&"v".repeat(500)), Options::default())).unwrap();
    }
    for _ in 0..10 {
        for key in keys {
            assert!(cache.hit(key.as_bytes()).is_some());
        }
    }
}

#[tokio::test]
async fn a_flood_that_ages_all_frequencies_takes_no_value() {
    let cache = cache(&config());
    let keys: Vec<_> = (0..1000).map(|n| format!("product {n}")).collect();
    warm(&cache, &keys);
    for n in 0..40_000 {
        let mut ticket = miss(get(&cache, &format!("no such thing {n}")).await);
        cache.fill(&mut ticket, None, None).await.unwrap();
    }
    let live = keys
        .iter()
        .filter(|key| cache.hit(key.as_bytes()).is_some());
    assert_eq!(live.count(), 1000);
    let newest = hit(get(&cache, "no such thing 39999").await);
    assert!(newest.value.is_none());
    assert!(count(&cache, "l2_bytes") <= 1 << 20);
}

#[test]
fn what_was_just_set_is_there_however_full_the_level_is() {
    let cache = cache(&config());
    let keys: Vec<_> = (0..1000).map(|n| format!("product {n}")).collect();
    warm(&cache, &keys);
    for n in 0..300 {
        let key = format!("new {n}");
        done(cache.set(key.as_bytes(), value("v"), Options::default())).unwrap();
        cache.store.settle();
        assert!(cache.hit(key.as_bytes()).is_some(), "{key}");
    }
    // What has no room among the newest is refused by an error.
    let large = Some(Bytes::from(vec![0; 300 << 10]));
    let refused = done(cache.set(b"large", large.clone(), Options::default()));
    assert!(
        matches!(refused, Err(CacheError::TooLarge(_))),
        "{refused:?}"
    );
    assert!(cache.peek(b"large", true).is_none());
    let empty = super::cache(&config());
    done(empty.set(b"large", large, Options::default())).unwrap();
    empty.store.settle();
    assert!(empty.hit(b"large").is_some());
}
