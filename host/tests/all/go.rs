//! Plugins in Go beside real servers, and the SDK's first five minutes as its README tells them. The
//! cases `cases/plugins/go*.toml` hold the rest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::client::get;
use crate::harness::{Folder, PHASOR, Server, prepare, root};
use crate::process::{have, run};
use crate::redis::{Redis, wait_until};

/// The folder of the built programs.
fn binaries() -> PathBuf {
    Path::new(PHASOR).parent().unwrap().to_owned()
}

#[test]
fn redis_from_go() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let config = format!(
        r#"
[server]
workers = 1
[redis.main]
url = "redis://127.0.0.1:{}"
timeout = "10s"
[plugin.go]
component = "{{guests}}/go-services.wasm"
config = {{ greeting = "hi" }}
limits = {{ cpu = "10s" }}
[plugin.go.allow]
redis = ["main: SET", "main: GET", "main: LPUSH one", "main: EVAL k", "main: INCR n", "main: SUBSCRIBE news", "main: PUBLISH news"]
[[route]]
path = "/*"
content = "go"
"#,
        redis.port
    );
    let server = Server::start(&config, &[]);
    let ask = |path: &str| get(server.port(), path).text();
    let answer = ask("/redis");
    for part in [
        "OK 1true WRONGTYPE",
        "redis: refused: allow.redis does not cover `main: FLUSHALL`",
        " k2 1 <nil>",
    ] {
        assert!(answer.contains(part), "{part}: {answer}");
    }
    assert_eq!(ask("/both"), "ten\n");
    assert_eq!(
        ask("/channel"),
        "news: hello, then context deadline exceeded\n"
    );
    drop(redis);
    assert_eq!(ask("/away"), "away\n");
    server.stop(Signal::QUIT);
}

/// Each instance says when it starts and when it leaves.
#[test]
fn instances_come_and_go() {
    let config = r#"
[server]
workers = 1
[plugin.go]
component = "{guests}/go-phases.wasm"
limits = { cpu = "10s" }
[[route]]
path = "/*"
content = "go"
"#;
    let server = Server::start(config, &[]);
    assert!(get(server.port(), "/").text().starts_with("region"));
    let log = server.stop(Signal::QUIT);
    let count = |text: &str| log.matches(text).count();
    let starts = count("starts in worker 0, after init: true");
    assert!(starts >= 1, "{log}");
    assert_eq!(count("leaves worker 0"), starts, "{log}");
}

#[test]
fn answers_are_purged() {
    let config = r#"
[server]
workers = 2
[shared.n]
size = "1m"
[cache.products]
[plugin.go]
component = "{guests}/go-services.wasm"
limits = { cpu = "10s" }
allow = { cache = ["products"] }
[[route]]
path = "/cache/purge"
content = "go"
[[route]]
path = "/kept"
cache = "products"
lua.content = """
ngx.header['Cache-Control'] = 'max-age=600'
ngx.header['Cache-Tag'] = 'kept'
ngx.print(ngx.shared.n:incr('n', 1, 0))
"""
"#;
    let server = Server::start(config, &[]);
    let ask = |path: &str| get(server.port(), path).text();
    for (what, gone) in [
        ("tag=kept", true),
        ("prefix=http://localhost/ke", true),
        ("key=http://localhost/kept", true),
        ("tag=other", false),
    ] {
        // It is kept a moment after it has left.
        wait_until(|| ask("/kept") == ask("/kept"));
        let kept = ask("/kept");
        assert_eq!(ask(&format!("/cache/purge?{what}")), "purged\n");
        assert_eq!(ask("/kept") != kept, gone, "{what}");
    }
    server.stop(Signal::QUIT);
}

#[test]
fn init_may_refuse() {
    let config =
        "[plugin.go]\ncomponent = \"{guests}/go-init.wasm\"\nconfig = { word = \"refuse\" }\n";
    let folder = Folder::new();
    let file = folder.write("phasor.toml", prepare(config).0);
    let (code, _, err) = run(Command::new(PHASOR).arg("check").arg(&file));
    assert_eq!(code, 78, "{err}");
    assert!(
        err.contains("plugin `go`: phase init: this configuration is refused"),
        "{err}"
    );
}

#[test]
fn five_minutes() {
    if !have("go") {
        return;
    }
    let readme = fs::read_to_string(root().join("sdk/go/README.md")).unwrap();
    let (_, block) = readme.split_once("```sh five minutes\n").unwrap();
    let (commands, _) = block.split_once("```").unwrap();
    let folder = Folder::new();
    let path = std::env::join_paths(
        std::iter::once(binaries())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    )
    .unwrap();
    let (code, out, err) = run(Command::new("bash")
        .args(["-euo", "pipefail", "-c", commands])
        .current_dir(folder.path())
        .env("PATH", path));
    assert_eq!(code, 0, "{commands}\n{out}{err}");
    let config = fs::read_to_string(folder.path().join("hello/phasor.toml")).unwrap();
    let component = fs::read(folder.path().join("hello/hello.wasm")).unwrap();
    let served = Folder::new();
    served.write("hello.wasm", component);
    let server = Server::start_in(served, &config);
    assert_eq!(get(server.port(), "/any").text(), "hello from Go\n");
    server.stop(Signal::QUIT);
}

#[test]
fn a_program_that_serves_no_phase() {
    if !have("go") {
        return;
    }
    let folder = Folder::new();
    let tool = binaries().join("phasor-go");
    let at = folder.path().join("none");
    assert_eq!(run(Command::new(&tool).arg("new").arg(&at)).0, 0);
    fs::write(
        at.join("main.go"),
        "package main\n\nimport \"phasor\"\n\nvar _ = phasor.Exit\n\nfunc main() {}\n",
    )
    .unwrap();
    let target = folder.path().join("none.wasm");
    let (code, _, err) = run(Command::new(&tool).arg("build").arg(&at).arg(&target));
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("the plugin serves no phase"), "{err}");
}

#[test]
fn the_example() {
    let file = root().join("examples/01-hello/phasor-go.toml");
    let (code, out, err) = run(Command::new(PHASOR).arg("check").arg(&file));
    assert_eq!(code, 0, "{out}{err}");
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replace("../../target/wasm32-wasip2/guest", "{guests}");
    let server = Server::start(&text, &[]);
    assert_eq!(get(server.port(), "/go").text(), "hello from Go\n");
    server.stop(Signal::QUIT);
}
