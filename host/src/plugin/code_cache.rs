//! The cache of compiled code on disk, because compiling takes seconds and a restart must not: the
//! second start of a configuration takes its code from here.
//!
//! A file's name has the hash of all that goes in, so nothing in it grows old; every changed component
//! leaves one more behind. When they are more than the bound, those unused for longest go.

use std::fs::{DirBuilder, File, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::config::model::CompileCache;

/// A file that is being written for so long was left by a process that died.
const STALE: Duration = Duration::from_secs(3600);

/// A folder of compiled code.
#[derive(Debug, Clone)]
pub struct CodeCache {
    folder: PathBuf,
    /// In bytes.
    size: u64,
}

impl CodeCache {
    /// The one that a configuration wants: its own folder, else `PHASOR_CACHE`, else below the user's
    /// cache folder.
    #[must_use]
    pub fn of(settings: &CompileCache) -> Option<Self> {
        let size = settings.size;
        if size == 0 {
            return None;
        }
        let folder = settings.path.clone().or_else(usual_folder)?;
        Some(Self { folder, size })
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Named by what goes in: the component, and everything about the engine that changes the code.
    pub(super) fn file(&self, engine: &Engine, bytes: &[u8]) -> PathBuf {
        use std::hash::{Hash, Hasher};
        #[expect(
            deprecated,
            reason = "SipHash with fixed keys: the same name in every process"
        )]
        let mut compatibility = std::hash::SipHasher::new();
        engine
            .precompile_compatibility_hash()
            .hash(&mut compatibility);
        let digest = Sha256::digest(bytes);
        let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        let name = format!("{hex}-{:016x}.cwasm", compatibility.finish());
        self.folder.join(name)
    }

    #[expect(
        unsafe_code,
        reason = "wasmtime cannot check that a file of compiled code is its own work"
    )]
    pub(super) fn load(&self, engine: &Engine, file: &Path) -> Option<Component> {
        if !trusted(file) {
            return None;
        }
        // SAFETY: the file lies in a folder that only this user can write to and was written by
        // `store` from the engine's own output; its name has the hash of everything that went in.
        let component = unsafe { Component::deserialize_file(engine, file) }.ok()?;
        // Its time says when it was used last; without that it only goes sooner.
        let _marked = File::options()
            .append(true)
            .open(file)
            .and_then(|file| file.set_modified(SystemTime::now()))
            .is_ok();
        Some(component)
    }

    fn make_folder(&self) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
    }

    /// A lock on what is being compiled; none where there can be none, which only costs time.
    pub(super) fn alone(&self) -> Option<File> {
        self.make_folder().ok()?;
        // One file for all, so that none is left behind for each.
        let lock = File::create(self.folder.join("compiling.lock")).ok()?;
        lock.lock().ok()?;
        Some(lock)
    }

    /// Writes under another name first: a reader never sees half a file.
    pub(super) fn store(&self, file: &Path, code: &[u8]) -> io::Result<()> {
        if code.len() as u64 > self.size {
            return Err(io::Error::other(format!(
                "its {} bytes are more than compile_cache.size",
                code.len()
            )));
        }
        self.make_folder()?;
        let partial = file.with_extension(format!("{}.partial", std::process::id()));
        std::fs::write(&partial, code)?;
        std::fs::rename(&partial, file)?;
        self.evict(file)
    }

    /// Makes room: what was used last goes last. Code in use stays mapped when its file goes.
    fn evict(&self, newest: &Path) -> io::Result<()> {
        let mut files = Vec::new();
        let mut total = 0;
        for entry in std::fs::read_dir(&self.folder)?.flatten() {
            let path = entry.path();
            let Ok(found) = entry.metadata() else {
                continue;
            };
            let kind = path.extension().and_then(|extension| extension.to_str());
            match kind {
                Some("cwasm") => {
                    total += found.len();
                    if path != newest {
                        files.push((used(&found), found.len(), path));
                    }
                }
                Some("partial") if used(&found) + STALE < SystemTime::now() => {
                    std::fs::remove_file(path)?;
                }
                _ => {}
            }
        }
        files.sort();
        for (_, length, path) in files {
            if total <= self.size {
                break;
            }
            match std::fs::remove_file(path) {
                // Another server makes room in the same folder.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => total -= length,
            }
        }
        Ok(())
    }
}

fn used(found: &Metadata) -> SystemTime {
    found.modified().unwrap_or(SystemTime::UNIX_EPOCH)
}

fn usual_folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("PHASOR_CACHE") {
        return (!folder.is_empty()).then(|| folder.into());
    }
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(folder) if !folder.is_empty() => PathBuf::from(folder),
        _ => PathBuf::from(std::env::var_os("HOME")?).join(".cache"),
    };
    Some(base.join("phasor"))
}

/// Only a file of this user, in a folder that nobody else can write to, is believed.
fn trusted(file: &Path) -> bool {
    let own = rustix::process::geteuid().as_raw();
    let ours = |path: &Path| {
        std::fs::symlink_metadata(path).is_ok_and(|m| m.uid() == own && m.mode() & 0o022 == 0)
    };
    ours(file) && file.parent().is_some_and(ours)
}

#[cfg(test)]
mod tests {
    use super::{CodeCache, STALE};
    use std::fs::File;
    use std::time::{Duration, SystemTime};

    #[test]
    fn the_bound_holds_and_the_oldest_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let cache = CodeCache {
            folder: folder.path().join("cache"),
            size: 100,
        };
        let file = |name: &str| cache.folder.join(name);
        let age = |name: &str, seconds: u64| {
            let time = SystemTime::now() - Duration::from_secs(seconds);
            let open = File::options().append(true).open(file(name)).unwrap();
            open.set_modified(time).unwrap();
        };
        for (name, seconds) in [("a.cwasm", 300), ("b.cwasm", 100), ("c.cwasm", 200)] {
            cache.store(&file(name), &[0; 30]).unwrap();
            age(name, seconds);
        }
        std::fs::write(file("seed"), [0; 1000]).unwrap();
        std::fs::write(file("dead.partial"), "").unwrap();
        age("dead.partial", STALE.as_secs() + 1);
        std::fs::write(file("live.partial"), "").unwrap();
        // 90 bytes and 40 more: the two oldest go, and nothing that is no compiled code.
        cache.store(&file("d.cwasm"), &[0; 40]).unwrap();
        let mut left: Vec<_> = std::fs::read_dir(&cache.folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(
            left,
            ["b.cwasm", "c.cwasm", "d.cwasm", "live.partial", "seed"]
        );
        // What does not fit at all takes no other's place.
        assert!(cache.store(&file("e.cwasm"), &[0; 101]).is_err());
        assert!(file("b.cwasm").exists() && !file("e.cwasm").exists());
        // The newest stays, though it fills the cache.
        cache.store(&file("f.cwasm"), &[0; 100]).unwrap();
        assert!(file("f.cwasm").exists() && !file("d.cwasm").exists());
    }
}
