//! `shared-dict`: the process's shared dicts, within what `allow.shared` names.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use wasmtime::component::Resource;

use super::bindings::phasor::plugin::shared_dict as wit;
use super::operation::{Outcome, Task, Work, wrong_kind};
use super::{HostState, Operation, enter};
use crate::shared_dict::{DictError, Mode, SharedDict, Side, Store, Value};
use crate::time_cache;

/// A dict that a guest has opened.
#[derive(Debug)]
pub struct Dict(Arc<SharedDict>);

fn error(error: DictError) -> wit::DictError {
    match error {
        DictError::NotFound => wit::DictError::NotFound,
        DictError::Exists => wit::DictError::Exists,
        DictError::NoMemory => wit::DictError::NoMemory,
        DictError::NotANumber => wit::DictError::NotANumber,
        DictError::IsAList => wit::DictError::IsAList,
        DictError::NotAList => wit::DictError::NotAList,
        DictError::EmptyKey | DictError::KeyTooLong | DictError::BadValue => {
            wit::DictError::Invalid
        }
        DictError::Busy => wit::DictError::Busy,
    }
}

fn to_guest(value: &Value) -> wit::Value {
    match value {
        Value::Nil => wit::Value::Nil,
        Value::Boolean(value) => wit::Value::Boolean(*value),
        Value::Number(value) => wit::Value::Number(*value),
        Value::Bytes(value) => wit::Value::Bytes(value.to_vec()),
    }
}

fn from_guest(value: wit::Value) -> Value {
    match value {
        wit::Value::Nil => Value::Nil,
        wit::Value::Boolean(value) => Value::Boolean(value),
        wit::Value::Number(value) => Value::Number(value),
        wit::Value::Bytes(value) => Value::Bytes(Bytes::from(value)),
    }
}

fn mode(mode: wit::Mode) -> Mode {
    match mode {
        wit::Mode::Set => Mode::Set,
        wit::Mode::SafeSet => Mode::SafeSet,
        wit::Mode::Add => Mode::Add,
        wit::Mode::SafeAdd => Mode::SafeAdd,
        wit::Mode::Replace => Mode::Replace,
    }
}

fn side(side: wit::Side) -> Side {
    match side {
        wit::Side::Left => Side::Left,
        wit::Side::Right => Side::Right,
    }
}

type Handle = Resource<Dict>;
type Answer<T> = wasmtime::Result<Result<T, wit::DictError>>;

impl HostState {
    fn dict(&self, handle: &Handle) -> wasmtime::Result<&SharedDict> {
        enter!(self, "shared-dict.dict");
        Ok(&self.table.get(handle)?.0)
    }

    fn with_dict<T>(
        &self,
        handle: &Handle,
        f: impl FnOnce(&SharedDict) -> Result<T, DictError>,
    ) -> Answer<T> {
        Ok(f(self.dict(handle)?).map_err(error))
    }
}

impl HostState {
    fn dict_wait(
        &self,
        handle: &Handle,
        key: Vec<u8>,
        seen: wit::Value,
        timeout: u64,
    ) -> wasmtime::Result<Task> {
        let dict = Arc::clone(&self.table.get(handle)?.0);
        let seen = from_guest(seen);
        let timeout = Duration::from_millis(timeout);
        Ok(Box::pin(async move {
            Outcome::Changed(dict.changed(&key, &seen, timeout).await)
        }))
    }
}

impl HostState {
    fn dict_add(
        &self,
        handle: &Handle,
        key: Vec<u8>,
        value: wit::Value,
        (ttl, timeout): (u64, u64),
    ) -> wasmtime::Result<Task> {
        let dict = Arc::clone(&self.table.get(handle)?.0);
        let (value, timeout) = (from_guest(value), Duration::from_millis(timeout));
        Ok(Box::pin(async move {
            Outcome::Changed(dict.add_in_turn(&key, &value, ttl, timeout).await)
        }))
    }
}

fn changed(outcome: &Outcome, function: &str) -> Answer<bool> {
    match outcome {
        Outcome::Changed(changed) => Ok((*changed).map_err(error)),
        _ => Err(wrong_kind(function)),
    }
}

impl wit::Host for HostState {
    async fn wait(
        &mut self,
        dict: Handle,
        key: Vec<u8>,
        seen: wit::Value,
        timeout: u64,
    ) -> Answer<bool> {
        enter!(self, "shared-dict.wait");
        let task = self.dict_wait(&dict, key, seen, timeout)?;
        changed(&task.await, "shared-dict.wait")
    }

    fn begin_wait(
        &mut self,
        dict: Handle,
        key: Vec<u8>,
        seen: wit::Value,
        timeout: u64,
    ) -> wasmtime::Result<Resource<Operation>> {
        enter!(self, "shared-dict.begin-wait");
        let task = self.dict_wait(&dict, key, seen, timeout)?;
        self.begin(Work::Task(task))
    }

    async fn add_in_turn(
        &mut self,
        dict: Handle,
        key: Vec<u8>,
        value: wit::Value,
        ttl: u64,
        timeout: u64,
    ) -> Answer<bool> {
        enter!(self, "shared-dict.add-in-turn");
        let task = self.dict_add(&dict, key, value, (ttl, timeout))?;
        changed(&task.await, "shared-dict.add-in-turn")
    }

    fn begin_add_in_turn(
        &mut self,
        dict: Handle,
        key: Vec<u8>,
        value: wit::Value,
        ttl: u64,
        timeout: u64,
    ) -> wasmtime::Result<Resource<Operation>> {
        enter!(self, "shared-dict.begin-add-in-turn");
        let task = self.dict_add(&dict, key, value, (ttl, timeout))?;
        self.begin(Work::Task(task))
    }

    async fn end_wait(&mut self, op: Resource<Operation>) -> Answer<bool> {
        enter!(self, "shared-dict.end-wait");
        changed(&self.finish(op).await?, "shared-dict.end-wait")
    }
}

impl wit::HostDict for HostState {
    fn open(&mut self, name: String) -> Answer<Handle> {
        enter!(self, "shared-dict.dict");
        let Some(dict) = self.plugin.dicts.find(&name) else {
            return Ok(Err(wit::DictError::UnknownDict));
        };
        if !self.plugin.allow.shared.allows(|allowed| *allowed == name) {
            self.refuse("shared", &name);
            return Ok(Err(wit::DictError::Refused));
        }
        Ok(Ok(self.table.push(Dict(dict))?))
    }

    fn get(&mut self, dict: Handle, key: Vec<u8>, with_stale: bool) -> Answer<Option<wit::Entry>> {
        let most = self.most_at_once();
        self.with_dict(&dict, |dict| {
            let found = dict.read(
                &key,
                with_stale,
                time_cache::now_ms(),
                // What is too much is not copied.
                |value, flags, stale| match value {
                    Value::Bytes(bytes) if bytes.len() > most => Err(DictError::NoMemory),
                    value => Ok(wit::Entry {
                        value: to_guest(value),
                        flags,
                        stale,
                    }),
                },
            )?;
            found.transpose()
        })
    }

    fn store(
        &mut self,
        dict: Handle,
        how: wit::Mode,
        key: Vec<u8>,
        value: wit::Value,
        ttl: u64,
        flags: u32,
    ) -> Answer<bool> {
        self.with_dict(&dict, |dict| {
            dict.store(
                &key,
                from_guest(value),
                Store {
                    mode: mode(how),
                    ttl,
                    flags,
                },
                time_cache::now_ms(),
            )
        })
    }

    fn incr(
        &mut self,
        dict: Handle,
        key: Vec<u8>,
        by: f64,
        init: Option<f64>,
        init_ttl: u64,
    ) -> Answer<(f64, bool)> {
        self.with_dict(&dict, |dict| {
            dict.incr(
                &key,
                by,
                init.map(|init| (init, init_ttl)),
                time_cache::now_ms(),
            )
        })
    }

    fn compare_and_swap(
        &mut self,
        dict: Handle,
        key: Vec<u8>,
        old: wit::Value,
        new: wit::Value,
        ttl: u64,
        flags: u32,
    ) -> Answer<bool> {
        self.with_dict(&dict, |dict| {
            dict.compare_and_swap(
                &key,
                (&from_guest(old), from_guest(new)),
                (ttl, flags),
                time_cache::now_ms(),
            )
        })
    }

    fn wake(&mut self, dict: Handle, key: Vec<u8>) -> wasmtime::Result<bool> {
        Ok(self.dict(&dict)?.wake(&key))
    }

    fn delete(&mut self, dict: Handle, key: Vec<u8>) -> Answer<()> {
        self.with_dict(&dict, |dict| dict.delete(&key))
    }

    fn ttl(&mut self, dict: Handle, key: Vec<u8>) -> Answer<u64> {
        self.with_dict(&dict, |dict| dict.ttl(&key, time_cache::now_ms()))
    }

    fn expire(&mut self, dict: Handle, key: Vec<u8>, ttl: u64) -> Answer<()> {
        self.with_dict(&dict, |dict| dict.expire(&key, ttl, time_cache::now_ms()))
    }

    fn push(
        &mut self,
        dict: Handle,
        end: wit::Side,
        key: Vec<u8>,
        value: wit::Value,
    ) -> Answer<u32> {
        self.with_dict(&dict, |dict| {
            dict.push(side(end), &key, from_guest(value), time_cache::now_ms())
        })
    }

    fn pop(&mut self, dict: Handle, end: wit::Side, key: Vec<u8>) -> Answer<Option<wit::Value>> {
        self.with_dict(&dict, |dict| {
            Ok(dict
                .pop(side(end), &key, time_cache::now_ms())?
                .as_ref()
                .map(to_guest))
        })
    }

    fn len(&mut self, dict: Handle, key: Vec<u8>) -> Answer<u32> {
        self.with_dict(&dict, |dict| dict.list_len(&key, time_cache::now_ms()))
    }

    fn flush_all(&mut self, dict: Handle) -> wasmtime::Result<()> {
        self.dict(&dict)?.flush_all();
        Ok(())
    }

    fn flush_expired(&mut self, dict: Handle, max: u32) -> wasmtime::Result<u32> {
        let flushed = self
            .dict(&dict)?
            .flush_expired(max as usize, time_cache::now_ms());
        Ok(u32::try_from(flushed).unwrap_or(u32::MAX))
    }

    fn get_keys(&mut self, dict: Handle, max: u32) -> wasmtime::Result<Vec<Vec<u8>>> {
        let keys = self
            .dict(&dict)?
            .get_keys(max as usize, time_cache::now_ms());
        Ok(keys.iter().map(|key| key.to_vec()).collect())
    }

    fn capacity(&mut self, dict: Handle) -> wasmtime::Result<u64> {
        Ok(self.dict(&dict)?.capacity() as u64)
    }

    fn free_space(&mut self, dict: Handle) -> wasmtime::Result<u64> {
        Ok(self.dict(&dict)?.free_space() as u64)
    }

    fn drop(&mut self, dict: Handle) -> wasmtime::Result<()> {
        self.table.delete(dict)?;
        Ok(())
    }
}
