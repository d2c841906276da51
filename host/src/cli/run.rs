//! `phasor run`: serve until a signal ends it.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::generation::BuildError;
use crate::server::{self, Options, Server};

pub(super) fn main(file: Option<PathBuf>, watch: bool, json: bool) -> ExitCode {
    let source = super::source(file);
    let options = Options { watch, json };
    let config = match source.load() {
        Ok(config) => config,
        Err(wrong) => return super::bad_configuration(&wrong),
    };
    server::log_panics();
    let served =
        server::open_error_log(&config, json).and_then(|()| Server::start(source, config, options));
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
