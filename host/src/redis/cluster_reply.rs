//! What a cluster's node says of the cluster: which ranges of slots are where, and that a key is
//! elsewhere.

use ::redis::Value;

use crate::config::model::RedisAddress;

/// Slots of one master.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) master: RedisAddress,
}

/// Where a key is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Redirect {
    /// Only this command (`ASK`): the slot is being moved.
    pub(super) ask: bool,
    pub(super) slot: u16,
    pub(super) address: RedisAddress,
}

/// An address as a node writes it: a host that is left out is the node's own.
fn address(host: &str, port: u16, of: Option<&RedisAddress>) -> Option<RedisAddress> {
    match (host, of) {
        ("" | "?", Some(RedisAddress::Tcp(own, _))) => Some(RedisAddress::Tcp(own.clone(), port)),
        ("" | "?", _) => None,
        _ => Some(RedisAddress::Tcp(host.to_owned(), port)),
    }
}

/// `MOVED 3999 127.0.0.1:6381` or `ASK …`; `of` is the node that says so.
pub(super) fn redirect(text: &str, of: Option<&RedisAddress>) -> Option<Redirect> {
    let mut words = text.split(' ');
    let ask = match words.next()? {
        "MOVED" => false,
        "ASK" => true,
        _ => return None,
    };
    let slot = words.next()?.parse().ok()?;
    let (host, port) = words.next()?.rsplit_once(':')?;
    let address = address(host, port.parse().ok()?, of)?;
    Some(Redirect { ask, slot, address })
}

fn number(value: &Value) -> Option<u16> {
    match value {
        Value::Int(number) => u16::try_from(*number).ok(),
        _ => None,
    }
}

fn range(value: &Value, of: Option<&RedisAddress>) -> Option<Range> {
    let Value::Array(parts) = value else {
        return None;
    };
    let [first, last, Value::Array(master), ..] = parts.as_slice() else {
        return None;
    };
    let (host, port) = (master.first()?, number(master.get(1)?)?);
    let host = match host {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        _ => String::new(),
    };
    Some(Range {
        first: number(first)?,
        last: number(last)?,
        master: address(&host, port, of)?,
    })
}

/// The answer to `CLUSTER SLOTS`.
pub(super) fn ranges(value: &Value, of: Option<&RedisAddress>) -> Vec<Range> {
    match value {
        Value::Array(values) => values.iter().filter_map(|value| range(value, of)).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Range, Redirect, ranges, redirect};
    use crate::config::model::RedisAddress;
    use ::redis::Value;

    fn tcp(host: &str, port: u16) -> RedisAddress {
        RedisAddress::Tcp(host.to_owned(), port)
    }

    #[test]
    fn reads_where_a_key_is() {
        let own = tcp("node", 1);
        let some = |ask, slot, address| Some(Redirect { ask, slot, address });
        let of = Some(&own);
        assert_eq!(
            redirect("MOVED 3999 10.0.0.1:6381", of),
            some(false, 3999, tcp("10.0.0.1", 6381))
        );
        assert_eq!(redirect("ASK 1 ::1:7", of), some(true, 1, tcp("::1", 7)));
        assert_eq!(redirect("MOVED 1 :7", of), some(false, 1, tcp("node", 7)));
        for wrong in ["", "MOVED", "MOVED 1", "MOVED x a:1", "MOVED 1 a:x", "ERR"] {
            assert_eq!(redirect(wrong, of), None, "{wrong}");
        }
    }

    #[test]
    fn reads_who_has_which_slots() {
        let own = tcp("node", 1);
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let node = |host| Value::Array(vec![host, Value::Int(7), text("id")]);
        let entry = |first, last, host| {
            Value::Array(vec![
                Value::Int(first),
                Value::Int(last),
                node(host),
                node(text("replica")),
            ])
        };
        let all = Value::Array(vec![
            entry(0, 5, text("a")),
            entry(6, 9, Value::Nil),
            entry(70_000, 9, text("b")),
            Value::Nil,
        ]);
        let expected =
            [(0, 5, tcp("a", 7)), (6, 9, tcp("node", 7))].map(|(first, last, master)| Range {
                first,
                last,
                master,
            });
        assert_eq!(ranges(&all, Some(&own)), expected);
        assert_eq!(ranges(&Value::Nil, Some(&own)), []);
    }
}
