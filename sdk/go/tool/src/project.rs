//! A new plugin: its first lines, a configuration that serves it, and beside them the SDK as this
//! tool carries it, so that nothing has to be fetched.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// The module `phasor`, file by file.
const SDK: &[(&str, &str)] = &include!(concat!(env!("OUT_DIR"), "/sdk.rs"));

const MAIN: &str = r#"package main

import "phasor"

func init() {
	phasor.Content(func(r *phasor.Request) error {
		return r.Text("hello from Go\n")
	})
}

func main() {}
"#;

/// Writes a new plugin into a folder that is not there yet.
pub fn create(folder: &Path) -> Result<()> {
    ensure!(!folder.exists(), "{} is there already", folder.display());
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let module = format!(
        "module {name}\n\ngo 1.25\n\nrequire phasor v0.0.0\n\nreplace phasor => ./phasor\n"
    );
    let config = format!(
        "[plugin.{name}]\ncomponent = \"{name}.wasm\"\n\n[[route]]\npath = \"/*\"\ncontent = \"{name}\"\n"
    );
    write(&folder.join("main.go"), MAIN)?;
    write(&folder.join("go.mod"), &module)?;
    write(&folder.join("phasor.toml"), &config)?;
    for (name, text) in SDK {
        write(&folder.join("phasor").join(name), text)?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
