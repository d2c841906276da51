//! The thread of a level on disk: it opens the store, writes what workers queue, and keeps the ledger's
//! file and the file of purges. The disk itself is touched by a few threads more, so that the ledger does
//! not wait behind values.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc as blocking;
use std::time::Duration;

use foyer::{
    BlockEngineConfig, DeviceBuilder as _, FsDeviceBuilder, HybridCache, HybridCachePolicy,
    PsyncIoEngineConfig, RecoverMode, Spawner,
};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::purges::PurgeLog;
use super::shared::{Job, Opened, Purging, Shared, Store, Write, add};
use super::value::{self, encode};
use super::{Live, Record};
use crate::observe::error_log::Level as LogLevel;

/// Threads that read and write.
const THREADS: usize = 4;
/// How often the ledger goes to the disk itself, so that a power failure takes back little.
const SYNC: Duration = Duration::from_secs(1);
/// How long the store may take to write what it has when it is closed.
const CLOSING: Duration = Duration::from_secs(2);
/// A page of the store, and its head before each value.
const PAGE: usize = 4096;
const STORE_HEAD: usize = 64;

/// After a failed write, how long nothing is written.
const PAUSE: Duration = Duration::from_secs(2);

/// A store that is being opened.
pub(super) struct Opening(blocking::Receiver<Result<(), String>>);

impl Opening {
    /// Waits until it is open. When it takes longer, it will be open later.
    pub(super) fn wait(self, most: Duration) -> Result<(), String> {
        match self.0.recv_timeout(most) {
            Ok(opened) => opened,
            Err(blocking::RecvTimeoutError::Timeout) => Ok(()),
            Err(blocking::RecvTimeoutError::Disconnected) => {
                Err("the level on disk did not start".to_owned())
            }
        }
    }
}

/// What the thread has over all stores that it opens.
pub(super) struct Work {
    pub(super) jobs: mpsc::UnboundedReceiver<Job>,
    pub(super) purging: mpsc::UnboundedReceiver<Purging>,
    pub(super) log: Arc<Mutex<PurgeLog>>,
    /// There were values before.
    pub(super) found: bool,
}

/// How a store ended.
enum End {
    /// It was closed.
    Closed,
    /// A write failed: foyer's tables are not to be believed after that.
    Failed,
}

/// However the thread ends, nobody waits for it after that.
struct Over(Arc<Shared>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.off.store(true, Ordering::SeqCst);
        *self.0.store.write() = None;
        self.0.folder.release();
    }
}

/// Starts the thread; it ends when it is told to, or when the level is dropped.
pub(super) fn start(shared: Arc<Shared>, work: Work) -> io::Result<Opening> {
    let (tell, opened) = blocking::channel();
    let live = Live::begin();
    std::thread::Builder::new()
        .name("cache-disk".to_owned())
        .spawn(move || {
            let over = Over(shared.clone());
            serve(&shared, work, &tell);
            drop((over, shared, live));
        })?;
    Ok(Opening(opened))
}

/// Opens the store, and opens it anew when it has failed: with a runtime of its own, so that nothing of it
/// stays.
fn serve(shared: &Arc<Shared>, mut work: Work, tell: &blocking::Sender<Result<(), String>>) {
    let mut failing = false;
    loop {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(THREADS)
            .thread_name("cache-disk-io")
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                // Whoever opened it may not wait any more.
                let _told = tell.send(Err(error.to_string())).is_ok();
                return;
            }
        };
        let end = runtime.block_on(session(shared, &mut work, tell, &mut failing));
        *shared.store.write() = None;
        runtime.shutdown_timeout(CLOSING);
        if matches!(end, End::Closed) {
            return;
        }
    }
}

async fn session(
    shared: &Arc<Shared>,
    work: &mut Work,
    tell: &blocking::Sender<Result<(), String>>,
    failing: &mut bool,
) -> End {
    let Work {
        jobs,
        purging,
        log,
        found,
    } = work;
    let writing = async {
        if *failing && pause(shared, jobs).await {
            return End::Closed;
        }
        let found = std::mem::take(found);
        match begin(shared, tell, found, *failing).await {
            Some(store) => write(shared, &store, jobs, failing).await,
            None if *failing => End::Failed,
            None => End::Closed,
        }
    };
    let end = tokio::select! {
        end = writing => end,
        never = keep_ledger(shared) => match never {},
        never = keep_purges(shared, purging, log) => match never {},
    };
    flush(shared, false).await;
    end
}

/// Drops what comes for a while; true: it is to end.
async fn pause(shared: &Shared, jobs: &mut mpsc::UnboundedReceiver<Job>) -> bool {
    let until = Instant::now() + PAUSE;
    loop {
        match tokio::time::timeout_at(until, jobs.recv()).await {
            Ok(Some(Job::Write(write))) => {
                if write.entry.is_some() {
                    add(&shared.counts.errors, 1);
                }
                settle(shared, &write);
            }
            Ok(Some(Job::Close) | None) => return true,
            Err(_) => return false,
        }
    }
}

/// A value waits no more.
fn settle(shared: &Shared, write: &Write) {
    shared.waiting(&write.key).fetch_sub(1, Ordering::SeqCst);
    shared.queued.fetch_sub(write.weight(), Ordering::SeqCst);
}

async fn open(shared: &Shared) -> foyer::Result<Store> {
    let layout = shared.layout;
    let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    let device = FsDeviceBuilder::new(shared.folder.blocks())
        .with_capacity(bytes(layout.room))
        .build()?;
    let engine = BlockEngineConfig::new(device)
        .with_block_size(bytes(layout.block))
        .with_buffer_pool_size(bytes(layout.buffer))
        .with_submit_queue_size_threshold(bytes(layout.buffer) * 2);
    HybridCache::builder()
        .with_name(shared.cache.clone())
        .with_policy(HybridCachePolicy::WriteOnInsertion)
        .with_flush_on_close(false)
        // It is asked for the disk only; memory is the level before.
        .memory(1)
        .with_shards(1)
        .storage()
        .with_io_engine_config(PsyncIoEngineConfig::new())
        .with_engine_config(engine)
        .with_recover_mode(RecoverMode::Quiet)
        .with_spawner(Spawner::Handle(Handle::current()))
        .build()
        .await
}

/// Opens the store; `None`: it cannot be opened.
async fn begin(
    shared: &Arc<Shared>,
    tell: &blocking::Sender<Result<(), String>>,
    found: bool,
    again: bool,
) -> Option<Store> {
    let begun = Instant::now();
    let mended = match again {
        true => on_disk(shared, |shared| shared.folder.mend()).await,
        false => Ok(()),
    };
    let opened = match mended {
        Ok(()) => open(shared).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let store = match opened {
        Ok(store) => store,
        Err(error) => {
            let message = format!("the level on disk cannot be opened: {error}");
            if again || tell.send(Err(error)).is_err() {
                shared.say(LogLevel::Error, &message);
            }
            return None;
        }
    };
    measure(shared).await;
    if found {
        let bytes = shared.counts.bytes.load(Ordering::Relaxed);
        let message = format!("{bytes} bytes on disk, opened in {:?}", begun.elapsed());
        shared.tell(LogLevel::Notice, &message);
    }
    *shared.store.write() = Some(Opened {
        store: store.clone(),
        runtime: Handle::current(),
    });
    // Whoever opened it may not wait any more.
    let _told = tell.send(Ok(())).is_ok();
    Some(store)
}

/// Writes values until there are no more to come, or one is not written.
async fn write(
    shared: &Arc<Shared>,
    store: &Store,
    jobs: &mut mpsc::UnboundedReceiver<Job>,
    failing: &mut bool,
) -> End {
    let mut next = None;
    loop {
        let first = match next.take() {
            Some(write) => write,
            None => match jobs.recv().await {
                Some(Job::Write(write)) => write,
                Some(Job::Close) | None => break,
            },
        };
        let mut closing = false;
        let mut batch = vec![first];
        let most = usize::try_from(shared.layout.buffer).unwrap_or(usize::MAX);
        let mut size = room(&batch[0]);
        while next.is_none() && !closing {
            match jobs.try_recv() {
                Ok(Job::Write(write)) if size + room(&write) <= most => {
                    size += room(&write);
                    batch.push(write);
                }
                Ok(Job::Write(write)) => next = Some(write),
                Ok(Job::Close) => closing = true,
                Err(_) => break,
            }
        }
        let written = put(shared, store, batch, failing).await;
        if !written && !closing {
            if let Some(write) = next {
                settle(shared, &write);
            }
            return End::Failed;
        }
        if closing {
            break;
        }
    }
    shared.off.store(true, Ordering::SeqCst);
    let _closed = tokio::time::timeout(CLOSING, store.close()).await.is_ok();
    End::Closed
}

/// What a value takes of the store's buffer, at most.
fn room(write: &Write) -> usize {
    let Some(entry) = &write.entry else {
        return 0;
    };
    let value = entry.value.as_ref().map_or(0, bytes::Bytes::len);
    let whole = STORE_HEAD + value::HEAD + 64 + write.key.len() + value;
    whole.next_multiple_of(PAGE)
}

/// Writes some values, and waits until they are; whether the store can be gone on with. On a device that
/// is full nothing is tried.
async fn put(shared: &Arc<Shared>, store: &Store, batch: Vec<Write>, failing: &mut bool) -> bool {
    let block = shared.layout.block;
    let full = *failing
        && on_disk(shared, move |shared| Ok(shared.folder.lacks(block * 2)))
            .await
            .unwrap_or(true);
    let (written, missing) = match full {
        true => {
            let values = batch.iter().filter(|write| write.entry.is_some());
            (0, values.count() as u64)
        }
        false => write_all(shared, store, &batch).await,
    };
    add(&shared.counts.writes, written);
    add(&shared.counts.errors, missing);
    for write in &batch {
        settle(shared, write);
    }
    measure(shared).await;
    if missing > 0 && !std::mem::replace(failing, true) {
        let why = match shared.folder.lacks(block * 2) {
            true => "no space left on the device",
            false => "the disk failed",
        };
        let message = format!("values are not written to disk: {why}");
        shared.tell(LogLevel::Warn, &message);
    }
    if missing == 0 && written > 0 && std::mem::take(failing) {
        shared.tell(LogLevel::Notice, "values are written to disk again");
    }
    full || missing == 0
}

/// How many are written, and how many are not.
async fn write_all(shared: &Arc<Shared>, store: &Store, batch: &[Write]) -> (u64, u64) {
    let mut sent = Vec::new();
    for write in batch {
        if store.storage().may_contains(&write.key[..]) {
            store.storage().delete(&write.key[..]);
        }
        let Some(entry) = &write.entry else {
            continue;
        };
        if shared.ledger.counts(&write.key, write.turn) {
            let value = encode(&write.key, entry, write.turn);
            let writer = store.storage_writer(write.key.to_vec()).force();
            drop(writer.insert(value));
            sent.push(write);
        }
    }
    store.storage().wait().await;
    let missing = sent.iter().filter(|write| {
        !store.storage().may_contains(&write.key[..])
            && shared.ledger.counts(&write.key, write.turn)
    });
    let missing = missing.count() as u64;
    (sent.len() as u64 - missing, missing)
}

/// Runs what waits for the disk on a thread that may.
async fn on_disk<T: Send + 'static>(
    shared: &Arc<Shared>,
    work: impl FnOnce(&Shared) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let shared = shared.clone();
    match Handle::current()
        .spawn_blocking(move || work(&shared))
        .await
    {
        Ok(done) => done,
        Err(error) => Err(io::Error::other(error)),
    }
}

async fn measure(shared: &Arc<Shared>) {
    if let Ok(bytes) = on_disk(shared, |shared| Ok(shared.folder.bytes())).await {
        shared.counts.bytes.store(bytes, Ordering::Relaxed);
    }
}

/// Writes the ledger; when that fails nothing of the level can be believed after a restart, so it ends.
async fn flush(shared: &Arc<Shared>, sync: bool) {
    let asked = shared.asked.load(Ordering::SeqCst);
    let flushed = on_disk(shared, move |shared| {
        shared.ledger.flush()?;
        if sync { shared.ledger.sync() } else { Ok(()) }
    })
    .await;
    if let Err(error) = flushed
        && !shared.off.swap(true, Ordering::SeqCst)
    {
        add(&shared.counts.errors, 1);
        let message =
            format!("changes cannot be kept on disk, the level is not used any more: {error}");
        shared.tell(LogLevel::Error, &message);
        if let Err(error) = on_disk(shared, |shared| shared.folder.forget()).await {
            let message = format!("remove the folder of its level on disk before a start: {error}");
            shared.tell(LogLevel::Error, &message);
        }
    }
    shared.done.send_replace(asked);
}

async fn keep_ledger(shared: &Arc<Shared>) -> std::convert::Infallible {
    // What a store before it had begun.
    flush(shared, true).await;
    let mut synced = Instant::now();
    loop {
        shared.wake.notified().await;
        let sync = shared.sync.swap(false, Ordering::SeqCst);
        flush(shared, sync).await;
        if sync {
            synced = Instant::now();
        } else if synced.elapsed() > SYNC {
            synced = Instant::now();
            // Nobody waits for it.
            let shared = shared.clone();
            drop(Handle::current().spawn_blocking(move || shared.ledger.sync()));
        }
    }
}

async fn keep_purges(
    shared: &Arc<Shared>,
    purging: &mut mpsc::UnboundedReceiver<Purging>,
    log: &Arc<Mutex<PurgeLog>>,
) -> std::convert::Infallible {
    while let Some(purge) = purging.recv().await {
        let log = log.clone();
        let Purging {
            member,
            at,
            known,
            done,
        } = purge;
        let kept = on_disk(shared, move |_| match Record::of_member(&member, at) {
            Some(record) => log.lock().add(record, &known),
            None => Ok(()),
        });
        if let Err(error) = kept.await {
            add(&shared.counts.errors, 1);
            shared.say(LogLevel::Error, &format!("a purge is not kept: {error}"));
        }
        // Whoever asked may have left.
        let _heard = done.send(()).is_ok();
    }
    std::future::pending().await
}
