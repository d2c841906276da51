//! `phasor run`: serve until a signal ends it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::generation::BuildError;
use crate::server::{self, Server, Source};

/// What is served where there is no configuration.
const DEMO: &str = include_str!("../../demo/phasor.toml");

pub(super) fn main(file: Option<PathBuf>, json: bool) -> ExitCode {
    let default = Path::new("phasor.toml");
    let source = match file {
        Some(file) => Source::File(file),
        None if default.exists() => Source::File(default.to_owned()),
        None => Source::Text(DEMO),
    };
    let config = match source.load() {
        Ok(config) => config,
        Err(wrong) => return super::bad_configuration(&wrong),
    };
    let served = server::open_error_log(&config, json).and_then(|()| Server::start(source, config));
    let server = match served {
        Ok(server) => server,
        Err(error) => match error.downcast_ref::<BuildError>() {
            Some(wrong) => return super::bad_configuration(wrong),
            None => return super::failed(&format!("{error:#}")),
        },
    };
    match server.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::failed(&format!("{error:#}")),
    }
}
