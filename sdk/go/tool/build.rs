//! Lists the contract's files, so that the tool carries them and needs no folder beside it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../wit");
    println!("cargo::rerun-if-changed={}", wit.display());
    let mut files: Vec<PathBuf> = fs::read_dir(&wit)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|kind| kind == "wit"));
    files.sort();
    let mut list = String::from("[");
    for file in files {
        println!("cargo::rerun-if-changed={}", file.display());
        let name = file.file_name().unwrap_or_default();
        let _ = writeln!(list, "({name:?}, include_str!({file:?})),");
    }
    list.push(']');
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    fs::write(Path::new(&out).join("wit.rs"), list)
}
