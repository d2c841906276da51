//! Redis' values as the contract has them: a single one stays single, a nested one becomes a list.

use super::super::bindings::phasor::plugin::redis as wit;
use crate::redis::{self, Value};

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// A value without others in it; the nested ones come back.
fn single(value: Value) -> Result<wit::Value, Value> {
    Ok(match value {
        Value::Nil => wit::Value::Nil,
        Value::Int(number) => wit::Value::Integer(number),
        Value::BulkString(bytes) => wit::Value::Bytes(bytes),
        Value::SimpleString(text) => wit::Value::Status(text),
        Value::Okay => wit::Value::Status("OK".to_owned()),
        Value::Double(number) => wit::Value::Double(number),
        Value::Boolean(truth) => wit::Value::Boolean(truth),
        Value::VerbatimString { text, .. } => wit::Value::Bytes(text.into_bytes()),
        Value::BigNumber(digits) => wit::Value::Bytes(digits),
        Value::ServerError(_) => wit::Value::Failed(redis::failure(&value).unwrap_or_default()),
        Value::Attribute { data, .. } => return single(*data),
        nested => return Err(nested),
    })
}

/// Depth first; the protocol's own reader bounds the depth.
fn flatten(value: Value, out: &mut Vec<wit::Value>) {
    match single(value) {
        Ok(value) => out.push(value),
        Err(Value::Array(values) | Value::Push { data: values, .. }) => {
            out.push(wit::Value::BeginList(count(values.len())));
            values.into_iter().for_each(|value| flatten(value, out));
        }
        Err(Value::Set(values)) => {
            out.push(wit::Value::BeginSet(count(values.len())));
            values.into_iter().for_each(|value| flatten(value, out));
        }
        Err(Value::Map(pairs)) => {
            out.push(wit::Value::BeginMap(count(pairs.len())));
            for (key, value) in pairs {
                flatten(key, out);
                flatten(value, out);
            }
        }
        // The crate may learn new kinds.
        Err(_) => out.push(wit::Value::Nil),
    }
}

/// A reply.
pub(super) fn reply(value: Value) -> wit::Reply {
    match single(value) {
        Ok(value) => wit::Reply::Single(value),
        Err(nested) => {
            let mut all = Vec::new();
            flatten(nested, &mut all);
            wit::Reply::Nested(all)
        }
    }
}
