//! Makes a component of Go code, in two steps around `go build`: [`bindings`] writes the packages
//! that the code imports, [`component`] encodes the compiler's core module.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::{Resolve, WorldId};
use wit_component::{ComponentEncoder, DecodedWasm, StringEncoding, embed_component_metadata};

/// Our own run-time packages, beside the generated ones: the generator's need the network, and
/// allocate where a component must not.
const RUNTIME: [(&str, &str); 3] = [
    (
        "wit/runtime/empty.s",
        include_str!("../../runtime/runtime/empty.s"),
    ),
    (
        "wit/runtime/runtime.go",
        include_str!("../../runtime/runtime/runtime.go"),
    ),
    (
        "wit/types/types.go",
        include_str!("../../runtime/types/types.go"),
    ),
];

/// What is changed in the generated text: our packages, values copied out of the arenas, and word
/// given to the arenas when a call begins and ends.
const CHANGES: [(&str, &str); 5] = [
    ("\"go.bytecodealliance.org/pkg/wit/", "\"wit_component/wit/"),
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
];

/// Writes the Go packages of a world into `target`, which is a Go module then. A handler belongs
/// into the package `export_phasor_plugin_PHASE` there, as `func Handle`.
pub fn bindings(wit: &Path, world: &str, target: &Path) -> Result<()> {
    let (mut resolve, world) = select(wit, world)?;
    let mut options = wit_bindgen_go::Opts::default();
    // The host's functions wait by suspending the whole stack, in each language alike.
    options.async_.push("-all");
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files)?;
    for (name, text) in files.iter() {
        let text = std::str::from_utf8(text).with_context(|| format!("generated {name}"))?;
        let text = if name == "go.mod" {
            "module wit_component\n\ngo 1.25\n".to_owned()
        } else {
            adapt(text)
        };
        write(&target.join(name), &text)?;
    }
    for (name, text) in RUNTIME {
        write(&target.join(name), text)?;
    }
    Ok(())
}

/// Encodes what `GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared` has made.
pub fn component(core: &Path, wit: &Path, world: &str, target: &Path) -> Result<()> {
    let mut module = read(core)?;
    let (resolve, world) = select(wit, world)?;
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

fn select(wit: &Path, world: &str) -> Result<(Resolve, WorldId)> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(wit)?;
    let world = resolve.select_world(&[package], Some(world))?;
    Ok((resolve, world))
}

fn adapt(text: &str) -> String {
    let mut text = text.to_owned();
    for (from, to) in CHANGES {
        text = text.replace(from, to);
    }
    // Go refuses an import that is not there as well as one that is not used.
    let import = "witRuntime \"wit_component/wit/runtime\"";
    if text.contains("witRuntime.") && !text.contains(import) {
        text = text.replacen("import (", &format!("import (\n\t{import}"), 1);
    }
    if !text.replace("\"unsafe\"", "").contains("unsafe.") {
        text = text.replacen("\t\"unsafe\"\n", "", 1);
    }
    text
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
