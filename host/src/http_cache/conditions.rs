//! A client's conditions against a stored answer (RFC 9110, section 13, as RFC 9111, section 4.3.2
//! leaves them to a cache): whether it has this answer already, and whether a range of it is what it
//! wants.

use http::header::{
    ETAG, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
    LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, HeaderValue};

/// What a request asks of a representation that its maker is not to see: a stored answer is a whole.
pub const CONDITIONS: [HeaderName; 4] = [IF_NONE_MATCH, IF_MODIFIED_SINCE, RANGE, IF_RANGE];

/// Whether a request has conditions that only its source can judge.
#[must_use]
pub fn is_for_source(request: &HeaderMap) -> bool {
    request.contains_key(IF_MATCH) || request.contains_key(IF_UNMODIFIED_SINCE)
}

/// The entity tags of a list; a comma inside quotes is a part of the tag.
fn tags(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    value
        .split(move |byte| {
            quoted ^= *byte == b'"';
            *byte == b',' && !quoted
        })
        .map(<[u8]>::trim_ascii)
        .filter(|tag| !tag.is_empty())
}

fn strong(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

fn date(value: Option<&HeaderValue>) -> Option<std::time::SystemTime> {
    httpdate::parse_http_date(value?.to_str().ok()?).ok()
}

/// Whether the client has the answer already: then 304 says so.
#[must_use]
pub fn is_not_modified(request: &HeaderMap, answer: &HeaderMap) -> bool {
    if request.contains_key(IF_NONE_MATCH) {
        let own = answer.get(ETAG).map(HeaderValue::as_bytes);
        return request.get_all(IF_NONE_MATCH).iter().any(|value| {
            tags(value.as_bytes())
                .any(|tag| tag == b"*" || own.is_some_and(|own| strong(own) == strong(tag)))
        });
    }
    match (
        date(request.get(IF_MODIFIED_SINCE)),
        date(answer.get(LAST_MODIFIED)),
    ) {
        (Some(since), Some(modified)) => modified <= since,
        _ => false,
    }
}

/// The range that the client wants of this very answer.
#[must_use]
pub fn range<'r>(request: &'r HeaderMap, answer: &HeaderMap) -> Option<&'r HeaderValue> {
    let range = request.get(RANGE)?;
    let Some(condition) = request.get(IF_RANGE) else {
        return Some(range);
    };
    let same = if condition.as_bytes().contains(&b'"') {
        // A weak tag does not say that the bytes are the same.
        answer.get(ETAG) == Some(condition) && !condition.as_bytes().starts_with(b"W/")
    } else {
        date(Some(condition)).is_some_and(|date_| date(answer.get(LAST_MODIFIED)) == Some(date_))
    };
    same.then_some(range)
}

#[cfg(test)]
mod tests {
    use super::{is_not_modified, range};
    use http::{HeaderMap, HeaderName};

    fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    const DATE: &str = "Thu, 26 Nov 2026 10:00:00 GMT";
    const LATER: &str = "Thu, 26 Nov 2026 10:00:01 GMT";

    #[test]
    fn a_client_that_has_it_is_told_so() {
        let answer = map(&[("etag", "W/\"a,b\""), ("last-modified", DATE)]);
        let asks = |name, value| is_not_modified(&map(&[(name, value)]), &answer);
        assert!(asks("if-none-match", "\"x\", \"a,b\""));
        assert!(asks("if-none-match", "W/\"a,b\""));
        assert!(asks("if-none-match", "*"));
        assert!(!asks("if-none-match", "\"a\", \"b\""));
        assert!(asks("if-modified-since", DATE));
        assert!(asks("if-modified-since", LATER));
        assert!(!asks("if-modified-since", "Thu, 26 Nov 2026 09:59:59 GMT"));
        assert!(!asks("if-modified-since", "yesterday"));
        // The tag decides where both are there.
        let both = map(&[("if-none-match", "\"x\""), ("if-modified-since", DATE)]);
        assert!(!is_not_modified(&both, &answer));
        let plain = map(&[("if-none-match", "\"x\"")]);
        assert!(!is_not_modified(&plain, &HeaderMap::new()));
    }

    #[test]
    fn a_range_is_of_the_same_answer() {
        let answer = map(&[("etag", "\"a\""), ("last-modified", DATE)]);
        let weak = map(&[("etag", "W/\"a\"")]);
        let asks = |condition: &str, answer: &HeaderMap| {
            let request = map(&[("range", "bytes=0-1"), ("if-range", condition)]);
            range(&request, answer).is_some()
        };
        assert!(range(&map(&[("range", "bytes=0-1")]), &answer).is_some());
        assert!(asks("\"a\"", &answer));
        assert!(!asks("\"b\"", &answer));
        assert!(!asks("W/\"a\"", &weak));
        assert!(asks(DATE, &answer));
        assert!(!asks(LATER, &answer));
    }
}
