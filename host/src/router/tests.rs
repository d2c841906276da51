//! nginx's precedence by example, then against an oracle that looks at every route.

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof};
use proptest::{collection, proptest};

use super::{Found, RouteKey, Router};
use crate::config::value::{HostPattern, PathPattern};

#[derive(Debug)]
struct Route {
    host: HostPattern,
    path: Option<PathPattern>,
    methods: Vec<String>,
}

/// `[host] path [methods]`; `~` begins a regex, `^` a final prefix.
fn route(text: &str) -> Route {
    let mut words = text.split(' ').peekable();
    let host = words.next_if(|word| !word.starts_with(['/', '~', '^', '@']));
    let path = words.next().unwrap();
    let path = match path.split_at(1) {
        ("@", _) => None,
        ("~", regex) => Some(PathPattern::parse_regex(regex).unwrap()),
        ("^", path) => Some(PathPattern::parse(path, true).unwrap()),
        _ => Some(PathPattern::parse(path, false).unwrap()),
    };
    let host = host.map_or(HostPattern::Any, |host| HostPattern::parse(host).unwrap());
    Route {
        host,
        path,
        methods: words.map(str::to_owned).collect(),
    }
}

fn router(routes: &[Route]) -> Router {
    let keys: Vec<_> = routes
        .iter()
        .map(|route| RouteKey {
            host: &route.host,
            path: route.path.as_ref(),
            methods: &route.methods,
        })
        .collect();
    Router::new(&keys)
}

fn found(routes: &[&str], request: &str) -> String {
    let routes: Vec<_> = routes.iter().map(|text| route(text)).collect();
    let router = router(&routes);
    let words: Vec<_> = request.split(' ').collect();
    match router.find(words[1], words[2], words[0]) {
        Found::Route(index) => index.to_string(),
        Found::MethodNotAllowed { allow } => format!("allow {allow}"),
        Found::None => "none".to_owned(),
    }
}

#[test]
fn the_path_decides_as_in_nginx() {
    let routes = &[
        "/*",
        "/api/*",
        "/api",
        "~^/api/v[0-9]",
        "^/api/v2/*",
        "~v[0-9]",
        "/api/v1/exact",
        "@named",
    ];
    for (path, expected) in [
        ("/", "0"),
        ("/ap", "0"),
        ("/api", "2"),
        ("/api/", "1"),
        ("/api/x", "1"),
        ("/api/v1", "3"),
        ("/api/v2/x", "4"),
        ("/api/v2", "3"),
        ("/v1", "5"),
        ("/api/v1/exact", "6"),
    ] {
        assert_eq!(found(routes, &format!("GET h {path}")), expected, "{path}");
    }
    assert_eq!(found(&["/a"], "GET h /b"), "none");
    assert_eq!(found(&[], "GET h /"), "none");
}

#[test]
fn the_host_decides_first() {
    let routes = &["a.com /x", "*.a.com /*", "*.b.a.com /y", "/*", "[::1] /six"];
    for (request, expected) in [
        ("GET a.com /x", "0"),
        ("GET A.Com:8080 /x", "0"),
        ("GET a.com. /x", "0"),
        ("GET a.com /other", "3"),
        ("GET www.a.com /x", "1"),
        ("GET c.b.a.com /y", "2"),
        ("GET c.b.a.com /z", "3"),
        ("GET .a.com /x", "3"),
        ("GET else /x", "3"),
        ("GET [::1]:80 /six", "4"),
        ("GET [::1] /six", "4"),
    ] {
        assert_eq!(found(routes, request), expected, "{request}");
    }
    let long = format!("GET {}.A.com /x", "a".repeat(300));
    assert_eq!(found(routes, &long), "3");
}

#[test]
fn the_method_decides_last() {
    let routes = &["/x GET HEAD", "/x POST", "/*", "/y GET", "/y"];
    assert_eq!(found(routes, "GET h /x"), "0");
    assert_eq!(found(routes, "POST h /x"), "1");
    assert_eq!(found(routes, "PUT h /x"), "allow GET, HEAD, POST");
    assert_eq!(found(routes, "GET h /y"), "3");
    assert_eq!(found(routes, "PUT h /y"), "4");
}

#[test]
fn a_path_may_be_any_bytes() {
    let routes = [route("/*"), route("~^/x.$")];
    let router = router(&routes);
    assert_eq!(router.find("h", b"/x\xff", "GET"), Found::Route(1));
    assert_eq!(router.find("h", b"/\xff\xfe", "GET"), Found::Route(0));
}

/// The same rules, written as they are said.
fn oracle(routes: &[Route], host: &str, path: &str) -> Option<usize> {
    let fits = |route: &&Route| match &route.host {
        HostPattern::Any => false,
        HostPattern::Exact(name) => name == host,
        HostPattern::Wildcard(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
    };
    let rank = |route: &Route| match &route.host {
        HostPattern::Exact(_) => usize::MAX,
        HostPattern::Wildcard(suffix) => suffix.len(),
        HostPattern::Any => 0,
    };
    let best = routes
        .iter()
        .filter(fits)
        .max_by_key(|route| rank(route))
        .map(|route| &route.host);
    let own = best.and_then(|best| oracle_path(routes, best, path));
    own.or_else(|| oracle_path(routes, &HostPattern::Any, path))
}

fn oracle_path(routes: &[Route], host: &HostPattern, path: &str) -> Option<usize> {
    let of_host = || {
        routes
            .iter()
            .enumerate()
            .filter(|(_, route)| route.host == *host)
    };
    let exact = |route: &Route| matches!(&route.path, Some(PathPattern::Exact(own)) if own == path);
    if let Some((index, _)) = of_host().find(|(_, route)| exact(route)) {
        return Some(index);
    }
    let mut longest: Option<(usize, &str)> = None;
    for (index, route) in of_host() {
        if let Some(PathPattern::Prefix { prefix, .. }) = &route.path
            && path.starts_with(prefix)
            && longest.is_none_or(|(_, known)| prefix.len() > known.len())
        {
            longest = Some((index, prefix));
        }
    }
    let is_final = |route: &Route, longest: &str| matches!(&route.path, Some(PathPattern::Prefix { prefix, is_final: true }) if prefix == longest);
    let skip =
        longest.is_some_and(|(_, longest)| of_host().any(|(_, route)| is_final(route, longest)));
    let regex = of_host().find(|(_, route)| {
        matches!(&route.path, Some(PathPattern::Regex(regex)) if regex.is_match(path.as_bytes()))
    });
    match regex {
        Some((index, _)) if !skip => Some(index),
        _ => longest.map(|(index, _)| index),
    }
}

fn any_path() -> impl Strategy<Value = String> {
    collection::vec(prop_oneof![Just('/'), Just('a'), Just('b')], 0..6)
        .prop_map(|rest| format!("/{}", rest.into_iter().collect::<String>()))
}

fn any_route() -> impl Strategy<Value = Route> {
    let host = prop_oneof![Just(""), Just("a.b "), Just("*.b "), Just("*.a.b ")];
    let regex = prop_oneof![Just("~a$"), Just("~^/b"), Just("~/a/")];
    let path = prop_oneof![
        any_path(),
        any_path().prop_map(|path| path + "*"),
        any_path().prop_map(|path| format!("^{path}*")),
        regex.prop_map(str::to_owned),
    ];
    (host, path).prop_map(|(host, path)| route(&format!("{host}{path}")))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn finds_what_the_oracle_finds(
        routes in collection::vec(any_route(), 0..24),
        path in any_path(),
        host in prop_oneof![Just("a.b"), Just("x.b"), Just("x.a.b"), Just("b"), Just("c")],
        upper in any::<bool>(),
    ) {
        let asked = if upper { host.to_uppercase() } else { host.to_owned() };
        let expected = oracle(&routes, host, &path).map_or(Found::None, Found::Route);
        assert_eq!(router(&routes).find(&asked, &path, "GET"), expected);
    }
}
