//! What no compiler and no lint holds: which module may name which, the size of files, that every
//! file says why it is there, that documents link to files that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

use crate::harness::{root, walk};

/// The modules of the host, a row per layer. A module names modules of the rows above its own, and
/// its own row.
const LAYERS: &[&[&str]] = &[
    &[
        "error",
        "phase",
        "observe",
        "config::value",
        "time_cache",
        "local_executor",
    ],
    &["config"],
    &[
        "exchange",
        "router",
        "shared_dict",
        "redis",
        "http_client",
        "tls_client",
        "cosocket",
        "redis",
        "cache",
        "timer",
        "lock",
    ],
    &[
        "upstream",
        "response",
        "access_log",
        "reactor",
        "http_cache",
    ],
    &["api"],
    &["plugin"],
    &["engine"],
    &["generation"],
    &["connection"],
    &["listener"],
    &["worker", "server", "admin"],
    &["cli", "main"],
];

/// The longest file that still reads in one sitting.
const MAX_LINES: usize = 500;

fn layer(module: &str) -> Option<usize> {
    let first = module.split("::").next().unwrap_or_default();
    let exact = LAYERS.iter().position(|row| row.contains(&module));
    exact.or_else(|| LAYERS.iter().position(|row| row.contains(&first)))
}

/// The repository's own sources and texts.
fn files(extension: &str) -> Vec<PathBuf> {
    let mut files = walk(&root());
    files.retain(|path| path.extension().is_some_and(|own| own == extension));
    files
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

fn demand(faults: &[String]) {
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

#[test]
fn layers() {
    let source = root().join("host/src");
    let names = Regex::new(r"\bcrate::([a-z_]+(?:::[a-z_]+)?)").unwrap();
    let mut faults = Vec::new();
    for path in walk(&source) {
        let own = relative(&path);
        let file = path.strip_prefix(&source).unwrap().with_extension("");
        let own_module: Vec<String> = file
            .iter()
            .map(|part| part.to_string_lossy().into_owned())
            .collect();
        if own_module[0] == "lib" || path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let Some(own_layer) = layer(&own_module.join("::")) else {
            faults.push(format!(
                "{own}: module {} stands in no layer",
                own_module[0]
            ));
            continue;
        };
        let text = fs::read_to_string(&path).unwrap();
        for found in names.captures_iter(&without_tests_and_comments(&text)) {
            let named = &found[1];
            match layer(named) {
                None => faults.push(format!("{own}: crate::{named} stands in no layer")),
                Some(other) if other > own_layer => {
                    faults.push(format!("{own}: names crate::{named}, which is above it"));
                }
                Some(_) => {}
            }
        }
    }
    faults.sort();
    faults.dedup();
    demand(&faults);
}

/// Tests may name what they like; so may documentation.
fn without_tests_and_comments(text: &str) -> String {
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]") && !line.starts_with("mod tests {"))
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn rust_files() {
    let globs = Regex::new(r"(?m)^\s*(?:pub )?use [^;]*::\*;").unwrap();
    let mut faults = Vec::new();
    for path in files("rs") {
        let own = relative(&path);
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().count();
        if lines > MAX_LINES {
            faults.push(format!("{own}: {lines} lines, more than {MAX_LINES}"));
        }
        let opening = text
            .lines()
            .find(|line| !line.is_empty() && !line.starts_with("#!"));
        if !opening.is_some_and(|line| line.starts_with("//! ")) {
            faults.push(format!(
                "{own}: does not open with `//!` and why it is here"
            ));
        }
        if path.file_name().is_some_and(|name| name == "mod.rs") {
            faults.push(format!("{own}: a mod.rs"));
        }
        for found in globs.find_iter(&text) {
            faults.push(format!("{own}: a glob import: {}", found.as_str().trim()));
        }
    }
    demand(&faults);
}

#[test]
fn words() {
    // Put together here so that this file does not hold them.
    let unfinished = format!("FIX{}", "ME");
    let machine = Regex::new(&format!(
        r"(?:^|[\s\x22'`(=])/{}/[a-z]",
        "(?:home|root|Users|work)"
    ))
    .unwrap();
    let mut faults = Vec::new();
    for path in walk(&root()) {
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            let at = format!("{}:{}", relative(&path), number + 1);
            if line.contains(&unfinished) {
                faults.push(format!("{at}: {unfinished}"));
            }
            if machine.is_match(line) {
                faults.push(format!("{at}: a path of one machine: {}", line.trim()));
            }
        }
    }
    demand(&faults);
}

#[test]
fn markdown() {
    let mut faults = Vec::new();
    for path in files("md") {
        let own = relative(&path);
        let text = fs::read_to_string(&path).unwrap();
        let prose = prose(&text);
        let titles = prose.lines().filter(|line| line.starts_with("# ")).count();
        // A fragment is one sentence and gets its title at release.
        if titles != 1 && !own.starts_with("docs/changes/") {
            faults.push(format!("{own}: {titles} titles instead of one"));
        }
        for target in links(&prose) {
            let target = target.split('#').next().unwrap_or_default();
            if !target.is_empty() && !path.parent().unwrap().join(target).exists() {
                faults.push(format!("{own}: links to {target}, which is not there"));
            }
        }
    }
    demand(&faults);
}

/// A text without its blocks of code.
fn prose(text: &str) -> String {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            lines.push(line);
        }
    }
    lines.join("\n")
}

/// The targets of links to files.
fn links(prose: &str) -> BTreeSet<String> {
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    link.captures_iter(prose)
        .map(|found| found[1].to_owned())
        .filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
        .collect()
}
