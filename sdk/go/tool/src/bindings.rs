//! Writes the generated packages of `sdk/go/internal`: what the generator makes of the contract,
//! changed so that it works in a component that collects garbage.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use anyhow::{Context as _, Result};
use wit_bindgen_core::Files;

use crate::contract::{PHASES, world};

/// Where the generated packages lie in the module.
const FOLDER: &str = "internal/wit";

/// What is changed in the generated text: our packages, values copied out of the arenas, and word
/// given to the arenas when a call begins and ends. The generator's own run-time package needs the
/// network, and allocates where a component must not.
const CHANGES: [(&str, &str); 7] = [
    (
        "\"go.bytecodealliance.org/pkg/wit/",
        "\"phasor/internal/wit/",
    ),
    ("\"wit_component/", "\"phasor/internal/wit/"),
    ("unsafe.String(", "witRuntime.CopyString("),
    ("unsafe.Slice(", "witRuntime.CopySlice("),
    (
        "defer pinner.Unpin()",
        "witRuntime.Enter()\n\tdefer witRuntime.Leave(pinner)",
    ),
    (
        "\tsyncExportPinner.Unpin()",
        "\twitRuntime.Return(&syncExportPinner)",
    ),
    ("package main\n", "package export\n"),
];

/// The generated files by their path in the module.
fn generate() -> Result<BTreeMap<String, String>> {
    let (mut resolve, world) = world(&PHASES.map(|(wit, _)| wit))?;
    let mut options = wit_bindgen_go::Opts::default();
    // The host's functions wait by suspending the whole stack, in each language alike.
    options.async_.push("-all");
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files)?;
    let mut texts = BTreeMap::new();
    for (name, text) in files.iter().filter(|(name, _)| name.ends_with(".go")) {
        let text = std::str::from_utf8(text).with_context(|| format!("generated {name}"))?;
        let text = adapt(text);
        // The package of an interface whose one function is exported declares nothing of use.
        if text.contains("func ") || text.contains(" struct {") {
            let name = match name {
                "wit_exports.go" => "internal/export/wit_exports.go".to_owned(),
                other => format!("{FOLDER}/{other}"),
            };
            texts.insert(name, text);
        }
    }
    Ok(texts)
}

/// Writes the packages into the module at `module`.
pub fn write(module: &Path) -> Result<()> {
    for (name, text) in generate()? {
        let path = module.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// The names of files that are not what the contract makes of them.
pub fn stale(module: &Path) -> Result<Vec<String>> {
    let mut stale = Vec::new();
    for (name, text) in generate()? {
        let path = module.join(&name);
        match fs::read_to_string(&path) {
            Ok(there) if there == text => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("reading {}", path.display()));
            }
            _ => stale.push(name),
        }
    }
    Ok(stale)
}

fn adapt(text: &str) -> String {
    let mut text = text.to_owned();
    for (from, to) in CHANGES {
        text = text.replace(from, to);
    }
    // A handler is a variable beside the exported functions: the SDK sets it.
    for (wit, go) in PHASES {
        let package = format!("export_phasor_plugin_{}", wit.replace('-', "_"));
        text = text.replace(&format!("\t\"phasor/internal/wit/{package}\"\n"), "");
        for function in ["Handle", "Describe"] {
            text = text.replace(&format!("{package}.{function}("), &format!("{go}("));
        }
    }
    text = text.replace("func main() {}\n", "");
    // Go refuses an import that is not there as well as one that is not used.
    let import = "witRuntime \"phasor/internal/wit/runtime\"";
    if text.contains("witRuntime.") && !text.contains(import) {
        text = text.replacen("import (", &format!("import (\n\t{import}"), 1);
    }
    if !text.replace("\"unsafe\"", "").contains("unsafe.") {
        text = text.replacen("\t\"unsafe\"\n", "", 1);
    }
    text
}
