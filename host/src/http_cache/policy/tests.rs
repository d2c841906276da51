//! What may be kept and for how long, rule by rule.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::{Asked, Lifetime, client_takes, judge};
use crate::config::model::HttpCache as Rules;

/// 2026-11-26 10:00:00 GMT.
const NOW: u64 = 1_795_687_200_000;

fn rules() -> Rules {
    Rules {
        cache: 0,
        key: None,
        methods: vec!["GET".into(), "HEAD".into()],
        bypass: Vec::new(),
        no_store: Vec::new(),
        valid: Vec::new(),
        heuristic: 0,
        revalidate: 7_000,
        stale: 9_000,
        retry: 0,
        uncacheable: Duration::from_secs(10),
        min_uses: 1,
        ignore: Vec::new(),
        body_limit: 1000,
        variants: 16,
        tags: Vec::new(),
        status_header: None,
        client_directives: false,
        finish: true,
    }
}

fn headers(lines: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    headers
}

fn life(rules: &Rules, status: u16, authorized: bool, lines: &[&str]) -> Option<Lifetime> {
    let method = Method::GET;
    let asked = Asked {
        method: &method,
        authorized,
    };
    judge(rules, asked, status, &headers(lines), NOW)
}

fn fresh(rules: &Rules, status: u16, lines: &[&str]) -> Option<u64> {
    life(rules, status, false, lines).map(|life| life.fresh)
}

#[test]
fn the_answer_says_how_long() {
    let plain = Rules {
        revalidate: 0,
        ..rules()
    };
    for (lines, expected) in [
        (&["Cache-Control: max-age=60"][..], Some(60_000)),
        (&["Cache-Control: max-age=60, s-maxage=5"], Some(5_000)),
        (&["Cache-Control: Max-Age=60"], Some(60_000)),
        (&["Cache-Control: max-age=60", "Age: 20"], Some(40_000)),
        (&["Cache-Control: max-age=60", "Age: 60"], None),
        (&["Expires: Thu, 26 Nov 2026 10:01:00 GMT"], Some(60_000)),
        (&["Expires: 0"], None),
        (
            &[
                "Expires: Thu, 26 Nov 2026 10:01:00 GMT",
                "Cache-Control: max-age=5",
            ],
            Some(5_000),
        ),
        (
            &["X-Accel-Expires: 9", "Cache-Control: no-store"],
            Some(9_000),
        ),
        (&["X-Accel-Expires: @1795687207"], Some(7_000)),
        (&["X-Accel-Expires: 0", "Cache-Control: max-age=9"], None),
        (
            &["Cache-Control: max-age=60, proxy-revalidate"],
            Some(60_000),
        ),
        (&["Cache-Control: max-age=60, no-store"], None),
        (&["Cache-Control: private, max-age=60"], None),
        (&["Cache-Control: no-cache, max-age=60"], None),
        (&["Cache-Control: max-age=60", "Set-Cookie: a=b"], None),
        (&["Cache-Control: max-age=60", "Vary: a, *"], None),
        (&["Cache-Control: max-age=60", "Content-Length: 1001"], None),
        (&["Last-Modified: Thu, 26 Nov 2026 09:00:00 GMT"], None),
        (&[], None),
    ] {
        assert_eq!(fresh(&plain, 200, lines), expected, "{lines:?}");
    }
    for status in [206, 304, 500, 101] {
        let lines = ["Cache-Control: max-age=60"];
        assert_eq!(fresh(&plain, status, &lines), None, "{status}");
    }
}

#[test]
fn the_configuration_says_it_where_the_answer_does_not() {
    let rules = Rules {
        valid: vec![(Some(200), 60_000), (None, 1_000)],
        heuristic: 10,
        ..rules()
    };
    assert_eq!(fresh(&rules, 200, &[]), Some(60_000));
    assert_eq!(fresh(&rules, 503, &[]), Some(1_000));
    assert_eq!(
        fresh(&rules, 200, &["Cache-Control: max-age=5"]),
        Some(5_000)
    );
    for line in [
        "Cache-Control: private",
        "Cache-Control: no-cache",
        "Pragma: no-cache",
    ] {
        assert_eq!(fresh(&rules, 200, &[line]), None, "{line}");
    }
    let guess = Rules {
        valid: Vec::new(),
        ..rules.clone()
    };
    let modified = "Last-Modified: Thu, 26 Nov 2026 09:00:00 GMT";
    assert_eq!(fresh(&guess, 200, &[modified]), Some(360_000));
    let ignoring = Rules {
        ignore: ["cache-control", "set-cookie", "vary"]
            .map(str::to_owned)
            .to_vec(),
        ..rules
    };
    let lines = ["Cache-Control: no-store", "Set-Cookie: a=b", "Vary: *"];
    assert_eq!(fresh(&ignoring, 200, &lines), Some(60_000));
}

#[test]
fn stale_answers_serve_as_far_as_the_answer_lets_them() {
    let windows = |lines: &[&str]| {
        let life = life(&rules(), 200, false, lines).unwrap();
        (life.revalidate, life.stale)
    };
    for (line, expected) in [
        ("max-age=9", (7_000, 9_000)),
        (
            "max-age=9, stale-while-revalidate=1, stale-if-error=2",
            (1_000, 2_000),
        ),
        ("max-age=9, must-revalidate", (0, 0)),
        ("max-age=9, proxy-revalidate, stale-if-error=2", (0, 0)),
        ("s-maxage=9", (0, 0)),
        ("s-maxage=9, stale-if-error=2", (0, 2_000)),
        ("max-age=0, stale-while-revalidate=3", (3_000, 9_000)),
    ] {
        let line = format!("Cache-Control: {line}");
        assert_eq!(windows(&[&line]), expected, "{line}");
    }
}

#[test]
fn an_answer_to_a_password_is_for_others_only_if_it_says_so() {
    for (line, expected) in [
        ("max-age=9", false),
        ("max-age=9, public", true),
        ("s-maxage=9", true),
        ("max-age=9, must-revalidate", true),
    ] {
        let line = format!("Cache-Control: {line}");
        let life = life(&rules(), 200, true, &[&line]);
        assert_eq!(life.is_some_and(|life| life.public), expected, "{line}");
    }
}

#[test]
fn a_client_may_ask_for_less_if_it_is_let() {
    let takes = |line: &str, age, left| client_takes(&headers(&[line]), age, left);
    assert!(takes("Cache-Control: max-age=10", 10, 0));
    assert!(!takes("Cache-Control: max-age=10", 11, 0));
    assert!(takes("Cache-Control: min-fresh=5", 0, 5_000));
    assert!(!takes("Cache-Control: min-fresh=5", 0, 4_999));
    assert!(!takes("Cache-Control: no-cache", 0, 9));
    assert!(!takes("Pragma: no-cache", 0, 9));
    assert!(takes("Accept: x", 99, -1));
}
