//! The heads of a proxied request and its answer: what belongs to one connection only stays there
//! (RFC 9110, section 7.6.1), the rest passes, by nginx's defaults.

use http::header::{
    CONNECTION, CONTENT_LENGTH, DATE, EXPECT, HOST, HeaderName, HeaderValue, LOCATION, SERVER, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Uri};

use super::Proxy;
use crate::exchange::head::PATH;
use crate::exchange::{Request, variable};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Takes out what speaks of one connection: the known names, and those that `Connection` names.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
}

/// The protocol that the client wants in place of HTTP (RFC 9110, section 7.8). Another HTTP is never
/// passed on: behind it requests would reach the peer that no route has seen.
#[must_use]
pub fn asks_upgrade(request: &Request) -> Option<HeaderValue> {
    if request.version != http::Version::HTTP_11 {
        return None;
    }
    let mut named = request
        .headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    if !named.any(|name| name.trim().eq_ignore_ascii_case("upgrade")) {
        return None;
    }
    let mut protocols = request.headers.get_all(UPGRADE).iter();
    let (Some(protocol), None) = (protocols.next(), protocols.next()) else {
        return None;
    };
    let is_http = |name: &str| {
        let name = name.trim().to_ascii_lowercase();
        name.starts_with("h2") || name.starts_with("http") || name.starts_with("tls")
    };
    let passes = !protocol.to_str().ok()?.split(',').any(is_http);
    passes.then(|| protocol.clone())
}

/// The path and query that the peer is asked for.
fn target(proxy: &Proxy, request: &Request) -> Option<PathAndQuery> {
    let Some(base) = &proxy.base else {
        return Some(request.target.clone());
    };
    let path = request.target.path();
    let rest = match path.strip_prefix(&proxy.prefix) {
        Some(rest) => rest.to_owned(),
        // Written otherwise (`/a/../api/x`, `/%61pi/x`): the path that the route was found by.
        None => {
            let normal = variable::normal_path(request)?;
            let rest = normal.strip_prefix(proxy.prefix.as_bytes())?;
            percent_encoding::percent_encode(rest, PATH).to_string()
        }
    };
    let query = request.target.query();
    let whole = match query {
        Some(query) => format!("{base}{rest}?{query}"),
        None => format!("{base}{rest}"),
    };
    PathAndQuery::try_from(whole).ok()
}

/// The head that goes to the peer; `None` when its URI cannot be.
#[must_use]
pub fn request_head(proxy: &Proxy, request: &Request) -> Option<(Method, Uri, HeaderMap)> {
    let uri = Uri::builder()
        .scheme(proxy.scheme.clone())
        .authority(proxy.authority.clone())
        .path_and_query(target(proxy, request)?)
        .build()
        .ok()?;
    let mut headers = request.headers.clone();
    let upgrade = asks_upgrade(request);
    strip_hop_by_hop(&mut headers);
    if let Some(protocol) = upgrade {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    // The length is the body's own matter, `Expect` was answered here.
    headers.remove(CONTENT_LENGTH);
    headers.remove(EXPECT);
    headers.insert(HOST, host(proxy)?);
    Some((request.method.clone(), uri, headers))
}

/// nginx's `$proxy_host`: without the port where that is the scheme's own.
fn host(proxy: &Proxy) -> Option<HeaderValue> {
    let own = if proxy.scheme == http::uri::Scheme::HTTPS {
        443
    } else {
        80
    };
    match proxy.authority.port_u16() {
        Some(port) if port == own => HeaderValue::from_str(proxy.authority.host()).ok(),
        _ => HeaderValue::from_str(proxy.authority.as_str()).ok(),
    }
}

/// The answer's head as the client gets it.
pub fn answer_head(proxy: &Proxy, headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    headers.remove(SERVER);
    headers.remove(DATE);
    if let Some(location) = headers.get(LOCATION).and_then(|v| v.to_str().ok())
        && let Some(own) = relocate(proxy, location)
    {
        headers.insert(LOCATION, own);
    }
}

/// A place of the peer's becomes one of ours (nginx: `proxy_redirect default`).
fn relocate(proxy: &Proxy, location: &str) -> Option<HeaderValue> {
    let theirs = format!("{}://{}", proxy.scheme, proxy.authority);
    let rest = location.strip_prefix(&theirs)?;
    let (base, prefix) = match &proxy.base {
        Some(base) => (base.as_str(), proxy.prefix.as_str()),
        None => ("/", "/"),
    };
    HeaderValue::from_str(&format!("{prefix}{}", rest.strip_prefix(base)?)).ok()
}

#[cfg(test)]
mod tests {
    use super::{answer_head, request_head, strip_hop_by_hop};
    use crate::exchange::Request;
    use crate::http_client::Settings;
    use crate::upstream::Proxy;
    use http::HeaderMap;
    use std::time::Duration;

    fn proxy(base: Option<&str>, prefix: &str) -> Proxy {
        Proxy {
            scheme: http::uri::Scheme::HTTP,
            authority: "peer:8081".parse().unwrap(),
            base: base.map(str::to_owned),
            prefix: prefix.to_owned(),
            send_timeout: Duration::ZERO,
            read_timeout: Duration::ZERO,
            client: Settings {
                idle: 0,
                idle_timeout: Duration::ZERO,
                connect_timeout: Duration::ZERO,
                http2: false,
                ca: None,
                connections: None,
            },
        }
    }

    fn uri(proxy: &Proxy, target: &str) -> Option<String> {
        let mut request = Request::default();
        request.set_target(target).unwrap();
        request_head(proxy, &request).map(|(_, uri, _)| uri.to_string())
    }

    #[test]
    fn the_base_takes_the_place_of_the_prefix() {
        let with = proxy(Some("/base/"), "/api/");
        let some = |path: &str| Some(format!("http://peer:8081{path}"));
        assert_eq!(uri(&with, "/api/a%20b?x=%20"), some("/base/a%20b?x=%20"));
        assert_eq!(uri(&with, "/x/../api/a%2Fb"), some("/base/a/b"));
        assert_eq!(uri(&with, "/%61pi/%25?"), some("/base/%25?"));
        assert_eq!(uri(&proxy(None, "/api/"), "/api//./a"), some("/api//./a"));
    }

    #[test]
    fn what_belongs_to_a_connection_stays_there() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("upgrade", "x"),
            ("transfer-encoding", "chunked"),
            ("x-other", "2"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.len(), 1);
    }

    #[test]
    fn an_upgrade_passes_unless_it_is_http_again() {
        let asked = |connection: &str, upgrade: &str| {
            let mut request = Request {
                version: http::Version::HTTP_11,
                ..Request::default()
            };
            let headers = &mut request.headers;
            headers.insert("connection", connection.parse().unwrap());
            headers.insert("upgrade", upgrade.parse().unwrap());
            let peer = proxy(None, "/");
            let (_, _, sent) = request_head(&peer, &request).unwrap();
            sent.contains_key("connection")
                .then(|| sent["upgrade"].clone())
        };
        assert_eq!(
            asked("keep-alive, Upgrade", "websocket").unwrap(),
            "websocket"
        );
        assert_eq!(asked("keep-alive", "websocket"), None);
        assert_eq!(asked("upgrade, HTTP2-Settings", "h2c"), None);
        assert_eq!(asked("upgrade", "websocket, HTTP/2.0"), None);
    }

    #[test]
    fn a_redirect_to_the_peer_leads_here() {
        let mut headers = HeaderMap::new();
        headers.insert("location", "http://peer:8081/base/x?y".parse().unwrap());
        answer_head(&proxy(Some("/base/"), "/api/"), &mut headers);
        assert_eq!(headers["location"], "/api/x?y");
        headers.insert("location", "http://other/base/x".parse().unwrap());
        answer_head(&proxy(Some("/base/"), "/api/"), &mut headers);
        assert_eq!(headers["location"], "http://other/base/x");
    }
}
