//! One live copy of an ordinary component: a store, its exported handlers, and how they are called.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::Store;
use wasmtime::component::{ComponentNamedList, ComponentType, Lift, Lower, TypedFunc};

use super::limits::{self, BudgetGone, Metered};
use super::runtime::Kind;
use super::{CallError, Plugin};
use crate::api::{HostState, WorkerInfo};
use crate::exchange::{self, Abort, ExchangeId, NO_EXCHANGE};
use crate::phase::{Phase, Verdict};

/// `types.verdict`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ComponentType, Lift, Lower)]
#[component(variant)]
enum WitVerdict {
    #[component(name = "next")]
    Next,
    #[component(name = "done")]
    Done,
    #[component(name = "exit")]
    Exit(u16),
}

/// `body-filter.chunk-verdict`.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lift, Lower)]
#[component(variant)]
pub enum ChunkVerdict {
    /// It goes on unchanged.
    #[component(name = "pass")]
    Pass,
    /// These bytes go on in its place.
    #[component(name = "replace")]
    Replace(Vec<u8>),
}

type Fallible<T> = (Result<T, String>,);

/// A live copy.
pub struct Instance {
    store: Store<HostState>,
    handlers: [Option<TypedFunc<(), Fallible<WitVerdict>>>; Phase::COUNT],
    plugin: Arc<Plugin>,
    instance: wasmtime::component::Instance,
    budget: Duration,
}

/// Phases whose handler takes nothing and gives a verdict.
const VERDICTS: [Phase; 6] = [
    Phase::ServerRewrite,
    Phase::Rewrite,
    Phase::Access,
    Phase::Precontent,
    Phase::Content,
    Phase::HeaderFilter,
];

impl Instance {
    /// Instantiates, and runs `init-worker` if there is one.
    ///
    /// # Errors
    /// When no slot is free or the start traps.
    pub async fn new(plugin: &Arc<Plugin>, worker: WorkerInfo) -> Result<Self, CallError> {
        let loaded = &plugin.loaded;
        let memory = plugin.limits.memory(false);
        let mut store = Store::new(
            loaded.pre.engine(),
            HostState::new(plugin.info.clone(), worker, memory),
        );
        store.limiter(|state| &mut state.memory);
        store.data_mut().timed = plugin.phases().contains(Phase::Timer);
        if loaded.kind == Kind::Ordinary {
            limits::slice(&mut store);
        }
        let start = |e: wasmtime::Error| CallError::Start(format!("{e:?}"));
        let instance = loaded
            .pre
            .instantiate_async(&mut store)
            .await
            .map_err(start)?;
        let mut handlers = [const { None }; Phase::COUNT];
        for phase in VERDICTS {
            if let Some(index) = &loaded.handlers[phase.number() as usize] {
                handlers[phase.number() as usize] =
                    Some(instance.get_typed_func(&mut store, index).map_err(start)?);
            }
        }
        let budget = plugin.limits.cpu;
        let mut this = Self {
            store,
            handlers,
            plugin: plugin.clone(),
            instance,
            budget,
        };
        if plugin.phases().contains(Phase::InitWorker) {
            this.call_plain(Phase::InitWorker, NO_EXCHANGE).await?;
        }
        Ok(this)
    }

    /// Runs a handler that gives a verdict.
    ///
    /// # Errors
    /// After one that is not `Failed` the instance must not be used again.
    pub async fn call(&mut self, phase: Phase, id: ExchangeId) -> Result<Verdict, CallError> {
        let Some(handler) = self.handlers[phase.number() as usize] else {
            return Ok(Verdict::Next);
        };
        let verdict = self.enter(phase, id, handler, ()).await?;
        Ok(match verdict {
            WitVerdict::Next => Verdict::Next,
            WitVerdict::Done => Verdict::Done,
            WitVerdict::Exit(status) => Verdict::Exit(status),
        })
    }

    /// Runs `log`, `init-worker` or `exit-worker`.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn call_plain(&mut self, phase: Phase, id: ExchangeId) -> Result<(), CallError> {
        self.call_typed(phase, id, ()).await
    }

    /// Runs `set`.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn call_set(
        &mut self,
        id: ExchangeId,
        variable: &str,
    ) -> Result<Option<Vec<u8>>, CallError> {
        self.call_typed(Phase::Set, id, (variable.to_owned(),))
            .await
    }

    /// Runs `body-filter`.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn call_chunk(
        &mut self,
        id: ExchangeId,
        chunk: Vec<u8>,
        last: bool,
    ) -> Result<ChunkVerdict, CallError> {
        self.call_typed(Phase::BodyFilter, id, (chunk, last)).await
    }

    /// Runs `timer`.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn call_timer(&mut self, token: u64, premature: bool) -> Result<(), CallError> {
        self.call_typed(Phase::Timer, NO_EXCHANGE, (token, premature))
            .await
    }

    async fn call_typed<P, R>(
        &mut self,
        phase: Phase,
        id: ExchangeId,
        parameters: P,
    ) -> Result<R, CallError>
    where
        P: ComponentNamedList + Lower + Send + Sync + 'static,
        R: ComponentType + Lift + Send + Sync + 'static,
    {
        let Some(index) = &self.plugin.loaded.handlers[phase.number() as usize] else {
            return Err(CallError::Failed(format!(
                "the component does not export `{}`",
                phase.interface()
            )));
        };
        let handler = self
            .instance
            .get_typed_func::<P, Fallible<R>>(&mut self.store, index)
            .map_err(|e| {
                CallError::Failed(format!(
                    "`{}.handle` has another type than the contract's: {e}",
                    phase.interface()
                ))
            })?;
        self.enter(phase, id, handler, parameters).await
    }

    async fn enter<P, R>(
        &mut self,
        phase: Phase,
        id: ExchangeId,
        handler: TypedFunc<P, Fallible<R>>,
        parameters: P,
    ) -> Result<R, CallError>
    where
        P: ComponentNamedList + Lower + Send + Sync + 'static,
        R: ComponentType + Lift + Send + Sync + 'static,
    {
        let state = self.store.data_mut();
        state.phase = phase;
        state.exchange = id;
        state.memory.refused = false;
        let result = {
            let call = std::pin::pin!(handler.call_async(&mut self.store, parameters));
            guarded(id, Metered::new(call, id, self.budget)).await?
        };
        match result {
            Ok((Ok(value),)) => Ok(value),
            Ok((Err(text),)) => Err(CallError::Failed(text)),
            Err(error) => Err(self.fault(&error)),
        }
    }

    fn fault(&self, error: &wasmtime::Error) -> CallError {
        let text = format!("{error:?}");
        if error.downcast_ref::<BudgetGone>().is_some() {
            CallError::Cpu(self.plugin.limits.cpu.as_millis(), text)
        } else if self.store.data().memory.refused {
            CallError::Memory(self.store.data().memory.bytes, text)
        } else {
            CallError::Trap(text)
        }
    }

    /// Timers that the call started and cancelled.
    pub fn take_timers(&mut self) -> crate::api::Started {
        std::mem::take(&mut self.store.data_mut().timers)
    }
}

/// Ends a call when its exchange must end.
async fn guarded<F: Future + Unpin>(id: ExchangeId, mut call: F) -> Result<F::Output, CallError> {
    use std::task::Poll;
    std::future::poll_fn(|cx| {
        if id != NO_EXCHANGE {
            let abort = exchange::with(id, |x| {
                x.register(cx.waker());
                x.abort
            });
            match abort {
                Some(Abort::Deadline) => return Poll::Ready(Err(CallError::Deadline)),
                Some(Abort::ClientLeft) => return Poll::Ready(Err(CallError::ClientLeft)),
                None => {}
            }
        }
        std::pin::Pin::new(&mut call).poll(cx).map(Ok)
    })
    .await
}
