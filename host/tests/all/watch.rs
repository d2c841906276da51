//! `phasor run --watch` and `[server] watch`: a change of the configuration, a component or a Lua
//! file is served without a signal; a bad one changes nothing.

use std::fs;
use std::time::Instant;

use rustix::process::Signal;

use crate::client::get;
use crate::harness::{Folder, Server, guests};
use crate::process::PATIENCE;

const CONFIG: &str = r#"
[server]
listen = ["127.0.0.1:{port}"]
workers = 2

[plugin.guest]
component = "guest.wasm"

[[route]]
path = "/word"
respond = { status = 200, body = "old" }

[[route]]
path = "/file"
lua.content = { file = "handlers/file.lua" }

[[route]]
path = "/module"
lua.content = "ngx.print(require('deep.module'))"

[[route]]
path = "/guest"
content = "guest"
"#;

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("handlers/file.lua", "ngx.print('old')");
    folder.write("lua/deep/module.lua", "return 'old'");
    let guest = guests().join("hello.wasm");
    let guest = fs::read(&guest).unwrap_or_else(|e| panic!("{}: {e}", guest.display()));
    folder.write("guest.wasm", guest);
    folder
}

fn start(config: &str) -> Server {
    Server::start_with(folder(), config, |command| {
        command.arg("--watch");
    })
}

/// Asks until the answer is the one that is wanted.
fn becomes(server: &Server, path: &str, wanted: &str) {
    let start = Instant::now();
    loop {
        let text = get(server.port(), path).text();
        if text == wanted {
            return;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "{path} stays {text}; log:\n{}",
            server.log_since(0)
        );
    }
}

#[test]
fn each_kind_of_file() {
    let server = start(CONFIG);
    for path in ["/word", "/file", "/module"] {
        assert_eq!(get(server.port(), path).text(), "old", "{path}");
    }
    server.rewrite(&CONFIG.replace("\"old\"", "\"new\""));
    becomes(&server, "/word", "new");
    server
        .folder()
        .write("handlers/file.lua", "ngx.print('new')");
    becomes(&server, "/file", "new");
    // A module is loaded when it is asked for: only a reload loads it again.
    assert_eq!(get(server.port(), "/module").text(), "old");
    let mark = server.mark();
    server.folder().write("lua/deep/module.lua", "return 'new'");
    server.wait_log(r"generation \d+ serves", mark);
    becomes(&server, "/module", "new");

    let hello = get(server.port(), "/guest").text();
    let file = server.folder().path().join("guest.wasm");
    // As tools write: a new file in the place of the old one.
    let other = file.with_extension("new");
    fs::copy(
        crate::harness::root().join("plugins/bundled/demo.wasm"),
        &other,
    )
    .unwrap();
    let mark = server.mark();
    fs::rename(other, &file).unwrap();
    server.wait_log(r"guest\.wasm has changed", mark);
    server.wait_log(r"generation \d+ serves", mark);
    assert_ne!(get(server.port(), "/guest").text(), hello);
    server.stop(Signal::QUIT);
}

#[test]
fn a_bad_change_keeps_the_old_generation() {
    // The key in the file does the same as the argument.
    let config = CONFIG.replace("workers = 2", "workers = 2\nwatch = true");
    let server = Server::start_in(folder(), &config);
    let mark = server.mark();
    server.rewrite(&config.replace("respond", "respnd"));
    server.wait_log(r"phasor\.toml:12:1: error: unknown key `respnd`", mark);
    server.wait_log(r"generation \d+ goes on", mark);
    assert_eq!(get(server.port(), "/word").text(), "old");
    let mark = server.mark();
    server.rewrite(&config);
    server.wait_log(r"generation \d+ serves", mark);
    let mark = server.mark();
    server.folder().write("handlers/file.lua", "ngx.print(");
    server.wait_log(r"file\.lua:1:", mark);
    assert_eq!(get(server.port(), "/file").text(), "old");
    // It goes on watching.
    server
        .folder()
        .write("handlers/file.lua", "ngx.print('mended')");
    becomes(&server, "/file", "mended");
    server.stop(Signal::QUIT);
}

#[test]
fn other_files_and_no_change_are_no_reload() {
    let server = start(CONFIG);
    // The server itself and others write in its folder.
    server.folder().write("notes.txt", "nothing to do with it");
    server
        .folder()
        .write("handlers/other.txt", "nothing to do with it");
    let text = fs::read(server.file()).unwrap();
    // Reading is no change.
    assert!(!text.is_empty());
    // What comes later would tell of what came before.
    let mark = server.mark();
    server.folder().write("lua/deep/module.lua", "return 'new'");
    server.wait_log(r"generation \d+ serves", mark);
    let log = server.log_since(0);
    let changes: Vec<_> = log.lines().filter(|l| l.contains("has changed")).collect();
    assert!(!changes.is_empty(), "{log}");
    // One change may be seen in two steps.
    assert!(changes.iter().all(|l| l.contains("module.lua")), "{log}");
    server.stop(Signal::QUIT);
}

#[test]
fn without_it_nothing_is_watched() {
    let server = Server::start_in(folder(), CONFIG);
    server.rewrite(&CONFIG.replace("\"old\"", "\"new\""));
    server.reload();
    becomes(&server, "/word", "new");
    assert!(!server.log_since(0).contains("has changed"));
    server.stop(Signal::QUIT);
}
