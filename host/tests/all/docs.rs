//! Documentation that is run: every configuration in it is loaded, every command that it marks as
//! tested is executed.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::client::get;
use crate::harness::{Folder, PHASOR, Server, prepare, root, walk};
use crate::process::run;

/// A block of code in a document.
struct Block {
    at: String,
    folder: PathBuf,
    kind: String,
    text: String,
}

/// The blocks of the documents that users read.
fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut documents = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    for folder in ["docs", "examples", "plugins", "sdk"] {
        documents.extend(walk(&root().join(folder)));
    }
    for path in documents
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
    {
        let document = fs::read_to_string(path).unwrap();
        let mut open: Option<Block> = None;
        for (number, line) in document.lines().enumerate() {
            match (line.strip_prefix("```"), &mut open) {
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(kind), None) => {
                    open = Some(Block {
                        at: format!("{}:{}", path.display(), number + 1),
                        folder: path.parent().unwrap().to_owned(),
                        kind: kind.trim().to_owned(),
                        text: String::new(),
                    });
                }
                (None, Some(block)) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (None, None) => {}
            }
        }
    }
    blocks
}

#[test]
fn every_configuration_loads() {
    let mut faults = Vec::new();
    // `toml fragment` is part of a file; `toml` is a whole one.
    for block in blocks().iter().filter(|block| block.kind == "toml") {
        let folder = Folder::new();
        // What an example's configuration names stands beside its document.
        if block.folder.join("phasor.toml").exists() {
            folder.copy_from(&block.folder);
        }
        let file = folder.write("documented.toml", prepare(&block.text).0);
        let (code, out, err) = run(Command::new(PHASOR).arg("check").arg(&file));
        if code != 0 {
            faults.push(format!(
                "{}: exit code {code}\n{out}{err}\n{}",
                block.at, block.text
            ));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_example_loads() {
    let mut faults = Vec::new();
    for path in walk(&root().join("examples"))
        .iter()
        .filter(|path| path.ends_with("phasor.toml"))
    {
        let (code, out, err) = run(Command::new(PHASOR).arg("check").arg(path));
        if code != 0 {
            faults.push(format!("{}: exit code {code}\n{out}{err}", path.display()));
        }
        let folder = path.parent().unwrap();
        if !folder.join("README.md").exists() || !folder.join("cases").is_dir() {
            faults.push(format!(
                "{}: an example has a README.md and cases/",
                folder.display()
            ));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_command_marked_as_tested_runs() {
    let binaries = PathBuf::from(PHASOR).parent().unwrap().to_owned();
    let path = std::env::join_paths(
        std::iter::once(binaries).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    )
    .unwrap();
    for block in blocks().iter().filter(|block| block.kind == "sh tested") {
        let folder = Folder::new();
        let (code, out, err) = run(Command::new("bash")
            .args(["-euo", "pipefail", "-c", &block.text])
            .current_dir(folder.path())
            .env("PATH", &path));
        assert_eq!(code, 0, "{}:\n{}\n{out}{err}", block.at, block.text);
    }
}

/// The README's tour: its configuration, and what each of its requests is said to be answered.
#[test]
fn five_minutes() {
    if !crate::process::have("curl") {
        return;
    }
    let blocks = blocks();
    let of_readme = |kind: &str, word: &str| {
        let found = blocks.iter().find(|block| {
            block.folder == root() && block.kind == kind && block.text.contains(word)
        });
        found.unwrap_or_else(|| panic!("README.md has no {kind} with {word}"))
    };
    let server = Server::start(&of_readme("toml", "ngx.shared.hits").text, &[]);
    let mark = server.mark();
    let asks = of_readme("sh", "phasor run phasor.toml").text.lines();
    let mut asked = 0;
    for line in asks.filter(|line| line.starts_with("curl")) {
        let (command, said) = line.split_once("    # ").unwrap();
        let own = command.replace("127.0.0.1:8000", &format!("127.0.0.1:{}", server.port()));
        let own = own.replacen("curl", "curl -sS -w '\\n%{http_code} %{http_version}'", 1);
        let (code, out, err) = run(Command::new("bash").args(["-c", &own]));
        let said = said.trim().split(" after ").next().unwrap();
        // A status, or the whole answer.
        let same = match said.parse::<u16>() {
            Ok(_) => out.lines().last().unwrap().starts_with(said),
            Err(_) => out.lines().next() == Some(said),
        };
        assert!(code == 0 && same, "{line}\n{out}{err}");
        asked += 1;
    }
    assert_eq!(asked, 4);
    server.wait_log("served in ", mark);
    server.wait_log("cpu budget of 50 ms exceeded", mark);
    assert!(get(server.port(), "/slow").text().starts_with("a thousand"));

    // Its plugin in Rust is one that the SDK's own documentation compiles.
    let sdk = fs::read_to_string(root().join("sdk/rust/src/lib.rs")).unwrap();
    for line in of_readme("rust", "phasor_plugin").text.lines().skip(1) {
        assert!(
            sdk.contains(&format!("//! {line}").trim_end().to_owned()),
            "{line}"
        );
    }
}
