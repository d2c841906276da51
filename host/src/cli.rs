//! The command line: one file per command. Exit codes: 0 fine, 1 failed, 2 bad usage, 78 bad
//! configuration.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

mod check;
mod run;
mod schema;
mod stop;

use crate::server::{BAD_CONFIGURATION, Source};

/// What is served where there is no configuration.
const DEMO: &str = include_str!("../demo/phasor.toml");

/// What someone in a hurry looks for, and no single command says.
const AFTER: &str = "\
Signals, as nginx's: HUP reload, QUIT end when requests have ended, TERM and INT end now,
USR1 open the logs anew
Exit codes: 0 fine, 1 failed, 2 bad usage, 78 bad configuration";

/// Program every phase of a request.
#[derive(Debug, Parser)]
#[command(
    name = "phasor",
    version,
    about,
    after_help = AFTER,
    subcommand_required = false,
    args_conflicts_with_subcommands = true
)]
pub struct Arguments {
    /// What the error log's lines look like before a configuration says so.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What a line of the error log looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (the default): FILE, else ./phasor.toml, else the built-in demo on 127.0.0.1:8000
    Run {
        /// The configuration
        file: Option<PathBuf>,
        /// Reload when the configuration, a component or a Lua file changes
        #[arg(long)]
        watch: bool,
    },
    /// Tell a running server to end its requests and then itself, and wait until it has (signal QUIT)
    Stop {
        #[command(flatten)]
        which: stop::Which,
        /// End now, with what is in progress (signal TERM)
        #[arg(long)]
        now: bool,
    },
    /// Tell a running server to read its configuration again, and say what came of it (signal HUP)
    Reload {
        #[command(flatten)]
        which: stop::Which,
    },
    /// Say everything that is wrong with a configuration, without serving it
    Check {
        /// The configuration
        file: PathBuf,
    },
    /// Print the configuration's JSON schema, or its reference page
    Schema {
        /// Markdown for people
        #[arg(long)]
        markdown: bool,
    },
}

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let json = arguments.log_format == LogFormat::Json;
    match arguments.command {
        None => run::main(None, false, json),
        Some(Command::Run { file, watch }) => run::main(file, watch, json),
        Some(Command::Stop { which, now }) => stop::stop(which, now),
        Some(Command::Reload { which }) => stop::reload(which),
        Some(Command::Check { file }) => check::main(&file),
        Some(Command::Schema { markdown }) => schema::main(markdown),
    }
}

/// What `run`, `stop` and `reload` mean by a file, or by none.
fn source(file: Option<PathBuf>) -> Source {
    let default = Path::new("phasor.toml");
    match file {
        Some(file) => Source::File(file),
        None if default.exists() => Source::File(default.to_owned()),
        None => Source::Text(DEMO),
    }
}

/// Says why a command failed.
fn failed(message: &str) -> ExitCode {
    use std::io::Write as _;
    // Nobody is left to tell when standard error is closed.
    let _told = writeln!(anstream::stderr(), "phasor: {message}").is_ok();
    ExitCode::FAILURE
}

/// Says what is wrong with a configuration.
fn bad_configuration(message: &dyn std::fmt::Display) -> ExitCode {
    use std::io::Write as _;
    // As above.
    let _told = writeln!(anstream::stderr(), "{message}").is_ok();
    ExitCode::from(BAD_CONFIGURATION)
}
