//! Locks: the line, the hold, the bounds.
#![expect(
    clippy::disallowed_methods,
    reason = "a test waits for its tasks itself, there is no worker"
)]

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::poll_immediate;

use super::{LockError, Locks, Registry};
use crate::config::model::Lock as Config;

/// A hold that ends within a test.
const SHORT: Duration = Duration::from_millis(300);

fn locks(waiters: usize) -> Arc<Locks> {
    let config = Config {
        name: "l".to_owned(),
        hold: Duration::from_secs(30),
        wait: Duration::from_secs(5),
        waiters,
        remote: None,
    };
    Registry::default().open_all(&[config])[0].clone()
}

#[tokio::test]
async fn first_come_first_served() {
    let locks = locks(100);
    let first = locks.acquire(b"a", None, None).await.unwrap();
    let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let mut waiting = Vec::new();
    for who in 0..10 {
        let (locks, order) = (locks.clone(), order.clone());
        waiting.push(tokio::spawn(async move {
            let guard = locks.acquire(b"a", None, None).await.unwrap();
            order.lock().push((who, guard.fencing()));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }));
        tokio::task::yield_now().await;
    }
    assert_eq!(
        locks.acquire(b"a", None, Some(Duration::ZERO)).await.err(),
        Some(LockError::Timeout)
    );
    assert!(
        locks
            .acquire(b"b", None, Some(Duration::ZERO))
            .await
            .is_ok()
    );
    let fencing = first.fencing();
    first.release().await.unwrap();
    for task in waiting {
        task.await.unwrap();
    }
    let order = order.lock().clone();
    assert!(order.iter().map(|(who, _)| *who).eq(0..10), "{order:?}");
    assert!(
        order[0].1 > fencing && order.windows(2).all(|two| two[0].1 < two[1].1),
        "{order:?}"
    );
}

#[tokio::test]
async fn a_hold_that_is_over_goes_to_the_next_and_its_owner_hears_of_it() {
    let locks = locks(100);
    let late = locks.acquire(b"a", Some(SHORT), None).await.unwrap();
    let begin = tokio::time::Instant::now();
    let next = locks.acquire(b"a", None, None).await.unwrap();
    let waited = begin.elapsed();
    assert!(waited >= SHORT / 2 && waited < 20 * SHORT, "{waited:?}");
    assert_eq!(late.renew(Some(SHORT)).await, Err(LockError::Lost));
    assert_eq!(late.release().await, Err(LockError::Lost));
    // The late owner's end took nothing from the next.
    assert_eq!(next.renew(None).await, Ok(()));
    assert_eq!(
        locks.acquire(b"a", None, Some(Duration::ZERO)).await.err(),
        Some(LockError::Timeout)
    );
    next.release().await.unwrap();
    assert!(
        locks
            .acquire(b"a", None, Some(Duration::ZERO))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_hold_that_is_renewed_goes_on() {
    let locks = locks(100);
    let held = locks.acquire(b"a", Some(SHORT), None).await.unwrap();
    let waits = {
        let locks = locks.clone();
        tokio::spawn(async move { locks.acquire(b"a", None, Some(3 * SHORT)).await.map(drop) })
    };
    while !waits.is_finished() {
        tokio::time::sleep(SHORT / 20).await;
        assert_eq!(held.renew(Some(SHORT)).await, Ok(()));
    }
    assert_eq!(waits.await.unwrap(), Err(LockError::Timeout));
}

#[tokio::test]
async fn who_leaves_loses_its_place_and_no_lock() {
    let locks = locks(100);
    let held = locks.acquire(b"a", None, None).await.unwrap();
    let mut left = Box::pin(locks.acquire(b"a", None, None));
    assert!(poll_immediate(&mut left).await.is_none());
    let mut stays = Box::pin(locks.acquire(b"a", None, None));
    assert!(poll_immediate(&mut stays).await.is_none());
    drop(held);
    // It was handed over, and never looked.
    drop(left);
    let got = stays.await.unwrap();
    drop(got);
    assert!(locks.store.is_free(b"a"));
}

#[tokio::test]
async fn bounds() {
    let locks = locks(1);
    let _held = locks.acquire(b"a", None, None).await.unwrap();
    let mut waits = Box::pin(locks.acquire(b"a", None, None));
    assert!(poll_immediate(&mut waits).await.is_none());
    assert_eq!(
        locks.acquire(b"a", None, None).await.err(),
        Some(LockError::Busy)
    );
    assert_eq!(
        locks.acquire(b"", None, None).await.err(),
        Some(LockError::InvalidName)
    );
    let long = vec![b'x'; 65_536];
    assert_eq!(
        locks.acquire(&long, None, None).await.err(),
        Some(LockError::InvalidName)
    );
}
