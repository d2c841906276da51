//! `lock`: the locks of the configuration, within what `allow.lock` names.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::Resource;

use super::bindings::phasor::plugin::lock as wit;
use super::operation::{Outcome, Work, wrong_kind};
use super::{HostState, Operation, enter};
use crate::lock::{Guard, LockError, Locks};

type Got = Result<Guard, LockError>;
type Answer<T> = wasmtime::Result<Result<T, wit::LockError>>;

fn error(error: LockError) -> wit::LockError {
    match error {
        LockError::Timeout => wit::LockError::Timeout,
        LockError::Busy => wit::LockError::Busy,
        LockError::Lost => wit::LockError::Lost,
        LockError::InvalidName => wit::LockError::InvalidName,
        LockError::Unavailable => wit::LockError::Unavailable,
    }
}

fn time(milliseconds: u32) -> Duration {
    Duration::from_millis(milliseconds.into())
}

impl HostState {
    /// A table that the plugin may use. Its number is its place in the configuration.
    fn locks(&self, table: u32) -> wasmtime::Result<&Arc<Locks>> {
        self.plugin
            .locks
            .get(table as usize)
            .filter(|locks| self.may_lock(locks.name()))
            .ok_or_else(|| wasmtime::format_err!("`lock`: {table} was not given by `lock.open`"))
    }

    fn may_lock(&self, name: &str) -> bool {
        self.plugin.allow.lock.allows(|allowed| *allowed == name)
    }

    fn locked(&mut self, got: Got) -> Answer<Resource<Guard>> {
        match got {
            Ok(guard) => Ok(Ok(self.table.push(guard)?)),
            Err(why) => Ok(Err(error(why))),
        }
    }
}

impl wit::Host for HostState {
    fn open(&mut self, name: String) -> Answer<u32> {
        enter!(self, "lock.open");
        let tables = &self.plugin.locks;
        let Some(table) = tables.iter().position(|locks| locks.name() == name) else {
            return Ok(Err(wit::LockError::UnknownTable));
        };
        if !self.may_lock(&name) {
            self.refuse("lock", &name);
            return Ok(Err(wit::LockError::Refused));
        }
        Ok(Ok(u32::try_from(table)?))
    }

    async fn acquire(
        &mut self,
        table: u32,
        name: Vec<u8>,
        hold: Option<u32>,
        wait: Option<u32>,
    ) -> Answer<Resource<Guard>> {
        enter!(self, "lock.acquire");
        let locks = self.locks(table)?.clone();
        let (hold, wait) = (hold.map(time), wait.map(time));
        let got = locks.acquire(&name, hold, wait).await;
        self.locked(got)
    }

    fn begin_acquire(
        &mut self,
        table: u32,
        name: Vec<u8>,
        hold: Option<u32>,
        wait: Option<u32>,
    ) -> wasmtime::Result<Resource<Operation>> {
        enter!(self, "lock.begin-acquire");
        let locks = self.locks(table)?.clone();
        let (hold, wait) = (hold.map(time), wait.map(time));
        self.begin(Work::Task(Box::pin(async move {
            Outcome::Locked(locks.acquire(&name, hold, wait).await)
        })))
    }

    async fn end_acquire(&mut self, op: Resource<Operation>) -> Answer<Resource<Guard>> {
        enter!(self, "lock.end-acquire");
        match self.finish(op).await? {
            Outcome::Locked(got) => self.locked(got),
            _ => Err(wrong_kind("lock.end-acquire")),
        }
    }
}

impl wit::HostGuard for HostState {
    fn fencing(&mut self, guard: Resource<Guard>) -> wasmtime::Result<u64> {
        enter!(self, "lock.guard");
        Ok(self.table.get(&guard)?.fencing())
    }

    async fn renew(&mut self, guard: Resource<Guard>, hold: Option<u32>) -> Answer<()> {
        enter!(self, "lock.guard");
        let renewed = self.table.get(&guard)?.renew(hold.map(time));
        Ok(renewed.await.map_err(error))
    }

    fn begin_renew(
        &mut self,
        guard: Resource<Guard>,
        hold: Option<u32>,
    ) -> wasmtime::Result<Resource<Operation>> {
        enter!(self, "lock.guard");
        let renewed = self.table.get(&guard)?.renew(hold.map(time));
        self.begin(Work::Task(Box::pin(async move {
            Outcome::Guarded(renewed.await)
        })))
    }

    async fn release(&mut self, guard: Resource<Guard>) -> Answer<()> {
        enter!(self, "lock.guard");
        let guard = self.table.delete(guard)?;
        Ok(guard.release().await.map_err(error))
    }

    fn begin_release(&mut self, guard: Resource<Guard>) -> wasmtime::Result<Resource<Operation>> {
        enter!(self, "lock.guard");
        let guard = self.table.delete(guard)?;
        self.begin(Work::Task(Box::pin(async move {
            Outcome::Guarded(guard.release().await)
        })))
    }

    async fn end_change(&mut self, op: Resource<Operation>) -> Answer<()> {
        enter!(self, "lock.guard");
        match self.finish(op).await? {
            Outcome::Guarded(outcome) => Ok(outcome.map_err(error)),
            _ => Err(wrong_kind("lock.guard.end-change")),
        }
    }

    fn drop(&mut self, guard: Resource<Guard>) -> wasmtime::Result<()> {
        self.table.delete(guard)?;
        Ok(())
    }
}
