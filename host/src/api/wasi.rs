//! WASI for guests: clocks and randomness for all; standard output and error become log lines; no
//! files, arguments or sockets but what `allow` names.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::random::Deterministic;
use wasmtime_wasi::{FsPerms, HostMonotonicClock, WasiCtx, WasiCtxBuilder};

use super::PluginInfo;
use crate::observe::error_log::{self, Context, Level};

/// A line longer than this is written in pieces.
const LINE: usize = 4 << 10;

/// What a language runtime takes from its surroundings while it starts, where it must leave the same
/// memory each time: else its heap image would be another one, and be compiled anew, at every start
/// of the server. Hash tables are seeded from it, so that outsiders must not guess the seed.
#[derive(Clone)]
pub(super) struct Steady {
    seed: [u8; 32],
    began: Instant,
    ticks: Arc<AtomicU64>,
}

impl Steady {
    /// Made of the machine's secret, for one component.
    pub(super) fn new(secret: u64, component: &[u8]) -> Self {
        let mut hash = Sha256::new_with_prefix(secret.to_le_bytes());
        hash.update(component);
        Self {
            seed: hash.finalize().into(),
            began: Instant::now(),
            ticks: Arc::default(),
        }
    }

    /// Far more bytes than a runtime draws when it starts.
    fn bytes(&self) -> Vec<u8> {
        let block = |place: u8| Sha256::new_with_prefix(self.seed).chain_update([place]);
        (0..=u8::MAX).flat_map(|p| block(p).finalize()).collect()
    }
}

/// A clock that goes on with each look, by so much.
const TICK: u64 = 1_000;

/// It keeps to real time by whole seconds, for who waits.
impl HostMonotonicClock for Steady {
    fn resolution(&self) -> u64 {
        TICK
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_secs() * 1_000_000_000
            + self.ticks.fetch_add(TICK, Ordering::Relaxed)
    }
}

/// The WASI context of a new instance.
pub(super) fn context(plugin: &Arc<PluginInfo>) -> WasiCtx {
    offered(plugin).build()
}

/// That of an instance whose memory becomes a heap image; `starts` until its runtime has started,
/// after which what it draws at random is random.
pub(super) fn image(plugin: &Arc<PluginInfo>, steady: &Steady, starts: bool) -> WasiCtx {
    let mut builder = offered(plugin);
    let bytes = steady.bytes();
    builder.monotonic_clock(steady.clone());
    builder.insecure_random_seed(u128::from_le_bytes(std::array::from_fn(|at| bytes[at])));
    if starts {
        builder.secure_random(Deterministic::new(bytes));
    }
    builder.build()
}

fn offered(plugin: &Arc<PluginInfo>) -> WasiCtxBuilder {
    let mut builder = WasiCtxBuilder::new();
    builder.stdout(LogLines {
        plugin: plugin.clone(),
        level: Level::Notice,
    });
    builder.stderr(LogLines {
        plugin: plugin.clone(),
        level: Level::Error,
    });
    builder
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false);
    for (name, value) in std::env::vars() {
        if plugin.allow.env.allows(|allowed| *allowed == name) {
            builder.env(name, value);
        }
    }
    for grant in &plugin.allow.files {
        let permissions = if grant.write {
            FsPerms::ReadWrite
        } else {
            FsPerms::ReadOnly
        };
        if let Err(error) = builder.preopened_dir(&grant.path, &grant.name, permissions) {
            let message = format!("allow.files: {}: {error}", grant.path.display());
            error_log::write(
                Level::Error,
                &Context {
                    plugin: Some(&plugin.name),
                    ..Context::default()
                },
                message,
            );
        }
    }
    builder
}

struct LogLines {
    plugin: Arc<PluginInfo>,
    level: Level,
}

impl IsTerminal for LogLines {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogLines {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        Box::new(self.lines())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.lines())
    }
}

impl LogLines {
    fn lines(&self) -> Lines {
        Lines {
            plugin: self.plugin.clone(),
            level: self.level,
            line: Vec::new(),
        }
    }
}

/// Gathers bytes and writes whole lines.
struct Lines {
    plugin: Arc<PluginInfo>,
    level: Level,
    line: Vec<u8>,
}

impl Lines {
    fn add(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") || self.line.len() >= LINE {
                self.write_line();
            }
        }
    }

    fn write_line(&mut self) {
        let line = self.line.trim_ascii_end();
        if !line.is_empty() {
            error_log::write(
                self.level,
                &Context {
                    plugin: Some(&self.plugin.name),
                    ..Context::default()
                },
                line,
            );
        }
        self.line.clear();
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.write_line();
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Lines {
    async fn ready(&mut self) {}
}

impl OutputStream for Lines {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.add(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(LINE)
    }
}

impl tokio::io::AsyncWrite for Lines {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _cx: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.add(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut TaskContext<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut TaskContext<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
