//! The command line of the Go steps: `phasor-go new FOLDER` begins a plugin, `phasor-go build FOLDER
//! FILE.wasm` makes a component of it, `phasor-go inspect FILE.wasm` tells what one imports and exports. `phasor-go bindings sdk/go`
//! writes the SDK's generated packages anew, `phasor-go check sdk/go` tells which are stale.

use std::env;
use std::io::{Write as _, stdout};
use std::path::Path;

use anyhow::{Result, ensure};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["build", folder, file] => phasor_go::build(Path::new(folder), Path::new(file)),
        ["new", folder] => phasor_go::create(Path::new(folder)),
        ["inspect", file] => {
            let text = phasor_go::inspect(Path::new(file))?;
            Ok(stdout().write_all(text.as_bytes())?)
        }
        ["bindings", module] => phasor_go::write_bindings(Path::new(module)),
        ["check", module] => {
            let stale = phasor_go::stale_bindings(Path::new(module))?;
            ensure!(
                stale.is_empty(),
                "stale, `make bless` writes them anew: {}",
                stale.join(" ")
            );
            Ok(())
        }
        _ => anyhow::bail!(
            "usage: phasor-go new FOLDER | build FOLDER FILE.wasm | inspect FILE.wasm | bindings MODULE | check MODULE"
        ),
    }
}
