//! Makes a component of what Go's linker gives: finds the phases that the plugin serves, gives the
//! module a world with just these, and encodes it.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, Result, bail, ensure};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasmparser::{KnownCustom, Name, Parser, Payload};
use wit_component::{ComponentEncoder, DecodedWasm, StringEncoding, embed_component_metadata};

use crate::contract::{PHASES, world};

/// Builds the plugin whose package `main` lies in `folder`, with the `go` of the search path or of
/// the variable `GO`.
pub fn build(folder: &Path, target: &Path) -> Result<()> {
    let core = target.with_extension("core.wasm");
    let core = env::current_dir()?.join(core);
    if let Some(parent) = core.parent() {
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    }
    let go = env::var_os("GO").unwrap_or_else(|| "go".into());
    // -checklinkname=0: the SDK takes memory below Go's heap and asks for the next timer, by names
    // that Go keeps to itself.
    let status = Command::new(go)
        .current_dir(folder)
        .env("GOOS", "wasip1")
        .env("GOARCH", "wasm")
        .args(["build", "-trimpath", "-buildvcs=false"])
        .args(["-buildmode=c-shared", "-ldflags=-checklinkname=0", "-o"])
        .arg(&core)
        .arg(".")
        .status()
        .context("starting `go`: Go 1.25 or newer is needed (https://go.dev/dl)")?;
    ensure!(status.success(), "go build has failed");
    encode(&core, target)?;
    fs::remove_file(&core).with_context(|| format!("removing {}", core.display()))
}

/// Encodes a core module of Go's linker.
pub fn encode(core: &Path, target: &Path) -> Result<()> {
    let mut module = read(core)?;
    let phases = phases(&module)?;
    if phases.is_empty() {
        bail!(
            "the plugin serves no phase: its package main calls none of phasor.Content, phasor.Access, …"
        );
    }
    let (resolve, world) = world(&phases)?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    let bytes = ComponentEncoder::default()
        .module(&module)?
        .adapter(
            WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME,
            WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
        )?
        .validate(true)
        .encode()?;
    fs::write(target, bytes).with_context(|| format!("writing {}", target.display()))
}

/// The phases that a module serves. The linker keeps `phasor.Content` only in a program that may
/// call it, so the names of what it kept are the list.
fn phases(module: &[u8]) -> Result<Vec<&'static str>> {
    let mut found = Vec::new();
    let mut named = false;
    for payload in Parser::new(0).parse_all(module) {
        let Payload::CustomSection(section) = payload? else {
            continue;
        };
        let KnownCustom::Name(names) = section.as_known() else {
            continue;
        };
        for name in names {
            let Name::Function(functions) = name? else {
                continue;
            };
            named = true;
            for function in functions {
                let function = function?.name;
                let phase = PHASES
                    .iter()
                    .find(|(_, go)| function.strip_prefix("phasor.") == Some(go));
                found.extend(phase.map(|(wit, _)| *wit));
            }
        }
    }
    ensure!(
        named,
        "the module has no names of functions: link it without -s"
    );
    Ok(found)
}

/// What a component imports and exports, a line for each.
pub fn inspect(file: &Path) -> Result<String> {
    let DecodedWasm::Component(resolve, world) = wit_component::decode(&read(file)?)? else {
        bail!("{} is a WIT package, not a component", file.display());
    };
    let world = &resolve.worlds[world];
    let imports = world.imports.keys().map(|key| ("import", key));
    let exports = world.exports.keys().map(|key| ("export", key));
    let lines = imports.chain(exports);
    Ok(lines
        .map(|(way, key)| format!("{way} {}\n", resolve.name_world_key(key)))
        .collect())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}
