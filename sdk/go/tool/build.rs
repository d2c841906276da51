//! Lists the contract's files and the SDK's, so that the tool carries them and needs no folder
//! beside it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(env::var("OUT_DIR").map_err(io::Error::other)?);
    fs::write(out.join("wit.rs"), list(&own.join("../../../wit"), "wit")?)?;
    fs::write(out.join("sdk.rs"), list(&own.join(".."), "go mod s")?)
}

/// The files below a folder that have one of these extensions, as an expression: names and texts.
fn list(folder: &Path, kinds: &str) -> io::Result<String> {
    let folder = folder.canonicalize()?;
    let mut files = Vec::new();
    walk(&folder, &mut files)?;
    files.sort();
    let mut list = String::from("[");
    for file in files {
        let kind = file.extension().unwrap_or_default().to_string_lossy();
        let name = file.strip_prefix(&folder).map_err(io::Error::other)?;
        if kinds.split(' ').any(|one| one == kind) {
            println!("cargo::rerun-if-changed={}", file.display());
            writeln!(list, "({name:?}, include_str!({file:?})),").map_err(io::Error::other)?;
        }
    }
    list.push(']');
    Ok(list)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    println!("cargo::rerun-if-changed={}", folder.display());
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // The tool itself lies below the SDK.
        if !path.is_dir() {
            files.push(path);
        } else if path.file_name().is_some_and(|name| name != "tool") {
            walk(&path, files)?;
        }
    }
    Ok(())
}
