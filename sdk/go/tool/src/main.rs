//! The command line of the Go steps, for build scripts:
//! `phasor-go bindings WIT WORLD FOLDER`, `phasor-go component CORE WIT WORLD FILE`,
//! `phasor-go inspect FILE`.

use std::env;
use std::io::{Write as _, stdout};
use std::path::Path;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["bindings", wit, world, folder] => {
            phasor_go::bindings(Path::new(wit), world, Path::new(folder))
        }
        ["component", core, wit, world, file] => {
            phasor_go::component(Path::new(core), Path::new(wit), world, Path::new(file))
        }
        ["inspect", file] => {
            let text = phasor_go::inspect(Path::new(file))?;
            Ok(stdout().write_all(text.as_bytes())?)
        }
        _ => bail!(
            "usage: phasor-go bindings WIT WORLD FOLDER | component CORE WIT WORLD FILE | inspect FILE"
        ),
    }
}
