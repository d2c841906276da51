//! Runs the case files: those of `host/tests/cases` with the configuration they bring, those of
//! `examples/*/cases` against the example itself. `PHASOR_CASES=word` runs only files and cases
//! whose name holds the word.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use regex::Regex;
use rustix::process::Signal;

use crate::case::{Case, CaseFile};
use crate::client::Client;
use crate::harness::{Folder, Server, root, walk};
use crate::process::Lines;
use crate::redis::Redis;

/// How many files run at once.
const AT_ONCE: usize = 4;

/// How long a log line may come after its answer.
const LOG_PATIENCE: Duration = Duration::from_secs(30);

/// Where cases are sent, and where their log lines appear.
pub(crate) struct Target {
    /// The port on 127.0.0.1.
    pub(crate) port: u16,
    /// The error log.
    pub(crate) log: Arc<Lines>,
    /// It is OpenResty: what is pending here passes there.
    pub(crate) is_reference: bool,
}

/// The case files below a folder of the repository.
pub(crate) fn files(folder: &str) -> Vec<PathBuf> {
    let mut files = walk(&root().join(folder));
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "toml")
            && path.components().any(|part| part.as_os_str() == "cases")
    });
    files
}

/// Whether `PHASOR_CASES` lets a file or a case run.
fn chosen(source: &str, case: &str) -> bool {
    std::env::var("PHASOR_CASES")
        .map_or(true, |word| source.contains(&word) || case.contains(&word))
}

/// Sends one case and gives what is wrong, with its name.
pub(crate) fn check(case: &Case, target: &Target) -> Result<(), String> {
    let mark = target.log.mark();
    let mut client = Client::connect(target.port);
    client.send(case.bytes());
    let mut faults = match client.response(case.headless()) {
        Ok(response) => case.expect.faults(&response),
        Err(error) => vec![format!("no answer: {error}")],
    };
    for pattern in &case.expect.error_log {
        let pattern = Regex::new(pattern).unwrap();
        if target.log.wait_for(&pattern, mark, LOG_PATIENCE).is_none() {
            faults.push(format!("the log has no match of {pattern}"));
        }
    }
    let log = target.log.since(mark);
    for pattern in case
        .expect
        .no_error_log
        .iter()
        .map(String::as_str)
        .chain(["panicked at"])
    {
        if let Some(found) = Regex::new(pattern).unwrap().find(&log) {
            faults.push(format!("the log has {:?}", found.as_str()));
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    if !log.is_empty() {
        faults.push(format!("log:\n    {}", log.replace('\n', "\n    ")));
    }
    Err(format!("{}\n  {}", case.name, faults.join("\n  ")))
}

/// Runs the cases of a file that `wanted` lets through; gives one text per failure.
pub(crate) fn check_all(
    file: &CaseFile,
    target: &Target,
    wanted: fn(&Case) -> bool,
) -> Vec<String> {
    let source = file.source.to_string_lossy().into_owned();
    file.cases
        .iter()
        .filter(|case| wanted(case) && chosen(&source, &case.name))
        .filter_map(|case| match (&case.pending, check(case, target)) {
            (Some(_), Err(_)) if !target.is_reference => None,
            (Some(why), Ok(())) if !target.is_reference => Some(format!(
                "{}: passes, take `pending` away ({why})",
                case.name
            )),
            (_, result) => result.err(),
        })
        .map(|fault| format!("{source}: {fault}"))
        .collect()
}

/// Where a Redis is by default.
const REDIS: &str = "redis://127.0.0.1:6379";

fn run_file(path: &Path) -> Vec<String> {
    let file = CaseFile::load(path);
    let source = path.to_string_lossy();
    if !file.cases.iter().any(|case| chosen(&source, &case.name)) {
        return Vec::new();
    }
    let folder = Folder::new();
    let config = if file.config.is_empty() && !path.starts_with(root().join("host")) {
        let example = path.parent().and_then(|cases| cases.parent()).unwrap();
        folder.copy_from(example);
        // What an example builds stays in the repository; its copy looks for it there.
        let up = format!("{}/", root().display());
        fs::read_to_string(example.join("phasor.toml"))
            .unwrap()
            .replace("../../", &up)
    } else {
        file.full_config()
    };
    for (name, text) in &file.files {
        folder.write(name, text);
    }
    // A configuration that names Redis' own port gets a Redis of its own.
    let mut config = config;
    let _redis = if config.contains(REDIS) {
        let Some(redis) = Redis::start(&[]) else {
            return Vec::new();
        };
        config = config.replace(REDIS, &format!("redis://127.0.0.1:{}", redis.port));
        // What is right for a shop's Redis is not for one beside a hundred tests.
        config = config.replace("timeout = \"200ms\"", "timeout = \"10s\"");
        config = config.replace("timeout = \"100ms\"", "timeout = \"10s\"");
        Some(redis)
    } else {
        None
    };
    let mut server = Server::start_in(folder, &config);
    let target = Target {
        port: server.port(),
        log: Arc::clone(&server.process().stderr),
        is_reference: false,
    };
    let faults = check_all(&file, &target, |_| true);
    server.stop(Signal::QUIT);
    faults
}

/// Calls `run` for each file, several at once, and fails with all faults.
pub(crate) fn run_files(files: Vec<PathBuf>, run: fn(&Path) -> Vec<String>) {
    let count = files.len();
    let queue = Mutex::new(files);
    let faults = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(path) = queue.lock().unwrap().pop() else {
                        break;
                    };
                    let found =
                        catch_unwind(AssertUnwindSafe(|| run(&path))).unwrap_or_else(|cause| {
                            let text = cause.downcast_ref::<String>().cloned().or_else(|| {
                                cause.downcast_ref::<&str>().map(|text| (*text).to_owned())
                            });
                            vec![format!("{}: {}", path.display(), text.unwrap_or_default())]
                        });
                    faults.lock().unwrap().extend(found);
                }
            });
        }
    });
    let mut faults = faults.into_inner().unwrap();
    faults.sort();
    assert!(
        faults.is_empty(),
        "{} failures in {count} files of cases:\n\n{}\n",
        faults.len(),
        faults.join("\n\n")
    );
}

#[test]
fn lua() {
    run_files(files("host/tests/cases/lua"), run_file);
}

#[test]
fn http() {
    run_files(files("host/tests/cases/http"), run_file);
}

#[test]
fn plugins() {
    run_files(files("host/tests/cases/plugins"), run_file);
}

#[test]
fn examples() {
    run_files(files("examples"), run_file);
}
