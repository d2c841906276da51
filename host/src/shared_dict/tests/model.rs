//! A dict that does the obvious thing, to be compared with the one that is fast.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

use crate::shared_dict::{DictError, Entry, Mode, SharedDict, Side, Store, Value};

#[derive(Debug, Clone)]
enum Operation {
    Get(u8, bool),
    Store(u8, Mode, Value, u64),
    Incr(u8, Option<(f64, u64)>),
    Delete(u8),
    Ttl(u8),
    Expire(u8, u64),
    Push(u8, Side, Value),
    Pop(u8, Side),
    Len(u8),
    FlushAll,
    FlushExpired,
    Keys,
    Wait(u64),
}

fn operations() -> impl Strategy<Value = Operation> {
    let key = 0..6_u8;
    let ttl = prop_oneof![Just(0_u64), 1..20_u64];
    let side = || prop_oneof![Just(Side::Left), Just(Side::Right)];
    let value = || {
        prop_oneof![
            Just(Value::Nil),
            any::<bool>().prop_map(Value::Boolean),
            (0..9_u8).prop_map(|number| Value::Number(f64::from(number))),
            (0..40_usize).prop_map(|length| Value::Bytes(Bytes::from(vec![b'x'; length]))),
        ]
    };
    let modes = [
        Mode::Set,
        Mode::SafeSet,
        Mode::Add,
        Mode::SafeAdd,
        Mode::Replace,
    ];
    let mode = (0..5_usize).prop_map(move |index| modes[index]);
    let init = prop_oneof![Just(None), ttl.clone().prop_map(|ttl| Some((1.0, ttl)))];
    prop_oneof![
        4 => (key.clone(), any::<bool>()).prop_map(|(key, stale)| Operation::Get(key, stale)),
        6 => (key.clone(), mode, value(), ttl.clone()).prop_map(|(key, mode, value, ttl)| Operation::Store(key, mode, value, ttl)),
        2 => (key.clone(), init).prop_map(|(key, init)| Operation::Incr(key, init)),
        1 => key.clone().prop_map(Operation::Delete),
        1 => key.clone().prop_map(Operation::Ttl),
        1 => (key.clone(), ttl).prop_map(|(key, ttl)| Operation::Expire(key, ttl)),
        4 => (key.clone(), side(), value()).prop_map(|(key, side, value)| Operation::Push(key, side, value)),
        3 => (key.clone(), side()).prop_map(|(key, side)| Operation::Pop(key, side)),
        1 => key.prop_map(Operation::Len),
        1 => Just(Operation::FlushAll),
        1 => Just(Operation::FlushExpired),
        1 => Just(Operation::Keys),
        3 => (0..8_u64).prop_map(Operation::Wait),
    ]
}

#[derive(Debug, Clone, PartialEq)]
enum Held {
    Plain(Value),
    List(VecDeque<Value>),
}

#[derive(Debug, Clone)]
struct Row {
    held: Held,
    expires: Option<u64>,
}

/// Nothing is ever evicted: the model is compared with a dict that has room.
#[derive(Debug, Default)]
struct Model {
    rows: BTreeMap<Vec<u8>, Row>,
}

impl Model {
    fn live(&mut self, key: &[u8], now: u64) -> Option<&mut Row> {
        self.rows
            .get_mut(key)
            .filter(|row| row.expires.is_none_or(|at| at > now))
    }

    fn get(&mut self, key: &[u8], with_stale: bool, now: u64) -> Result<Option<Entry>, DictError> {
        let stale = self.live(key, now).is_none();
        match self
            .rows
            .get(key)
            .filter(|_| with_stale || !stale)
            .map(|row| &row.held)
        {
            None => Ok(None),
            Some(Held::List(_)) => Err(DictError::IsAList),
            Some(Held::Plain(value)) => Ok(Some(Entry {
                value: value.clone(),
                flags: 0,
                stale,
            })),
        }
    }

    fn store(&mut self, key: &[u8], value: Value, how: Store, now: u64) -> Result<bool, DictError> {
        let live = self.live(key, now).is_some();
        match how.mode {
            Mode::Add | Mode::SafeAdd | Mode::Replace if value == Value::Nil => {
                return Err(DictError::BadValue);
            }
            Mode::Add | Mode::SafeAdd if live => return Err(DictError::Exists),
            Mode::Replace if !live => return Err(DictError::NotFound),
            _ => {}
        }
        if value == Value::Nil {
            self.rows.remove(key);
        } else {
            let expires = (how.ttl != 0).then_some(now + how.ttl);
            self.rows.insert(
                key.to_vec(),
                Row {
                    held: Held::Plain(value),
                    expires,
                },
            );
        }
        Ok(false)
    }

    fn incr(
        &mut self,
        key: &[u8],
        init: Option<(f64, u64)>,
        now: u64,
    ) -> Result<(f64, bool), DictError> {
        match self.live(key, now).map(|row| &mut row.held) {
            Some(Held::Plain(Value::Number(number))) => {
                *number += 1.0;
                Ok((*number, false))
            }
            Some(_) => Err(DictError::NotANumber),
            None => {
                let (first, ttl) = init.ok_or(DictError::NotFound)?;
                let how = Store {
                    mode: Mode::Set,
                    ttl,
                    flags: 0,
                };
                self.store(key, Value::Number(first + 1.0), how, now)?;
                Ok((first + 1.0, false))
            }
        }
    }

    fn list(&mut self, key: &[u8], now: u64) -> Result<Option<&mut VecDeque<Value>>, DictError> {
        match self.live(key, now).map(|row| &mut row.held) {
            None => Ok(None),
            Some(Held::List(list)) => Ok(Some(list)),
            Some(Held::Plain(_)) => Err(DictError::NotAList),
        }
    }

    fn push(&mut self, side: Side, key: &[u8], value: Value, now: u64) -> Result<u32, DictError> {
        if !matches!(value, Value::Number(_) | Value::Bytes(_)) {
            return Err(DictError::BadValue);
        }
        if self.list(key, now)?.is_none() {
            self.rows.insert(
                key.to_vec(),
                Row {
                    held: Held::List(VecDeque::new()),
                    expires: None,
                },
            );
        }
        let list = self.list(key, now)?.unwrap();
        match side {
            Side::Left => list.push_front(value),
            Side::Right => list.push_back(value),
        }
        Ok(u32::try_from(list.len()).unwrap())
    }

    fn pop(&mut self, side: Side, key: &[u8], now: u64) -> Result<Option<Value>, DictError> {
        let Some(list) = self.list(key, now)? else {
            return Ok(None);
        };
        let value = if side == Side::Left {
            list.pop_front()
        } else {
            list.pop_back()
        };
        if list.is_empty() {
            self.rows.remove(key);
        }
        Ok(value)
    }

    fn flush_expired(&mut self, now: u64) -> usize {
        let before = self.rows.len();
        self.rows
            .retain(|_, row| row.expires.is_none_or(|at| at > now));
        before - self.rows.len()
    }
}

#[expect(
    clippy::too_many_lines,
    reason = "one arm for each operation, none longer than it must be"
)]
fn compare(dict: &SharedDict, model: &mut Model, operation: Operation, now: &mut u64) {
    let at = *now;
    let name = |key: u8| format!("key{key}").into_bytes();
    match operation {
        Operation::Get(key, stale) => {
            assert_eq!(
                dict.get(&name(key), stale, at),
                model.get(&name(key), stale, at)
            )
        }
        Operation::Store(key, mode, value, ttl) => {
            let how = Store {
                mode,
                ttl,
                flags: 0,
            };
            assert_eq!(
                dict.store(&name(key), value.clone(), how, at),
                model.store(&name(key), value, how, at)
            );
        }
        Operation::Incr(key, init) => {
            assert_eq!(
                dict.incr(&name(key), 1.0, init, at),
                model.incr(&name(key), init, at)
            );
        }
        Operation::Delete(key) => {
            dict.delete(&name(key)).unwrap();
            model.rows.remove(&name(key));
        }
        Operation::Ttl(key) => {
            let left = |row: &mut Row| row.expires.map_or(0, |expires| expires - at);
            assert_eq!(
                dict.ttl(&name(key), at),
                model
                    .live(&name(key), at)
                    .map(left)
                    .ok_or(DictError::NotFound)
            );
        }
        Operation::Expire(key, ttl) => {
            let set = |row: &mut Row| row.expires = (ttl != 0).then_some(at + ttl);
            let expected = model
                .live(&name(key), at)
                .map(set)
                .ok_or(DictError::NotFound);
            assert_eq!(dict.expire(&name(key), ttl, at), expected);
        }
        Operation::Push(key, side, value) => {
            assert_eq!(
                dict.push(side, &name(key), value.clone(), at),
                model.push(side, &name(key), value, at)
            );
        }
        Operation::Pop(key, side) => {
            assert_eq!(
                dict.pop(side, &name(key), at),
                model.pop(side, &name(key), at)
            )
        }
        Operation::Len(key) => {
            let length = |list: Option<&mut VecDeque<Value>>| {
                list.map_or(0, |list| u32::try_from(list.len()).unwrap())
            };
            assert_eq!(
                dict.list_len(&name(key), at),
                model.list(&name(key), at).map(length)
            );
        }
        Operation::FlushAll => {
            dict.flush_all();
            model
                .rows
                .values_mut()
                .for_each(|row| row.expires = Some(0));
        }
        Operation::FlushExpired => assert_eq!(dict.flush_expired(0, at), model.flush_expired(at)),
        Operation::Keys => {
            let mut keys = dict.get_keys(0, at);
            keys.sort();
            let live = |(key, row): (&Vec<u8>, &Row)| {
                row.expires
                    .is_none_or(|expires| expires > at)
                    .then(|| key.clone())
            };
            assert_eq!(keys, model.rows.iter().filter_map(live).collect::<Vec<_>>());
        }
        Operation::Wait(milliseconds) => *now += milliseconds,
    }
}

proptest! {
    #[test]
    fn the_dict_does_what_the_model_does(operations in proptest::collection::vec(operations(), 1..200), shards in any::<bool>()) {
        let dict = SharedDict::new(if shards { 4 << 20 } else { 1 << 19 });
        let mut model = Model::default();
        let mut now = 1;
        for operation in operations {
            compare(&dict, &mut model, operation, &mut now);
        }
    }

    #[test]
    fn a_tight_dict_never_exceeds_its_capacity(operations in proptest::collection::vec(operations(), 1..300)) {
        let dict = SharedDict::new(600);
        let mut now = 1;
        for operation in operations {
            match operation {
                Operation::Store(key, mode, value, ttl) => {
                    let how = Store { mode, ttl, flags: 0 };
                    let live = dict.get_keys(0, now).len();
                    let forcible = dict.store(&[key + 1], value, how, now);
                    let safe = matches!(mode, Mode::SafeSet | Mode::SafeAdd);
                    assert!(!safe || forcible != Ok(true));
                    assert!(forcible != Ok(true) || dict.get_keys(0, now).len() <= live);
                }
                Operation::Push(key, side, value) => drop(dict.push(side, &[key + 1], value, now)),
                Operation::Pop(key, side) => drop(dict.pop(side, &[key + 1], now)),
                Operation::Delete(key) => dict.delete(&[key + 1]).unwrap(),
                Operation::FlushAll => dict.flush_all(),
                Operation::Wait(milliseconds) => now += milliseconds,
                _ => {}
            }
            let used = dict.used.load(std::sync::atomic::Ordering::Relaxed);
            assert!(used <= 600);
            assert_eq!(used == 0, dict.is_empty());
        }
        dict.flush_all();
        dict.flush_expired(0, now);
        assert_eq!(dict.free_space(), 600);
    }
}
