//! The pid file, because `phasor stop` and `phasor reload` have to find the server that runs a
//! configuration, and must never signal a stranger that got its number later.
//!
//! A server holds a lock on its pid file as long as it lives: the lock says whether one runs, the
//! number in the file only which. Beside it stands how the last reload ended, so that the command
//! can say so.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use rustix::fs::FlockOperation;
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::config::model::PidPlace;

/// The lock may be held for a moment by a command that looks whether it is held.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(20);

/// Where the pid file of a configuration may lie, the best place first.
#[must_use]
pub fn places(place: &PidPlace, key: &Path) -> Vec<PathBuf> {
    match place {
        PidPlace::Off => Vec::new(),
        PidPlace::File(path) => vec![path.clone()],
        PidPlace::Default => folders()
            .into_iter()
            .map(|folder| folder.join(default_name(key)))
            .collect(),
    }
}

/// One name per configuration file, however its path is written.
fn default_name(key: &Path) -> String {
    use sha2::{Digest as _, Sha256};
    let whole = std::fs::canonicalize(key).unwrap_or_else(|_| key.to_owned());
    let digest = Sha256::digest(whole.as_os_str().as_encoded_bytes());
    let hex: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
    format!("{hex}.pid")
}

fn folders() -> Vec<PathBuf> {
    let own = rustix::process::geteuid();
    let mut folders = Vec::new();
    if let Some(folder) = std::env::var_os("XDG_RUNTIME_DIR").filter(|f| !f.is_empty()) {
        folders.push(PathBuf::from(folder).join("phasor"));
    }
    if own.is_root() {
        folders.push(PathBuf::from("/run/phasor"));
    }
    folders.push(std::env::temp_dir().join(format!("phasor-{}", own.as_raw())));
    folders
}

/// Makes the folder of a default place; only one that nobody else can write to will do.
fn own_folder(file: &Path) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(file);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let found = std::fs::symlink_metadata(folder)?;
    let own = rustix::process::geteuid().as_raw();
    if !found.is_dir() || found.uid() != own || found.mode() & 0o022 != 0 {
        return Err(std::io::Error::other("others can write to its folder"));
    }
    Ok(())
}

/// Another server holds the pid file.
#[derive(Debug)]
pub struct Taken(String);

impl std::fmt::Display for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} serves this configuration already", self.0)
    }
}

impl std::error::Error for Taken {}

/// The pid file of this process; removed when it is dropped.
pub struct PidFile {
    path: PathBuf,
    reloads: u64,
    /// Holds the lock.
    _file: File,
}

impl PidFile {
    /// Takes the first place that can be had; `None` when the configuration wants none.
    ///
    /// # Errors
    /// When another server has it, or it cannot be written.
    pub fn take(place: &PidPlace, key: &Path) -> anyhow::Result<Option<Self>> {
        let mut failed = None;
        for path in places(place, key) {
            if *place == PidPlace::Default
                && let Err(error) = own_folder(&path)
            {
                failed = Some(anyhow::Error::new(error).context(path.display().to_string()));
                continue;
            }
            return Self::lock(&path)
                .with_context(|| format!("pid file {}", path.display()))
                .map(Some);
        }
        failed.map_or(Ok(None), Err)
    }

    fn lock(path: &Path) -> anyhow::Result<Self> {
        for _ in 0..TRIES {
            let mut file = OpenOptions::new()
                .create(true)
                .read(true)
                .write(true)
                .truncate(false)
                .open(path)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    pause();
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            // The one before may have removed the file between our two calls.
            let (ours, there) = (file.metadata()?, std::fs::metadata(path));
            if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                file.set_len(0)?;
                writeln!(file, "{}", std::process::id())?;
                let taken = Self {
                    path: path.to_owned(),
                    reloads: 0,
                    _file: file,
                };
                taken.state(&Outcome::default())?;
                return Ok(taken);
            }
        }
        let pid = std::fs::read_to_string(path).unwrap_or_default();
        Err(Taken(pid.trim().to_owned()).into())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes down how a reload ended.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn reloaded(&mut self, code: u8, message: &str) -> std::io::Result<()> {
        self.reloads += 1;
        self.state(&Outcome {
            number: self.reloads,
            code,
            message: message.to_owned(),
        })
    }

    /// Under another name first: nobody reads half of it.
    fn state(&self, outcome: &Outcome) -> std::io::Result<()> {
        let (state, partial) = (state_file(&self.path), self.path.with_extension("partial"));
        let text = format!("{} {}\n{}", outcome.number, outcome.code, outcome.message);
        std::fs::write(&partial, text)?;
        std::fs::rename(partial, state)
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // What is left behind holds no lock, and says nothing.
        let _removed = std::fs::remove_file(state_file(&self.path)).is_ok();
        let _removed = std::fs::remove_file(&self.path).is_ok();
    }
}

fn state_file(path: &Path) -> PathBuf {
    path.with_extension("reload")
}

fn pause() {
    #[expect(
        clippy::disallowed_methods,
        reason = "the supervisor before it serves, or a command: no worker waits here"
    )]
    std::thread::sleep(PAUSE);
}

/// How the last reload of a server ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Counts from 1; 0 before the first.
    pub number: u64,
    /// The exit code that fits: 0, 1, or 78 for a bad configuration.
    pub code: u8,
    /// What the log says.
    pub message: String,
}

/// A server that runs, as another process sees it.
pub struct Running {
    /// Its number.
    pub pid: i32,
    process: OwnedFd,
    path: PathBuf,
}

impl Running {
    /// The server that holds the lock of this pid file.
    ///
    /// # Errors
    /// When the file is there and cannot be read, or names a process of another namespace.
    pub fn find(path: &Path) -> anyhow::Result<Option<Self>> {
        for _ in 0..TRIES {
            let mut file = match File::open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            if !held(&file)? {
                return Ok(None);
            }
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            let number = text.trim().parse().ok().and_then(Pid::from_raw);
            let Some(pid) = number else {
                // It is about to be written.
                pause();
                continue;
            };
            let process = rustix::process::pidfd_open(pid, PidfdFlags::empty())
                .with_context(|| format!("process {pid} of {}", path.display()))?;
            // The handle is of the process that holds the lock, unless it ended meanwhile.
            if held(&file)? {
                return Ok(Some(Self {
                    pid: pid.as_raw_nonzero().get(),
                    process,
                    path: path.to_owned(),
                }));
            }
        }
        anyhow::bail!("{} holds no number of a process", path.display())
    }

    /// Sends a signal, to this process and no other.
    ///
    /// # Errors
    /// When it has ended, or is another user's.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        rustix::process::pidfd_send_signal(&self.process, signal)
            .with_context(|| format!("signal process {}", self.pid))
    }

    /// Waits until it has ended; `false` when the time is over first.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn wait(&self, most: Duration) -> anyhow::Result<bool> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let most = Timespec {
            tv_sec: i64::try_from(most.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: most.subsec_nanos().into(),
        };
        let mut ends = [PollFd::new(&self.process, PollFlags::IN)];
        match poll(&mut ends, Some(&most)) {
            Ok(count) => Ok(count > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether its pid file is where it was found: a reload may put it elsewhere.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.path.exists()
    }

    /// How its last reload ended.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let text = std::fs::read_to_string(state_file(&self.path)).unwrap_or_default();
        let (head, message) = text.split_once('\n').unwrap_or_default();
        let (number, code) = head.split_once(' ').unwrap_or_default();
        Outcome {
            number: number.parse().unwrap_or_default(),
            code: code.parse().unwrap_or_default(),
            message: message.to_owned(),
        }
    }
}

/// Whether a server holds the lock.
fn held(file: &File) -> anyhow::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            rustix::fs::flock(file, FlockOperation::Unlock)?;
            Ok(false)
        }
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Outcome, PidFile, Running};
    use crate::config::model::PidPlace;

    #[test]
    fn a_lock_and_not_a_number_says_who_runs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("phasor.pid");
        let place = PidPlace::File(path.clone());
        assert!(Running::find(&path).unwrap().is_none());
        // Left by a server that was killed; its number is somebody else's now.
        std::fs::write(&path, "1\n").unwrap();
        assert!(Running::find(&path).unwrap().is_none());

        let mut taken = PidFile::take(&place, &path).unwrap().unwrap();
        let running = Running::find(&path).unwrap().unwrap();
        assert_eq!(running.pid.unsigned_abs(), std::process::id());
        let refused = PidFile::take(&place, &path).map(|_| ()).unwrap_err();
        assert!(format!("{refused:#}").contains(&format!("process {}", running.pid)));

        assert_eq!(running.outcome(), Outcome::default());
        taken.reloaded(78, "two\nlines").unwrap();
        let outcome = running.outcome();
        assert_eq!((outcome.number, outcome.code), (1, 78));
        assert_eq!(outcome.message, "two\nlines");

        drop(taken);
        assert!(Running::find(&path).unwrap().is_none());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
