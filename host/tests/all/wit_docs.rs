//! Holds the contract's documentation: every host function says in which phases it may be called and
//! how it fails, and the table in `wit/README.md` is made from that, as `docs/configuration.md` is from
//! the configuration's keys. `PHASOR_BLESS=1` writes them anew.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use regex::Regex;

use crate::harness::{PHASOR, root, walk};
use crate::process::run;

const BEGIN: &str = "<!-- generated: cargo test wit_docs, PHASOR_BLESS=1 -->";
const END: &str = "<!-- end of generated -->";

/// What a `phases:` line may hold.
const PHASES: &[&str] = &[
    "all",
    "exchange",
    "init",
    "init-worker",
    "exit-worker",
    "client-hello",
    "certificate",
    "server-rewrite",
    "set",
    "rewrite",
    "access",
    "precontent",
    "content",
    "balancer",
    "header-filter",
    "body-filter",
    "log",
    "timer",
];

/// An interface that the host offers.
struct Interface {
    name: String,
    first_line: String,
    exported: bool,
    functions: Vec<Function>,
}

struct Function {
    name: String,
    documentation: Vec<String>,
}

impl Function {
    fn line(&self, key: &str) -> Option<&str> {
        self.documentation
            .iter()
            .find_map(|line| line.strip_prefix(key))
            .map(str::trim)
    }
}

/// Reads the interfaces out of the files; their form is our own, so lines are enough.
fn interfaces() -> Vec<Interface> {
    let worlds = fs::read_to_string(root().join("wit/worlds.wit")).unwrap();
    let exports = Regex::new(r"export ([a-z-]+);").unwrap();
    let exported: Vec<&str> = exports
        .captures_iter(&worlds)
        .map(|found| found.extract::<1>().1[0])
        .collect();
    let opening = Regex::new(r"^interface %?([a-z-]+) \{").unwrap();
    let resource = Regex::new(r"^\s*resource %?([a-z-]+) \{").unwrap();
    let function = Regex::new(r"^\s+%?([a-z-]+): (?:static )?(?:async )?func\(").unwrap();
    let mut interfaces: Vec<Interface> = Vec::new();
    for path in walk(&root().join("wit"))
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "wit"))
    {
        let text = fs::read_to_string(path).unwrap();
        let mut documentation = Vec::new();
        let mut owner = None;
        for line in text.lines() {
            if let Some(comment) = line.trim_start().strip_prefix("///") {
                documentation.push(comment.trim().to_owned());
                continue;
            }
            if let Some(found) = opening.captures(line) {
                owner = None;
                interfaces.push(Interface {
                    name: found[1].to_owned(),
                    first_line: documentation.first().cloned().unwrap_or_default(),
                    exported: exported.contains(&&found[1]),
                    functions: Vec::new(),
                });
            } else if let Some(found) = resource.captures(line) {
                owner = Some(found[1].to_owned());
            } else if let (Some(found), Some(interface)) =
                (function.captures(line), interfaces.last_mut())
            {
                let name = match &owner {
                    Some(owner) => format!("{owner}.{}", &found[1]),
                    None => found[1].to_owned(),
                };
                interface.functions.push(Function {
                    name,
                    documentation: std::mem::take(&mut documentation),
                });
            }
            documentation.clear();
        }
    }
    interfaces
}

#[test]
fn every_host_function_has_phases_and_errors() {
    let mut faults = Vec::new();
    for interface in interfaces() {
        if interface.first_line.is_empty() {
            faults.push(format!("{}: no documentation", interface.name));
        }
        for function in &interface.functions {
            let name = format!("{}.{}", interface.name, function.name);
            if function.documentation.is_empty() {
                faults.push(format!("{name}: no documentation"));
            }
            if interface.exported {
                continue;
            }
            match function.line("phases:") {
                None => faults.push(format!("{name}: no `phases:` line")),
                Some(phases) => {
                    let unknown = phases
                        .split_whitespace()
                        .filter(|phase| !PHASES.contains(&phase.trim_start_matches('-')));
                    faults.extend(unknown.map(|phase| format!("{name}: no phase {phase:?}")));
                }
            }
            if function.line("errors:").is_none() {
                faults.push(format!("{name}: no `errors:` line"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The table of `wit/README.md`.
fn table() -> String {
    let mut text = String::new();
    for (title, exported) in [("A plugin exports", true), ("The host offers", false)] {
        writeln!(text, "## {title}\n").unwrap();
        let columns = if exported {
            "function | what it is"
        } else {
            "function | phases | errors"
        };
        let rule = if exported {
            "|---|---|---|"
        } else {
            "|---|---|---|---|"
        };
        writeln!(text, "| interface | {columns} |\n{rule}").unwrap();
        for interface in interfaces() {
            if interface.exported != exported || interface.functions.is_empty() {
                continue;
            }
            let file = format!("[{0}](./{1}.wit)", interface.name, file_of(&interface.name));
            for function in &interface.functions {
                if exported {
                    let what = &interface.first_line;
                    writeln!(text, "| {file} | `{}` | {what} |", function.name).unwrap();
                    continue;
                }
                let phases = function.line("phases:").unwrap_or("");
                let errors = function.line("errors:").unwrap_or("");
                writeln!(
                    text,
                    "| {file} | `{}` | {phases} | {errors} |",
                    function.name
                )
                .unwrap();
            }
        }
        text.push('\n');
    }
    text
}

/// The file in which an interface stands: its own, but for the other half of the reactor.
fn file_of(interface: &str) -> &str {
    if interface == "pump" {
        "reactor"
    } else {
        interface
    }
}

#[test]
fn the_table_is_up_to_date() {
    let path = root().join("wit/README.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text
        .split_once(BEGIN)
        .expect("wit/README.md lost its marker");
    let (_, after) = rest.split_once(END).expect("wit/README.md lost its marker");
    let fresh = format!("{before}{BEGIN}\n\n{}{END}{after}", table());
    bless(&path, &text, &fresh);
}

#[test]
fn the_configurations_reference_is_up_to_date() {
    let (code, fresh, complaint) = run(Command::new(PHASOR).args(["schema", "--markdown"]));
    assert_eq!(code, 0, "{complaint}");
    let path = root().join("docs/configuration.md");
    let text = fs::read_to_string(&path).unwrap_or_default();
    bless(&path, &text, &fresh);
}

/// Writes what is generated, or demands that it has been.
fn bless(path: &Path, text: &str, fresh: &str) {
    if std::env::var_os("PHASOR_BLESS").is_some() {
        fs::write(path, fresh).unwrap();
    } else {
        assert!(
            fresh == text,
            "{} is old: `make bless` writes it",
            path.display()
        );
    }
}
