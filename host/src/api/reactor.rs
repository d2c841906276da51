//! `reactor`: carries the packed batches between a language runtime and its worker.

use wasmtime::component::Resource;

use super::bindings::phasor::plugin::reactor::Host;
use super::operation::{Outcome, Work, wrong_kind};
use super::{HostState, Operation, Threads, enter};
use crate::exchange::{self, NO_EXCHANGE};
use crate::phase::Phase;
use crate::reactor::{self, ReactorId};

mod module;

impl HostState {
    fn reactor(&self) -> wasmtime::Result<ReactorId> {
        self.reactor.ok_or_else(|| {
            wasmtime::format_err!("only a component that exports `pump` has a reactor")
        })
    }
}

impl Host for HostState {
    fn program(&mut self) -> wasmtime::Result<String> {
        enter!(self, "reactor.program");
        Ok(self.plugin.program.clone())
    }

    fn find_module(
        &mut self,
        name: String,
        path: String,
    ) -> wasmtime::Result<Result<(String, Vec<u8>), String>> {
        enter!(self, "reactor.find-module");
        Ok(module::find(&self.plugin, &path, &name))
    }

    fn read_source(&mut self, file: String) -> wasmtime::Result<Result<Vec<u8>, String>> {
        enter!(self, "reactor.read-source");
        Ok(module::source(&self.plugin, &file))
    }

    async fn next(&mut self, done: Vec<u8>) -> wasmtime::Result<Vec<u8>> {
        // Whatever phase the guest selected last, it is back in its loop.
        self.phase = Phase::Timer;
        enter!(self, "reactor.next");
        let id = self.reactor()?;
        reactor::take(id, &done).map_err(|e| wasmtime::format_err!("`reactor.next`: {e}"))?;
        reactor::recycle(id, done);
        self.exchange = NO_EXCHANGE;
        let batch = reactor::next(id).await;
        // A turn of the loop begins: nginx takes its cached time here, too.
        crate::time_cache::update();
        Ok(batch)
    }

    fn select(&mut self, job: u32, phase: u8) -> wasmtime::Result<()> {
        enter!(self, "reactor.select");
        let phase = Phase::from_number(phase)
            .ok_or_else(|| wasmtime::format_err!("`reactor.select`: {phase} is no phase"))?;
        if job != NO_EXCHANGE {
            let id = self.reactor()?;
            let ours = exchange::try_with(job, |x| {
                x.phase = phase;
                x.jobs.contains(&id)
            });
            if ours != Some(true) {
                return Err(wasmtime::format_err!(
                    "`reactor.select`: {job} is no job of this instance"
                ));
            }
        }
        self.exchange = job;
        self.phase = phase;
        Ok(())
    }

    fn keep_on(&mut self, keep: bool) -> wasmtime::Result<()> {
        let id = enter!(self, "reactor.keep-on");
        exchange::with(id, |x| x.keeps_on = keep);
        Ok(())
    }

    fn begin_call(
        &mut self,
        pool: String,
        threads: u32,
        queue: u32,
        payload: Vec<u8>,
    ) -> wasmtime::Result<Resource<Operation>> {
        enter!(self, "reactor.begin-call");
        let pool = Threads {
            name: pool,
            threads,
            queue,
        };
        let begun = match self.plugin.elsewhere.get() {
            Some(elsewhere) => elsewhere.call(&pool, payload),
            None => Err("there are no threads for this plugin".to_owned()),
        };
        self.begin(match begun {
            Ok(result) => Work::Task(Box::pin(async move {
                Outcome::Called(match result.await {
                    Ok(result) => result,
                    Err(_) => Err("the thread ended".to_owned()),
                })
            })),
            Err(text) => Work::Done(Outcome::Called(Err(text))),
        })
    }

    async fn end_call(
        &mut self,
        op: Resource<Operation>,
    ) -> wasmtime::Result<Result<Vec<u8>, String>> {
        enter!(self, "reactor.end-call");
        match self.finish(op).await? {
            Outcome::Called(result) => Ok(result),
            _ => Err(wrong_kind("reactor.end-call")),
        }
    }

    fn watch(&mut self, op: Resource<Operation>, job: u32, token: u32) -> wasmtime::Result<()> {
        enter!(self, "reactor.watch");
        let id = self.reactor()?;
        reactor::watch(id, job, token, self.table.get(&op)?.share());
        Ok(())
    }
}
