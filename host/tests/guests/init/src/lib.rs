//! Fills a table in `init`, from the plugin's configuration; the content handler shows that every
//! instance starts with it. `config = { fail = true }` makes the load fail,
//! `spin = true` makes it run for ever.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use phasor_plugin::{Answer, Request, config, notice, worker};

#[derive(serde::Deserialize)]
struct Config {
    #[serde(default)]
    fail: bool,
    #[serde(default)]
    spin: bool,
    #[serde(default)]
    names: Vec<String>,
}

static TABLE: OnceLock<BTreeMap<String, usize>> = OnceLock::new();

#[phasor_plugin::init]
fn fill() -> Result<(), String> {
    let config: Config = config::read().map_err(|error| format!("config: {error}"))?;
    if config.fail {
        return Err("init fails on purpose".to_owned());
    }
    // `limits.watchdog` ends it.
    while std::hint::black_box(config.spin) {}
    let table = config
        .names
        .into_iter()
        .enumerate()
        .map(|(place, name)| (name, place));
    TABLE
        .set(table.collect())
        .map_err(|_| "init was called twice".to_owned())
}

#[phasor_plugin::init_worker]
fn start() {
    notice!(
        "instance starts in worker {} of {}",
        worker::id(),
        worker::count()
    );
}

#[phasor_plugin::exit_worker]
fn leave() {
    notice!("instance leaves worker {}", worker::id());
}

/// `/…/NAME` gives the place of that name.
#[phasor_plugin::content]
fn look_up(request: &Request) -> Answer {
    let path = request.path();
    let name = path.rsplit('/').next().unwrap_or_default();
    match TABLE.get().map(|table| table.get(name)) {
        Some(Some(place)) => Answer::text(format!("{place}\n")),
        Some(None) => Answer::new(404).body("no such name\n"),
        None => Answer::new(500).body("init has not run\n"),
    }
}
