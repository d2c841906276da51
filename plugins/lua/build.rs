//! Builds the C half of the plugin (Lua with our patches, PCRE2) for Wasm; does nothing elsewhere.
//!
//! Nothing third-party is checked in: the sources are those of the crates `lua-src` and
//! `pcre2-sys`, found through `cargo metadata`. Paths are mapped, so that the output is the same
//! on every machine.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Headers of Debian's package `wasi-libc`; the library itself is Rust's own.
const WASI_HEADERS: &str = "/usr/include/wasm32-wasi";

fn main() -> Outcome<()> {
    for path in ["build.rs", "csrc", "patches"] {
        println!("cargo:rerun-if-changed={path}");
    }
    if env::var("CARGO_CFG_TARGET_ARCH").as_deref() != Ok("wasm32") {
        return Ok(());
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let metadata = cargo_metadata()?;
    build_lua(
        &source_folder(&metadata, "lua-src")?.join("lua-5.2.4"),
        &out,
    )?;
    build_pcre2(
        &source_folder(&metadata, "pcre2-sys")?.join("upstream"),
        &out,
    )
}

fn cargo_metadata() -> Outcome<String> {
    let output = std::process::Command::new(env::var("CARGO")?)
        .args(["metadata", "--format-version", "1"])
        .current_dir(env::var("CARGO_MANIFEST_DIR")?)
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The folder of a crate: the one `manifest_path` of the metadata that lies in `NAME-VERSION`.
fn source_folder(metadata: &str, name: &str) -> Outcome<PathBuf> {
    let key = "\"manifest_path\":\"";
    for (at, _) in metadata.match_indices(key) {
        let path = &metadata[at + key.len()..];
        let path = Path::new(&path[..path.find('"').unwrap_or(0)]);
        if let Some(folder) = path.parent() {
            let last = folder.file_name().and_then(|n| n.to_str()).unwrap_or("");
            if last.strip_prefix(name).is_some_and(|v| v.starts_with('-')) {
                return Ok(folder.to_path_buf());
            }
        }
    }
    Err(format!("cargo metadata knows no crate {name}").into())
}

fn compiler(sources: &Path) -> cc::Build {
    let mut build = cc::Build::new();
    build
        .flag("--sysroot=/nonexistent")
        .flag("-isystem")
        .flag("csrc/include")
        .flag("-isystem")
        .flag(WASI_HEADERS)
        .flag("-fwasm-exceptions")
        .flag("-mllvm")
        .flag("-wasm-enable-sjlj")
        .flag("-mllvm")
        .flag("-wasm-use-legacy-eh=false")
        .flag(format!("-ffile-prefix-map={}=.", sources.display()))
        .define("_WASI_EMULATED_SIGNAL", None)
        .define("_WASI_EMULATED_PROCESS_CLOCKS", None)
        .include(sources)
        .opt_level(3)
        .debug(false)
        .warnings(false);
    build
}

fn build_lua(original: &Path, out: &Path) -> Outcome<()> {
    let folder = out.join("lua");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    for entry in fs::read_dir(original)? {
        let path = entry?.path();
        if let Some(name) = path.file_name() {
            fs::write(folder.join(name), fs::read(&path)?)?;
        }
    }
    let mut patches: Vec<PathBuf> = fs::read_dir("patches")?
        .map(|e| e.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    patches.sort();
    for patch in patches {
        apply(&fs::read_to_string(&patch)?, &folder)
            .map_err(|e| format!("{}: {e}", patch.display()))?;
    }
    let mut build = compiler(&folder);
    let skip = ["lua.c", "luac.c", "linit.c", "lbitlib.c", "lcorolib.c"];
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)?
        .map(|e| e.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|f| {
        f.extension().is_some_and(|e| e == "c") && !skip.iter().any(|s| f.ends_with(s))
    });
    files.sort();
    build
        .files(files)
        .file("csrc/setjmp.c")
        .file("csrc/phasor.c");
    build
        .define("LUA_COMPAT_ALL", None)
        .define("LUA_USE_LONGLONG", None)
        .define("LUA_USE_AFORMAT", None)
        .define("luai_makeseed()", "phasor_seed");
    build.compile("phasorlua");
    Ok(())
}

/// Applies a unified diff whose context fits exactly.
fn apply(patch: &str, folder: &Path) -> Outcome<()> {
    let mut file: Option<(PathBuf, String)> = None;
    let mut lines = patch.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("+++ ") {
            if let Some((path, text)) = file.take() {
                fs::write(path, text)?;
            }
            let path = folder.join(name.split('\t').next().unwrap_or(name));
            let text = fs::read_to_string(&path)?;
            file = Some((path, text));
        } else if line.starts_with("@@") {
            let (mut old, mut new) = (String::new(), String::new());
            while let Some(next) = lines.next_if(|l| {
                l.is_empty() || l.starts_with([' ', '+', '-']) && !l.starts_with("--- ")
            }) {
                let rest = next.get(1..).unwrap_or("");
                if !next.starts_with('+') {
                    old.push_str(rest);
                    old.push('\n');
                }
                if !next.starts_with('-') {
                    new.push_str(rest);
                    new.push('\n');
                }
            }
            let (path, text) = file.as_mut().ok_or("a hunk before a file name")?;
            if text.matches(&old).count() != 1 {
                return Err(format!(
                    "{}: {line} fits {} times",
                    path.display(),
                    text.matches(&old).count()
                )
                .into());
            }
            *text = text.replacen(&old, &new, 1);
        }
    }
    if let Some((path, text)) = file {
        fs::write(path, text)?;
    }
    Ok(())
}

fn build_pcre2(upstream: &Path, out: &Path) -> Outcome<()> {
    let _ = out;
    if !Path::new("csrc/pcre2").is_dir() {
        return Ok(());
    }
    let sources = upstream.join("src");
    let mut files: Vec<PathBuf> = fs::read_dir(&sources)?
        .map(|e| e.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    let included = ["pcre2_jit_match.c", "pcre2_jit_misc.c", "pcre2_ucptables.c"];
    files.retain(|f| {
        f.extension().is_some_and(|e| e == "c") && !included.iter().any(|s| f.ends_with(s))
    });
    files.sort();
    let mut build = compiler(&sources);
    build
        .include("csrc/pcre2")
        .include(upstream.join("include"))
        .define("HAVE_CONFIG_H", "1")
        .define("PCRE2_STATIC", None)
        .define("PCRE2_CODE_UNIT_WIDTH", "8")
        .files(files);
    build.compile("phasorpcre2");
    Ok(())
}
