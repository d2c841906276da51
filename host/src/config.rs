//! Text becomes checked values here and nowhere else: what comes out of [`Config::load`] can be
//! built, and what is wrong has been said, all of it, with file, line and column.
//!
//! `document` reads the TOML along the definitions of `directives`, `resolve` binds names and looks
//! at files, `model` is what comes out. Nothing here opens a socket or knows Wasm.

use std::path::Path;

mod decode;
pub mod definition;
pub mod diagnostic;
pub mod directives;
pub mod document;
mod look;
pub mod model;
mod reference;
mod resolve;
mod schema;
pub mod template;
#[cfg(test)]
mod tests;
pub mod value;

pub use diagnostic::{Diagnostic, Diagnostics};
pub use look::Look;
pub use model::Config;
pub use reference::reference;
pub use schema::schema;

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, Diagnostics> {
        let (text, look) = Look::read(path).map_err(|error| {
            let file = path.display().to_string();
            Diagnostics::of_file(&file, format!("cannot read the configuration: {error}"))
        })?;
        let config = Self::parse(&text, path)?;
        Ok(Self { look, ..config })
    }

    /// Where the server that runs the file `path` keeps its pid file. A file with mistakes still says
    /// so, as far as it can be read: whoever broke it has to be able to stop the server.
    #[must_use]
    pub fn pid_place(path: &Path) -> model::PidPlace {
        use model::PidPlace;
        if let Ok(config) = Self::load(path) {
            return config.server.pid;
        }
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let table = text.parse::<toml::Table>().unwrap_or_default();
        let pid = table.get("server").and_then(|server| server.get("pid"));
        match pid.and_then(toml::Value::as_str) {
            None => PidPlace::Default,
            Some("off") => PidPlace::Off,
            Some(file) => PidPlace::File(path.parent().unwrap_or(Path::new("")).join(file)),
        }
    }

    /// Reads text as if it stood in the file `path`, which need not exist; relative paths start
    /// from its folder.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Diagnostics> {
        Self::parse_with(text, path, &|name| std::env::var(name).ok())
    }

    /// As [`Self::parse`], with an environment of one's own.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse_with(
        text: &str,
        path: &Path,
        environment: document::Environment<'_>,
    ) -> Result<Self, Diagnostics> {
        let mut reporter = diagnostic::Reporter::new(&path.display().to_string(), text);
        let document = document::parse(text, &directives::ROOT, environment, &mut reporter);
        let config = document.map(|document| resolve::resolve(&document, path, &mut reporter));
        match config {
            Some(config) if !reporter.has_errors() => Ok(config),
            _ => Err(reporter.into_diagnostics()),
        }
    }
}
