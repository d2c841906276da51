//! Calls of a language runtime on threads of their own, so that what computes for long does not hold
//! a worker: each thread has an instance that never serves. Threads start when calls wait and end
//! when they have been idle for a while, and with their generation.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime::component::ComponentExportIndex;

use super::Loaded;
use crate::api::{CallResult, Elsewhere, HostState, PluginInfo, Threads, WorkerInfo};
use crate::config::model::Limits;

/// How long a thread without work stays; its instance takes memory.
const IDLE: Duration = Duration::from_secs(10);
/// More threads than this help no machine.
const MOST_THREADS: u32 = 256;

/// The pools of one plugin.
pub struct OtherThreads {
    code: Arc<Code>,
    pools: Mutex<Vec<(String, Arc<Pool>)>>,
}

impl std::fmt::Debug for OtherThreads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OtherThreads").finish_non_exhaustive()
    }
}

/// What a thread needs to make an instance.
struct Code {
    loaded: Loaded,
    call: ComponentExportIndex,
    info: Weak<PluginInfo>,
    memory: usize,
}

struct Call {
    payload: Vec<u8>,
    result: oneshot::Sender<Result<Vec<u8>, String>>,
}

#[derive(Default)]
struct Pool {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    calls: VecDeque<Call>,
    threads: u32,
    idle: u32,
    closed: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OtherThreads {
    /// The pools of a language runtime; ordinary components have none.
    #[must_use]
    pub fn of(loaded: &Loaded, info: &Arc<PluginInfo>, limits: &Limits) -> Option<Self> {
        Some(Self {
            code: Arc::new(Code {
                loaded: loaded.clone(),
                call: loaded.call?,
                info: Arc::downgrade(info),
                memory: limits.memory(true),
            }),
            pools: Mutex::default(),
        })
    }
}

impl Elsewhere for OtherThreads {
    fn call(&self, pool: &Threads, payload: Vec<u8>) -> Result<CallResult, String> {
        let found = {
            let mut pools = lock(&self.pools);
            match pools.iter().find(|(name, _)| *name == pool.name) {
                Some((_, found)) => found.clone(),
                None => {
                    let new = Arc::new(Pool::default());
                    pools.push((pool.name.clone(), new.clone()));
                    new
                }
            }
        };
        let mut state = lock(&found.state);
        if state.calls.len() >= pool.queue as usize {
            return Err(format!("thread pool \"{}\" queue overflow", pool.name));
        }
        let (result, receiver) = oneshot::channel();
        let waiting = u32::try_from(state.calls.len()).unwrap_or(u32::MAX);
        if state.idle <= waiting && state.threads < pool.threads.clamp(1, MOST_THREADS) {
            let (pool, code) = (found.clone(), self.code.clone());
            std::thread::Builder::new()
                .name("worker-thread".to_owned())
                .spawn(move || serve(&pool, &code))
                .map_err(|e| format!("no thread starts: {e}"))?;
            state.threads += 1;
        }
        state.calls.push_back(Call { payload, result });
        drop(state);
        found.work.notify_one();
        Ok(receiver)
    }
}

impl Drop for OtherThreads {
    fn drop(&mut self) {
        for (_, pool) in lock(&self.pools).drain(..) {
            lock(&pool.state).closed = true;
            pool.work.notify_all();
        }
    }
}

/// One thread: takes calls until there are none for a while.
fn serve(pool: &Pool, code: &Code) {
    let mut instance = None;
    while let Some(call) = next(pool) {
        if call.result.is_closed() {
            continue;
        }
        let result = run(&mut instance, code, call.payload);
        let _nobody_waits = call.result.send(result).is_err();
    }
}

fn next(pool: &Pool) -> Option<Call> {
    let mut state = lock(&pool.state);
    loop {
        if let Some(call) = state.calls.pop_front() {
            return Some(call);
        }
        if state.closed {
            state.threads -= 1;
            return None;
        }
        state.idle += 1;
        let (again, waited) = pool
            .work
            .wait_timeout(state, IDLE)
            .unwrap_or_else(PoisonError::into_inner);
        state = again;
        state.idle -= 1;
        if waited.timed_out() && state.calls.is_empty() {
            state.threads -= 1;
            return None;
        }
    }
}

type Live = (Store<HostState>, wasmtime::component::Instance);

fn run(live: &mut Option<Live>, code: &Code, payload: Vec<u8>) -> Result<Vec<u8>, String> {
    crate::time_cache::update();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|e| e.to_string())?;
    let result: wasmtime::Result<_> = runtime.block_on(async {
        let mut taken = match live.take() {
            Some(taken) => taken,
            None => start(code).await?,
        };
        let (store, instance) = &mut taken;
        let call = instance
            .get_typed_func::<(Vec<u8>,), (Result<Vec<u8>, String>,)>(&mut *store, &code.call)?;
        let (result,) = call.call_async(&mut *store, (payload,)).await?;
        // One that trapped is not used again.
        *live = Some(taken);
        Ok(result)
    });
    match result {
        Ok(result) => result,
        Err(error) => Err(format!("the runtime trapped: {error:?}")),
    }
}

async fn start(code: &Code) -> wasmtime::Result<Live> {
    let info = code
        .info
        .upgrade()
        .ok_or_else(|| wasmtime::format_err!("the configuration has been replaced"))?;
    let state = HostState::new(info, WorkerInfo::default(), code.memory);
    let mut store = Store::new(code.loaded.pre.engine(), state);
    store.limiter(|state| &mut state.memory);
    let instance = code.loaded.instantiate(&mut store).await?;
    Ok((store, instance))
}
