//! What OpenResty's manual promises of a shared dict, method by method; the same against a naive
//! model; and many threads at once.

use std::sync::Arc;

use bytes::Bytes;

use super::shard::ENTRY_COST;
use super::{
    DictError, Entry, MAX_KEY_BYTES, Mode, Registry, SharedDict, Side, Store, Value, Wanted,
};

mod model;

const ROOMY: usize = 1 << 20;

fn text(text: &'static str) -> Value {
    Value::Bytes(Bytes::from_static(text.as_bytes()))
}

fn how(mode: Mode, ttl: u64) -> Store {
    Store {
        mode,
        ttl,
        flags: 0,
    }
}

fn set(dict: &SharedDict, key: &str, value: Value, ttl: u64) -> Result<bool, DictError> {
    dict.store(key.as_bytes(), value, how(Mode::Set, ttl), 0)
}

fn value(dict: &SharedDict, key: &str, now: u64) -> Option<Value> {
    dict.get(key.as_bytes(), false, now)
        .unwrap()
        .map(|entry| entry.value)
}

#[test]
fn values_keep_their_type_and_flags() {
    let dict = SharedDict::new(ROOMY);
    for stored in [
        text("x"),
        text(""),
        Value::Number(1.5),
        Value::Boolean(false),
        Value::Boolean(true),
    ] {
        let with_flags = Store {
            mode: Mode::Set,
            ttl: 0,
            flags: 7,
        };
        assert_eq!(dict.store(b"k", stored.clone(), with_flags, 0), Ok(false));
        assert_eq!(
            dict.get(b"k", false, 9),
            Ok(Some(Entry {
                value: stored,
                flags: 7,
                stale: false
            }))
        );
    }
}

#[test]
fn modes_look_at_live_entries_only() {
    let dict = SharedDict::new(ROOMY);
    let store = |mode, now| dict.store(b"k", text("v"), how(mode, 10), now);
    assert_eq!(store(Mode::Replace, 0), Err(DictError::NotFound));
    assert_eq!(store(Mode::Add, 0), Ok(false));
    assert_eq!(store(Mode::Add, 9), Err(DictError::Exists));
    assert_eq!(store(Mode::SafeAdd, 9), Err(DictError::Exists));
    assert_eq!(store(Mode::Replace, 10), Err(DictError::NotFound));
    assert_eq!(store(Mode::SafeAdd, 10), Ok(false));
    assert_eq!(store(Mode::Replace, 19), Ok(false));
    assert_eq!(dict.ttl(b"k", 19), Ok(10));
}

#[test]
fn nil_deletes_and_cannot_be_added() {
    let dict = SharedDict::new(ROOMY);
    set(&dict, "k", text("v"), 0).unwrap();
    assert_eq!(set(&dict, "k", Value::Nil, 0), Ok(false));
    assert_eq!(dict.get(b"k", true, 0), Ok(None));
    for mode in [Mode::Add, Mode::SafeAdd, Mode::Replace] {
        assert_eq!(
            dict.store(b"k", Value::Nil, how(mode, 0), 0),
            Err(DictError::BadValue)
        );
    }
}

#[test]
fn keys_are_checked_everywhere() {
    let dict = SharedDict::new(ROOMY);
    let long = vec![b'k'; MAX_KEY_BYTES + 1];
    assert_eq!(dict.get(b"", false, 0), Err(DictError::EmptyKey));
    assert_eq!(dict.get(&long, false, 0), Err(DictError::KeyTooLong));
    assert_eq!(dict.delete(&long), Err(DictError::KeyTooLong));
    assert_eq!(
        dict.push(Side::Left, b"", text("v"), 0),
        Err(DictError::EmptyKey)
    );
    assert_eq!(
        dict.store(&long[1..], text("v"), how(Mode::Set, 0), 0),
        Ok(false)
    );
}

#[test]
fn stale_values_stay_until_room_is_needed() {
    let dict = SharedDict::new(ROOMY);
    set(&dict, "k", text("v"), 5).unwrap();
    assert_eq!(dict.get(b"k", false, 5), Ok(None));
    assert_eq!(
        dict.get(b"k", true, 5),
        Ok(Some(Entry {
            value: text("v"),
            flags: 0,
            stale: true
        }))
    );
    assert_eq!(dict.flush_expired(0, 5), 1);
    assert_eq!(dict.get(b"k", true, 5), Ok(None));
}

#[test]
fn incr_follows_the_manual() {
    let dict = SharedDict::new(ROOMY);
    assert_eq!(dict.incr(b"n", 1.0, None, 0), Err(DictError::NotFound));
    assert_eq!(dict.incr(b"n", 1.0, Some((10.0, 5)), 0), Ok((11.0, false)));
    assert_eq!(
        dict.incr(b"n", -2.5, Some((10.0, 100)), 1),
        Ok((8.5, false))
    );
    assert_eq!(dict.ttl(b"n", 1), Ok(4));
    assert_eq!(dict.incr(b"n", 1.0, Some((0.0, 0)), 5), Ok((1.0, false)));
    assert_eq!(dict.ttl(b"n", 5), Ok(0));
    set(&dict, "s", text("1"), 0).unwrap();
    assert_eq!(
        dict.incr(b"s", 1.0, Some((0.0, 0)), 0),
        Err(DictError::NotANumber)
    );
    dict.push(Side::Left, b"l", text("1"), 0).unwrap();
    assert_eq!(dict.incr(b"l", 1.0, None, 0), Err(DictError::NotANumber));
}

#[test]
fn lists_push_and_pop_at_both_ends() {
    let dict = SharedDict::new(ROOMY);
    let before = dict.free_space();
    assert_eq!(dict.push(Side::Right, b"l", text("b"), 0), Ok(1));
    assert_eq!(dict.push(Side::Left, b"l", Value::Number(1.0), 0), Ok(2));
    assert_eq!(dict.push(Side::Right, b"l", text("c"), 0), Ok(3));
    assert_eq!(dict.list_len(b"l", 0), Ok(3));
    assert_eq!(dict.get(b"l", false, 0), Err(DictError::IsAList));
    assert_eq!(dict.pop(Side::Left, b"l", 0), Ok(Some(Value::Number(1.0))));
    assert_eq!(dict.pop(Side::Right, b"l", 0), Ok(Some(text("c"))));
    assert_eq!(dict.pop(Side::Right, b"l", 0), Ok(Some(text("b"))));
    assert_eq!(dict.pop(Side::Right, b"l", 0), Ok(None));
    assert_eq!((dict.len(), dict.free_space()), (0, before));
    assert_eq!(
        dict.push(Side::Left, b"l", Value::Boolean(true), 0),
        Err(DictError::BadValue)
    );
    set(&dict, "s", text("x"), 0).unwrap();
    assert_eq!(
        dict.push(Side::Left, b"s", text("x"), 0),
        Err(DictError::NotAList)
    );
    assert_eq!(dict.pop(Side::Left, b"s", 0), Err(DictError::NotAList));
    assert_eq!(dict.list_len(b"s", 0), Err(DictError::NotAList));
}

#[test]
fn a_list_expires_and_begins_anew() {
    let dict = SharedDict::new(ROOMY);
    dict.push(Side::Left, b"l", text("a"), 0).unwrap();
    dict.expire(b"l", 5, 0).unwrap();
    assert_eq!(dict.push(Side::Left, b"l", text("b"), 4), Ok(2));
    assert_eq!(dict.list_len(b"l", 5), Ok(0));
    assert_eq!(dict.push(Side::Left, b"l", text("c"), 5), Ok(1));
    assert_eq!(dict.ttl(b"l", 5), Ok(0));
}

#[test]
fn ttl_and_expire_follow_the_clock() {
    let dict = SharedDict::new(ROOMY);
    assert_eq!(dict.ttl(b"k", 0), Err(DictError::NotFound));
    assert_eq!(dict.expire(b"k", 1, 0), Err(DictError::NotFound));
    set(&dict, "k", text("v"), 0).unwrap();
    assert_eq!(dict.ttl(b"k", 0), Ok(0));
    dict.expire(b"k", 7, 3).unwrap();
    assert_eq!(dict.ttl(b"k", 9), Ok(1));
    assert_eq!(dict.ttl(b"k", 10), Err(DictError::NotFound));
    assert_eq!(dict.expire(b"k", 7, 10), Err(DictError::NotFound));
}

#[test]
fn flush_all_expires_but_keeps_the_memory() {
    let dict = SharedDict::new(ROOMY * 4);
    for number in 0..100 {
        set(&dict, &format!("k{number}"), text("v"), 0).unwrap();
    }
    dict.flush_all();
    assert_eq!(
        (value(&dict, "k1", 0), dict.len(), dict.get_keys(0, 0).len()),
        (None, 100, 0)
    );
    set(&dict, "k1", text("w"), 0).unwrap();
    assert_eq!(value(&dict, "k1", 0), Some(text("w")));
    assert_eq!(dict.flush_expired(10, 0), 10);
    assert_eq!(dict.flush_expired(0, 0), 89);
    assert_eq!(
        (dict.get_keys(0, 0), dict.flush_expired(0, 0)),
        (vec![Bytes::from_static(b"k1")], 0)
    );
}

#[test]
fn get_keys_gives_live_keys_up_to_a_number() {
    let dict = SharedDict::new(ROOMY * 8);
    for number in 0..5000_u64 {
        set(&dict, &format!("k{number}"), Value::Number(1.0), number % 2).unwrap();
    }
    assert_eq!(dict.get_keys(100, 1).len(), 100);
    let mut keys = dict.get_keys(0, 1);
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 2500);
}

#[test]
fn get_keys_lets_others_in_after_a_piece_of_a_shard() {
    let dict = SharedDict::new(64 << 20);
    for number in 0..100_000_u64 {
        set(&dict, &format!("k{number}"), Value::Number(1.0), 0).unwrap();
    }
    for lane in &dict.lanes {
        let held = lane.lock();
        let (mut keys, mut next, mut holds) = (Vec::new(), Some(0), 0);
        while let Some(start) = next {
            let before = keys.len();
            next = held.shard.keys_from(start, usize::MAX, 0, &mut keys);
            assert!(keys.len() - before <= 1024, "what one hold looks at");
            holds += 1;
        }
        assert_eq!(keys.len(), held.shard.len());
        assert!(holds >= held.shard.len() / 1024, "{holds}");
    }
    assert_eq!(dict.get_keys(0, 0).len(), 100_000);
}

#[test]
fn eviction_takes_what_was_not_used_for_longest() {
    let dict = SharedDict::new(3 * (ENTRY_COST + 2));
    let fill = |key| set(&dict, key, text("v"), 0);
    assert_eq!(
        (fill("a"), fill("b"), fill("c")),
        (Ok(false), Ok(false), Ok(false))
    );
    assert_eq!(value(&dict, "a", 0), Some(text("v")));
    assert_eq!(fill("d"), Ok(true));
    let there = ["a", "b", "c", "d"].map(|key| value(&dict, key, 0).is_some());
    assert_eq!(there, [true, false, true, true]);
    assert_eq!(
        dict.store(b"e", text("v"), how(Mode::SafeSet, 0), 0),
        Err(DictError::NoMemory)
    );
    assert_eq!(
        dict.push(Side::Left, b"e", text("v"), 0),
        Err(DictError::NoMemory)
    );
    assert_eq!(dict.stats().no_memory, 2);
    assert_eq!(dict.free_space(), 0);
}

#[test]
fn expired_entries_go_first_and_are_not_forcible() {
    let dict = SharedDict::new(3 * (ENTRY_COST + 2));
    set(&dict, "a", text("v"), 0).unwrap();
    set(&dict, "b", text("v"), 5).unwrap();
    set(&dict, "c", text("v"), 0).unwrap();
    assert_eq!(dict.store(b"d", text("v"), how(Mode::Set, 0), 5), Ok(false));
    assert_eq!(value(&dict, "a", 5), Some(text("v")));
    dict.expire(b"c", 1, 5).unwrap();
    assert_eq!(
        dict.store(b"e", text("v"), how(Mode::SafeAdd, 0), 6),
        Ok(false)
    );
    assert_eq!(dict.stats().evictions, 0);
}

#[test]
fn what_is_too_large_takes_only_its_own_former_value_with_it() {
    let dict = SharedDict::new(2000);
    set(&dict, "k", text("v"), 0).unwrap();
    set(&dict, "l", text("v"), 0).unwrap();
    let large = Value::Bytes(Bytes::from(vec![0; 4000]));
    assert_eq!(
        set(&dict, "other", large.clone(), 0),
        Err(DictError::NoMemory)
    );
    assert_eq!(
        dict.store(b"k", large.clone(), how(Mode::Add, 0), 0),
        Err(DictError::Exists)
    );
    assert_eq!(value(&dict, "k", 0), Some(text("v")));
    for (key, mode) in [("k", Mode::Set), ("l", Mode::Replace)] {
        let refused = dict.store(key.as_bytes(), large.clone(), how(mode, 0), 0);
        assert_eq!(refused, Err(DictError::NoMemory));
        assert_eq!(value(&dict, key, 0), None);
    }
    assert_eq!(dict.free_space(), dict.capacity());
}

#[test]
fn one_value_may_take_a_dict_of_many_shards() {
    let dict = SharedDict::new(4 << 20);
    for number in 0..20_000 {
        set(&dict, &format!("k{number}"), text("v"), 0).unwrap();
    }
    let large = Value::Bytes(Bytes::from(vec![7; (4 << 20) - ENTRY_COST - 5]));
    assert_eq!(set(&dict, "large", large.clone(), 0), Ok(true));
    assert_eq!(
        (value(&dict, "large", 0), dict.len(), dict.free_space()),
        (Some(large), 1, 0)
    );
    // The entry that is replaced is never its own victim.
    assert_eq!(
        dict.store(b"large", text("v"), how(Mode::Replace, 0), 0),
        Ok(false)
    );
}

#[test]
fn many_shards_evict_by_the_time_of_use() {
    let dict = SharedDict::new(2 << 20);
    let store = |number: u64| {
        dict.store(
            format!("{number:08}").as_bytes(),
            text("v"),
            how(Mode::Set, 0),
            number,
        )
        .unwrap()
    };
    let room = (2 << 20) / (ENTRY_COST as u64 + 9);
    for number in 1..=room {
        assert!(!store(number));
    }
    for number in room + 1..=room + 1000 {
        assert!(store(number));
    }
    // One entry in, one out: exactly the first thousand are gone, whichever shards they were in.
    for number in 1..=room + 1000 {
        let is_there = dict
            .get(format!("{number:08}").as_bytes(), true, number)
            .unwrap()
            .is_some();
        assert_eq!(is_there, number > 1000, "{number}");
    }
    // Room for a large one is made in the same order.
    let large = Value::Bytes(Bytes::from(vec![7; 500 * (ENTRY_COST + 9)]));
    set(&dict, "large", large, room + 2000).unwrap();
    let gone = (1001..=room + 1000).filter(|number| {
        let key = format!("{number:08}");
        dict.ttl(key.as_bytes(), room + 2000).is_err()
    });
    let gone: Vec<u64> = gone.collect();
    assert!(gone.iter().copied().eq(1001..1001 + gone.len() as u64));
    assert!((500..=502).contains(&gone.len()), "{}", gone.len());
}

#[test]
fn a_resized_dict_shrinks_with_the_next_store() {
    let registry = Registry::new();
    let wanted = |entries: usize| Wanted {
        name: "d",
        capacity: entries * (ENTRY_COST + 2),
        waiters: 1,
    };
    let never_served = registry.open(&[wanted(10)]);
    let first = registry.open(&[wanted(10)]);
    registry.settle(&first, &[wanted(10)]);
    let dict = first.find("d").unwrap();
    assert!(!Arc::ptr_eq(&dict, &never_served.find("d").unwrap()));
    for key in ["a", "b", "c", "d", "e"] {
        set(&dict, key, text("v"), 0).unwrap();
    }
    let second = registry.open(&[wanted(2)]);
    assert!(Arc::ptr_eq(&dict, &second.find("d").unwrap()));
    assert!(dict.free_space() > 0, "it is not served yet");
    registry.settle(&second, &[wanted(2)]);
    assert_eq!((dict.len(), dict.free_space()), (5, 0));
    assert_eq!(set(&dict, "e", text("w"), 0), Ok(false));
    assert_eq!((set(&dict, "f", text("v"), 0), dict.len()), (Ok(true), 2));
    registry.settle(&registry.open(&[]), &[]);
    assert!(registry.all().is_empty());
    assert!(second.find("d").is_some(), "who serves it keeps it");
}

#[test]
fn threads_lose_no_increment_and_no_byte() {
    let dict = Arc::new(SharedDict::new(1 << 20));
    let threads: Vec<_> = (0..4_u32)
        .map(|thread| {
            let dict = Arc::clone(&dict);
            std::thread::spawn(move || {
                for step in 0..20_000_u32 {
                    // Used all the time, so never the victim.
                    dict.incr(b"sum", 1.0, Some((0.0, 0)), u64::from(step))
                        .unwrap();
                    let key = format!("{}", (step * 7 + thread) % 9000);
                    let value = Value::Bytes(Bytes::from(vec![0; (step % 300) as usize]));
                    dict.store(
                        key.as_bytes(),
                        value,
                        how(Mode::Set, u64::from(step % 3)),
                        u64::from(step),
                    )
                    .unwrap();
                    match step % 1000 {
                        0 => drop(dict.get_keys(0, u64::from(step))),
                        1 => drop(dict.flush_expired(0, u64::from(step))),
                        2 => dict.delete(key.as_bytes()).unwrap(),
                        _ => drop(dict.get(key.as_bytes(), true, u64::from(step)).unwrap()),
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(value(&dict, "sum", 20_000), Some(Value::Number(80_000.0)));
    assert!(dict.free_space() < dict.capacity());
    dict.flush_all();
    dict.flush_expired(0, 0);
    assert_eq!((dict.len(), dict.free_space()), (0, dict.capacity()));
}
