//! Names become addresses: the system's look-up on another thread, and a cache in each worker, so
//! that a busy handler does not ask for every connection.
//!
//! The system's resolver tells no time to live, so the configuration does. A failure is not kept.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::SocketError;

/// How many answers are kept, and how long.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bounds {
    /// Names that a worker remembers; beyond them the oldest goes.
    pub most: usize,
    /// How long an answer is used again.
    pub fresh: Duration,
}

#[derive(Clone)]
struct Answer {
    addresses: Rc<[IpAddr]>,
    since: Instant,
}

thread_local!(static CACHE: RefCell<HashMap<String, Answer>> = RefCell::default());

fn cached(host: &str, bounds: Bounds) -> Option<Rc<[IpAddr]>> {
    CACHE.with_borrow(|cache| {
        cache
            .get(host)
            .filter(|answer| answer.since.elapsed() < bounds.fresh)
            .map(|answer| answer.addresses.clone())
    })
}

fn remember(host: &str, addresses: &[IpAddr], bounds: Bounds) {
    if bounds.most == 0 {
        return;
    }
    CACHE.with_borrow_mut(|cache| {
        if cache.len() >= bounds.most {
            cache.retain(|_, answer| answer.since.elapsed() < bounds.fresh);
        }
        if cache.len() >= bounds.most
            && let Some(oldest) = cache
                .iter()
                .min_by_key(|(_, answer)| answer.since)
                .map(|(host, _)| host.clone())
        {
            cache.remove(&oldest);
        }
        cache.insert(
            host.to_owned(),
            Answer {
                addresses: addresses.into(),
                since: Instant::now(),
            },
        );
    });
}

/// The addresses of a host, in the order in which they are to be tried.
pub(super) async fn addresses(
    host: &str,
    port: u16,
    bounds: Bounds,
) -> Result<Vec<SocketAddr>, SocketError> {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let with_port = |addresses: &[IpAddr]| {
        addresses
            .iter()
            .map(|address| SocketAddr::new(*address, port))
            .collect()
    };
    if let Some(addresses) = cached(host, bounds) {
        return Ok(with_port(&addresses));
    }
    let not_found =
        || SocketError::Other(format!("{host} could not be resolved (3: Host not found)"));
    let mut found: Vec<IpAddr> = Vec::new();
    for address in tokio::net::lookup_host((host, port))
        .await
        .map_err(|_| not_found())?
    {
        if !found.contains(&address.ip()) {
            found.push(address.ip());
        }
    }
    if found.is_empty() {
        return Err(not_found());
    }
    // Most services listen on IPv4 at least; the other family is tried after it.
    found.sort_by_key(IpAddr::is_ipv6);
    remember(host, &found, bounds);
    Ok(with_port(&found))
}

#[cfg(test)]
mod tests {
    use super::{Bounds, addresses, cached, remember};
    use std::net::IpAddr;
    use std::time::Duration;

    const HOUR: Bounds = Bounds {
        most: 2,
        fresh: Duration::from_secs(3600),
    };
    const NEVER: Bounds = Bounds {
        most: 2,
        fresh: Duration::ZERO,
    };

    fn one(last: u8) -> [IpAddr; 1] {
        [IpAddr::from([127, 0, 0, last])]
    }

    #[test]
    fn an_answer_is_used_again_while_it_is_fresh() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let found = runtime.block_on(addresses("localhost", 80, HOUR)).unwrap();
        let known = cached("localhost", HOUR).unwrap();
        assert_eq!(known.len(), found.len());
        assert!(cached("localhost", NEVER).is_none());
        // What is remembered is what is asked.
        remember("localhost", &one(9), HOUR);
        let again = runtime.block_on(addresses("localhost", 81, HOUR));
        assert_eq!(again, Ok(vec![(one(9)[0], 81).into()]));
        let anew = runtime.block_on(addresses("localhost", 80, NEVER));
        assert_eq!(anew, Ok(found));
    }

    #[test]
    fn the_oldest_makes_room_and_none_is_kept_where_none_may() {
        for (last, host) in [(1, "a"), (2, "b"), (3, "c")] {
            remember(host, &one(last), HOUR);
        }
        assert!(cached("a", HOUR).is_none());
        assert_eq!(cached("b", HOUR).as_deref(), Some(&one(2)[..]));
        assert_eq!(cached("c", HOUR).as_deref(), Some(&one(3)[..]));
        // Stale ones go first, however many there are.
        remember("d", &one(4), NEVER);
        assert!(cached("b", HOUR).is_none() && cached("c", HOUR).is_none());
        remember("e", &one(5), Bounds { most: 0, ..HOUR });
        assert!(cached("e", HOUR).is_none());
    }

    #[test]
    fn addresses_are_not_looked_up_and_failures_not_kept() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let got = runtime.block_on(addresses("[::1]", 80, HOUR)).unwrap();
        assert_eq!(got, vec!["[::1]:80".parse().unwrap()]);
        let got = runtime.block_on(addresses("no such name", 80, HOUR));
        assert!(got.is_err());
        assert!(cached("no such name", HOUR).is_none());
    }
}
