//! `Vary`: the headers of a request by which the answers of one URI are told apart (RFC 9111, section
//! 4.1), in a form in which requests that mean the same have the same key.

use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, HeaderName, VARY};

/// The longest values together; whoever sends more gets an answer that is not kept.
const VALUES: usize = 8192;

/// What an answer says of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Says {
    /// There is one answer.
    Nothing,
    /// They differ by these, sorted.
    Names(Vec<HeaderName>),
    /// No request is like another.
    Any,
}

/// Reads `Vary`.
#[must_use]
pub fn says(answer: &HeaderMap) -> Says {
    let mut names = Vec::new();
    for value in answer.get_all(VARY) {
        for name in value.as_bytes().split(|byte| *byte == b',') {
            let name = name.trim_ascii();
            if name.is_empty() {
                continue;
            }
            match HeaderName::from_bytes(name) {
                Ok(name) if name.as_str() != "*" => names.push(name),
                // What cannot be read may be anything.
                _ => return Says::Any,
            }
        }
    }
    names.sort_by(|one, two| one.as_str().cmp(two.as_str()));
    names.dedup();
    if names.is_empty() {
        Says::Nothing
    } else {
        Says::Names(names)
    }
}

/// A request's values of these headers, as a part of a key; `None` when they are too long for one.
#[must_use]
pub fn values(names: &[HeaderName], request: &HeaderMap) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for name in names {
        let mut parts: Vec<Vec<u8>> = request
            .get_all(name)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .map(|part| part.trim_ascii().to_vec())
            .collect();
        if name == ACCEPT_ENCODING {
            // Which codings a client names first, and how it writes them, makes no difference.
            for part in &mut parts {
                part.make_ascii_lowercase();
                part.retain(|byte| *byte != b' ');
            }
            parts.sort();
            parts.dedup();
        }
        // No header and an empty one are two things.
        out.push(u8::from(request.contains_key(name)));
        for part in parts {
            let length = u32::try_from(part.len()).ok()?;
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&part);
        }
        out.push(0xff);
        if out.len() > VALUES {
            return None;
        }
    }
    Some(out)
}

/// A number for values (FNV-1a): it only counts how many there are, and need not be secret.
#[must_use]
pub fn number(values: &[u8]) -> u64 {
    values.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::{Says, says, values};
    use http::header::{ACCEPT_ENCODING, HeaderName};
    use http::{HeaderMap, HeaderValue};

    fn vary(values: &[&'static str]) -> Says {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("vary", HeaderValue::from_static(value));
        }
        says(&headers)
    }

    #[test]
    fn the_names_are_read() {
        assert_eq!(vary(&[]), Says::Nothing);
        assert_eq!(vary(&[" , "]), Says::Nothing);
        let both = Says::Names(vec![ACCEPT_ENCODING, HeaderName::from_static("x-b")]);
        assert_eq!(vary(&["X-B, accept-encoding", "x-b"]), both);
        assert_eq!(vary(&["Accept", "*"]), Says::Any);
        assert_eq!(vary(&["a b"]), Says::Any);
    }

    #[test]
    fn requests_that_mean_the_same_have_one_key() {
        let key = |name: &'static str, sent: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in sent {
                headers.append(name, HeaderValue::from_static(value));
            }
            values(&[HeaderName::from_static(name)], &headers)
        };
        let plain = key("accept-encoding", &["gzip, br"]);
        assert_eq!(key("accept-encoding", &["br", "GZIP"]), plain);
        assert_ne!(key("accept-encoding", &["gzip"]), plain);
        assert_ne!(key("x-a", &["a, b"]), key("x-a", &["b, a"]));
        assert_ne!(key("x-a", &["ab"]), key("x-a", &["a", "b"]));
        assert_ne!(key("x-a", &[]), key("x-a", &[""]));
        let long = vec![b'a'; 9000];
        let mut headers = HeaderMap::new();
        headers.insert("x-a", HeaderValue::from_bytes(&long).unwrap());
        assert_eq!(values(&[HeaderName::from_static("x-a")], &headers), None);
    }
}
