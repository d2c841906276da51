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
