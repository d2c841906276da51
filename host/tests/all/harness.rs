//! Starts the built binary on free ports with a configuration in a folder of its own, follows its
//! log and ends it. What a test says about the product goes through here or over a socket.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use regex::{Captures, Regex};
use rustix::process::Signal;

use crate::process::{PATIENCE, Process};

/// The built binary.
pub(crate) const PHASOR: &str = env!("CARGO_BIN_EXE_phasor");

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// How long a generation may take to come about: on a machine that has its compiled code not yet, and
/// compiles a quarter of a core at a time, that takes minutes.
const COMPILED: Duration = Duration::from_secs(400);

/// A folder that is removed with its owner.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// A new, empty one.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "phasor-test-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file, with the folders on its way.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// Copies what a folder holds.
    pub(crate) fn copy_from(&self, source: &Path) {
        for entry in walk(source) {
            let relative = entry.strip_prefix(source).unwrap();
            self.write(relative.to_str().unwrap(), fs::read(&entry).unwrap());
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// All files below a folder, sorted; build output and hidden folders are left out.
pub(crate) fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if path.is_dir() {
                if !(name == "target" || name == "node_modules" || name.starts_with('.')) {
                    folders.push(path);
                }
            } else if name != ".git" {
                // In a second work tree that is a file, which says where the first one is.
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// A port that nothing listens on, below the range from which the system takes ports for outgoing
/// connections, and never given twice by this process: the server shares ports (`SO_REUSEPORT`), so
/// two that were given the same one would not notice.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % u32::from(COUNT / 100)).unwrap() * 100;
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start + step) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Replaces placeholders and makes every listening port a free one; gives the ports in the order in
/// which they stand, the first listener's first. Lines stay where they are.
pub(crate) fn prepare(config: &str) -> (String, Vec<u16>) {
    let mut text = config
        .replace("{guests}", guests().to_str().unwrap())
        .replace(
            "{bundled}",
            root().join("plugins/bundled").to_str().unwrap(),
        );
    let mut ports = Vec::new();
    if text.contains("{port}") {
        ports.push(free_port());
        text = text.replace("{port}", &ports[0].to_string());
    }
    let listening = Regex::new(r"(?m)^\s*(?:listen|admin)\s*=.*$").unwrap();
    let address = Regex::new(r"127\.0\.0\.1:(\d+)").unwrap();
    let mut renamed = BTreeMap::new();
    for line in listening.find_iter(&text) {
        for found in address.captures_iter(line.as_str()) {
            let Ok(port) = found[1].parse::<u16>() else {
                continue;
            };
            if !ports.contains(&port) && !renamed.contains_key(&port) {
                let free = free_port();
                renamed.insert(port, free);
                ports.push(free);
            }
        }
    }
    // A peer that is one of the file's own listeners moves with it.
    let text = address.replace_all(&text, |found: &Captures<'_>| {
        let port = found[1].parse().ok().and_then(|port| renamed.get(&port));
        match port {
            Some(port) => format!("127.0.0.1:{port}"),
            None => found[0].to_owned(),
        }
    });
    let mut text = text.into_owned();
    // A listener that is there and cannot be read is what some tests are about.
    if ports.is_empty() && !listening.is_match(&text) {
        let port = free_port();
        ports.push(port);
        text = with_listener(&text, port);
    }
    (text, ports)
}

fn with_listener(text: &str, port: u16) -> String {
    let listen = format!("listen = [\"127.0.0.1:{port}\"]");
    if text.lines().any(|line| line.trim() == "[server]") {
        return text.replacen("[server]", &format!("[server]\n{listen}"), 1);
    }
    format!("{}\n[server]\n{listen}\n", text.trim_end())
}

/// The folder of the guests that tests use.
pub(crate) fn guests() -> PathBuf {
    root().join("target/wasm32-wasip2/guest")
}

/// Fails with what to do when a configuration names a guest that has not been built.
fn demand_guests(config: &str) {
    let names = Regex::new(r"\{guests\}/([\w-]+\.wasm)").unwrap();
    for found in names.captures_iter(config) {
        let file = guests().join(&found[1]);
        assert!(
            file.exists(),
            "{} is missing: `make guests` builds it",
            file.display()
        );
    }
}

/// A running server.
pub(crate) struct Server {
    process: Process,
    folder: Folder,
    ports: Vec<u16>,
}

impl Server {
    /// Starts `phasor run` on a configuration; `files` stand beside it.
    pub(crate) fn start(config: &str, files: &[(&str, &str)]) -> Self {
        let folder = Folder::new();
        for (name, text) in files {
            folder.write(name, text);
        }
        Self::start_in(folder, config)
    }

    /// Starts in a folder that holds the files already; `config` is written to its `phasor.toml`.
    pub(crate) fn start_in(folder: Folder, config: &str) -> Self {
        Self::start_with(folder, config, |_| {})
    }

    /// As [`Server::start_in`], with arguments and environment of one's own.
    pub(crate) fn start_with(
        folder: Folder,
        config: &str,
        more: impl FnOnce(&mut Command),
    ) -> Self {
        demand_guests(config);
        let (text, ports) = prepare(config);
        let file = folder.write("phasor.toml", text);
        let mut command = Command::new(PHASOR);
        command
            .arg("run")
            .arg(&file)
            .current_dir(folder.path())
            .env("NO_COLOR", "1")
            // Pid files that a killed server leaves go with the folder.
            .env("XDG_RUNTIME_DIR", folder.path());
        more(&mut command);
        let process = Process::start(command);
        let mut server = Self {
            process,
            folder,
            ports,
        };
        let listening =
            Regex::new(&format!(r"listening on 127\.0\.0\.1:{}\b", server.port())).unwrap();
        if server
            .process
            .stderr
            .wait_for(&listening, 0, COMPILED)
            .is_none()
        {
            let status = server.process.wait(Duration::ZERO);
            panic!(
                "the server does not listen ({status:?}); its log:\n{}\nits configuration:\n{}",
                server.process.stderr.since(0),
                fs::read_to_string(server.file()).unwrap_or_default()
            );
        }
        server
    }

    /// The first listener's port.
    pub(crate) fn port(&self) -> u16 {
        self.ports[0]
    }

    /// All listeners' ports, in the order in which they stand in the file.
    pub(crate) fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// The folder that holds its files.
    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Its configuration file.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("phasor.toml")
    }

    /// The process.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Where the error log is now, for [`Server::log_since`] and [`Server::wait_log`].
    pub(crate) fn mark(&self) -> usize {
        self.process.stderr.mark()
    }

    /// What the error log got since a mark.
    pub(crate) fn log_since(&self, mark: usize) -> String {
        self.process.stderr.since(mark)
    }

    /// Waits until the error log has a match since `mark`.
    pub(crate) fn wait_log(&self, pattern: &str, mark: usize) -> String {
        self.wait_log_for(pattern, mark, PATIENCE)
    }

    fn wait_log_for(&self, pattern: &str, mark: usize, patience: Duration) -> String {
        let pattern = Regex::new(pattern).unwrap();
        self.process
            .stderr
            .wait_for(&pattern, mark, patience)
            .unwrap_or_else(|| {
                panic!(
                    "no line matches {pattern} in the log:\n{}",
                    self.log_since(mark)
                )
            })
    }

    /// Replaces the configuration (placeholders and ports as at the start) without a signal.
    pub(crate) fn rewrite(&self, config: &str) {
        demand_guests(config);
        let port = self.port();
        let config = config.replace("{port}", &port.to_string());
        let (text, ports) = prepare(&config);
        // The listener must stay the one that clients know.
        let text = text.replace(
            &format!("127.0.0.1:{}", ports[0]),
            &format!("127.0.0.1:{port}"),
        );
        self.folder.write("phasor.toml", text);
    }

    /// Sends HUP and waits for the line that says how it ended.
    pub(crate) fn reload(&self) -> String {
        let mark = self.mark();
        self.process.signal(Signal::HUP);
        self.wait_log_for(r"reload failed|generation \d+ serves", mark, COMPILED);
        self.log_since(mark)
    }

    /// Sends a signal and demands exit code 0 within the patience; gives the error log.
    pub(crate) fn stop(self, signal: Signal) -> String {
        let log = std::sync::Arc::clone(&self.process.stderr);
        self.stop_and(signal, || log.since(0))
    }

    /// [`Server::stop`], then looks at what it left, before its folder goes.
    pub(crate) fn stop_and<T>(mut self, signal: Signal, look: impl FnOnce() -> T) -> T {
        self.process.signal(signal);
        let status = self.process.wait(PATIENCE);
        let log = self.log_since(0);
        let code = status.and_then(|status| status.code());
        assert_eq!(
            code,
            Some(0),
            "after {signal:?} it ended with {status:?}; its log:\n{log}"
        );
        look()
    }
}
