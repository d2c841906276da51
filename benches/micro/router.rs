//! The look-up of a route: a pure function of host, path and method.

use std::hint::black_box;

use criterion::Criterion;
use phasor::config::value::{HostPattern, PathPattern};
use phasor::router::{RouteKey, Router};

/// Among few routes and among 1,000, exact and by prefix.
pub(crate) fn look_up(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("router");
    for count in [5, 1000] {
        let host = HostPattern::Any;
        let paths: Vec<_> = (0..count)
            .map(|n| {
                let path = format!("/api/v1/things-{n}");
                if n % 2 == 0 {
                    PathPattern::Exact(path)
                } else {
                    PathPattern::Prefix {
                        prefix: format!("{path}/"),
                        is_final: false,
                    }
                }
            })
            .collect();
        let keys: Vec<_> = paths
            .iter()
            .map(|path| RouteKey {
                host: &host,
                path: Some(path),
                methods: &[],
            })
            .collect();
        let router = Router::new(&keys);
        let last = count - 1 - (count - 1) % 2;
        let exact = format!("/api/v1/things-{last}");
        let prefix = format!("/api/v1/things-{}/and/more", last - 1);
        for (what, path) in [("exact", &exact), ("prefix", &prefix)] {
            group.bench_function(format!("{count} routes, {what}"), |b| {
                b.iter(|| black_box(router.find("example.com", black_box(path), "GET")));
            });
        }
    }
    group.finish();
}
