//! What the benchmarks share: a generation built of a configuration's text, an exchange, and a way to
//! time a future on a worker's kind of runtime.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use phasor::api::WorkerInfo;
use phasor::config::Config;
use phasor::engine::Routes;
use phasor::exchange::{self, ConnectionInfo, ExchangeId, Request, RequestBody};
use phasor::generation::{Builder, Generation, Served};
use phasor::server;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;
use tokio::time::Instant;

/// What the configurations call the component of `guest.wat`.
const GUEST: &str = "guest.wasm";

/// A runtime as a worker has it, and a builder of generations.
pub(crate) struct Bench {
    runtime: Runtime,
    local: LocalSet,
    folder: tempfile::TempDir,
    builder: Builder,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let guest = wat::parse_str(include_str!("guest.wat")).expect("guest.wat is fine");
        let file = folder.path().join("phasor.toml");
        std::fs::write(folder.path().join(GUEST), guest).expect("the folder can be written to");
        let empty = Config::parse("", &file).expect("an empty configuration is fine");
        Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime"),
            local: LocalSet::new(),
            folder,
            builder: server::builder(&empty).expect("engines"),
        }
    }

    pub(crate) fn config(&self, text: &str) -> Config {
        let file = self.folder.path().join("phasor.toml");
        Config::parse(text, Path::new(&file)).expect("the configuration is fine")
    }

    pub(crate) fn build(&mut self, config: Config) -> Arc<Generation> {
        self.runtime
            .block_on(self.builder.build(config))
            .expect("the generation can be built")
    }

    /// What a worker serves of a generation.
    pub(crate) fn serve(&self, generation: Arc<Generation>) -> Rc<dyn Routes> {
        let start = async { Served::start(generation, WorkerInfo::default()) };
        self.runtime.block_on(self.local.run_until(start))
    }

    /// The time that `count` turns of `once` take.
    pub(crate) fn time(&self, count: u64, mut once: impl AsyncFnMut()) -> Duration {
        self.runtime.block_on(self.local.run_until(async {
            let began = Instant::now();
            for _ in 0..count {
                once().await;
            }
            began.elapsed()
        }))
    }
}

/// A new request for `/`.
pub(crate) fn exchange(connection: &Rc<ConnectionInfo>) -> ExchangeId {
    exchange_for(connection, &Request::default().target)
}

/// A new request for that.
pub(crate) fn exchange_for(connection: &Rc<ConnectionInfo>, target: &PathAndQuery) -> ExchangeId {
    let mut request = Request {
        target: target.clone(),
        original: target.clone(),
        ..Request::default()
    };
    request.headers.insert(
        http::header::HOST,
        http::HeaderValue::from_static("localhost"),
    );
    exchange::begin(|x| {
        x.request = request;
        x.body = RequestBody::new(None);
        x.connection = Some(connection.clone());
    })
}

pub(crate) fn connection() -> Rc<ConnectionInfo> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
    Rc::new(ConnectionInfo {
        remote: address,
        local: address,
        serial: 1,
    })
}
