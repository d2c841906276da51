//! `phasor schema`: what a configuration may hold, for editors and for people.

use std::io::Write as _;
use std::process::ExitCode;

use crate::config;

pub(super) fn main(markdown: bool) -> ExitCode {
    let text = if markdown {
        config::reference()
    } else {
        format!("{:#}", config::schema())
    };
    match writeln!(anstream::stdout(), "{}", text.trim_end()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
