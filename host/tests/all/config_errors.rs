//! A configuration that is wrong: exit code 78, and a message that names file, line and column and
//! what would be right. `check` and `run` say the same.

use std::process::Command;

use regex::Regex;

use crate::harness::{Folder, PHASOR, guests, prepare};
use crate::process::run;

/// What `sysexits.h` calls a fault of the configuration.
const BAD_CONFIGURATION: i32 = 78;

/// Runs `check` on a text and gives exit code and messages.
fn check(config: &str, files: &[(&str, &[u8])]) -> (i32, String) {
    let folder = Folder::new();
    for (name, bytes) in files {
        folder.write(name, bytes);
    }
    let file = folder.write("phasor.toml", prepare(config).0);
    let (code, out, err) = run(Command::new(PHASOR)
        .arg("check")
        .arg(&file)
        .current_dir(folder.path())
        .env("NO_COLOR", "1"));
    (code, format!("{out}{err}"))
}

/// Demands exit code 78 and a match of every pattern.
fn refused(config: &str, patterns: &[&str]) {
    refused_with(config, &[], patterns);
}

fn refused_with(config: &str, files: &[(&str, &[u8])], patterns: &[&str]) {
    let (code, text) = check(config, files);
    assert_eq!(code, BAD_CONFIGURATION, "{config}\nwas answered by\n{text}");
    for pattern in patterns {
        let found = Regex::new(pattern).unwrap().is_match(&text);
        assert!(found, "no match of {pattern} in\n{text}\nfor\n{config}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

const SERVER: &str = "[server]\nlisten = [\"127.0.0.1:{port}\"]\n";

fn with_server(rest: &str) -> String {
    format!("{SERVER}{rest}")
}

#[test]
fn a_good_one_is_fine() {
    let (code, text) = check(
        &with_server("[[route]]\npath = \"/\"\nrespond = { status = 200, body = \"x\" }\n"),
        &[],
    );
    assert_eq!(code, 0, "{text}");
}

#[test]
fn no_toml() {
    refused("[server\n", &[r"phasor\.toml:1:\d+"]);
}

#[test]
fn a_wrong_type() {
    refused(
        &with_server("[[route]]\npath = 7\n"),
        &[r"phasor\.toml:4:8"],
    );
    refused(&with_server("body_limit = [1]\n"), &[r"phasor\.toml:3:14"]);
}

#[test]
fn an_unknown_key_with_the_nearest_known_one() {
    refused(
        &with_server("[[route]]\npath = \"/\"\nrespnd = { status = 200 }\n"),
        &[r"phasor\.toml:5:1", "respnd", "respond"],
    );
    refused(
        &with_server("body_limt = \"1m\"\n"),
        &[r"phasor\.toml:3:1", "body_limit"],
    );
    refused(&with_server("[routes]\n"), &[r"phasor\.toml:3:\d", "route"]);
}

#[test]
fn values_that_cannot_be() {
    refused(
        &with_server("body_limit = \"ten\"\n"),
        &[r"phasor\.toml:3:14", "ten"],
    );
    refused(
        &with_server("idle_timeout = \"5 parsecs\"\n"),
        &[r"phasor\.toml:3:16"],
    );
    refused(
        "[server]\nlisten = [\"127.0.0.1:99999\"]\n",
        &[r"phasor\.toml:2:11"],
    );
    refused(
        &with_server("[[route]]\nregex = \"(\"\nrespond = { status = 200 }\n"),
        &[r"phasor\.toml:4:9"],
    );
    refused(
        &with_server("[[route]]\npath = \"/\"\nrespond = { status = 42 }\n"),
        &[r"phasor\.toml:5"],
    );
    refused(
        &with_server("[[route]]\npath = \"/\"\nmethods = [\"GE T\"]\nrespond = { status = 200 }\n"),
        &[r"phasor\.toml:5"],
    );
    refused(
        &with_server("[cache.things]\nl2 = { size = \"1m\", negative = \"600k\" }\n"),
        &[r"phasor\.toml:3", "more than half"],
    );
}

#[test]
fn two_contents() {
    refused(
        &with_server(
            "[[route]]\npath = \"/\"\nrespond = { status = 200 }\nlua.content = \"ngx.say('x')\"\n",
        ),
        &[r"phasor\.toml:\d+:\d+", "content"],
    );
}

#[test]
fn names_that_name_nothing() {
    refused(
        &with_server(
            "[[route]]\npath = \"/\"\nplugins = [\"gaurd\"]\nrespond = { status = 200 }\n",
        ),
        &[r"phasor\.toml:5:12", "gaurd"],
    );
    refused(
        &with_server("[[route]]\npath = \"/\"\ncontent = \"nobody\"\n"),
        &[r"phasor\.toml:5:11", "nobody"],
    );
}

#[test]
fn the_same_route_twice() {
    let route = "[[route]]\npath = \"/same\"\nrespond = { status = 200 }\n";
    refused(
        &with_server(&format!("{route}{route}")),
        &[r"phasor\.toml:\d+:\d+", "/same"],
    );
}

#[test]
fn all_faults_at_once() {
    refused(
        &with_server(
            "body_limit = \"ten\"\n[[route]]\npath = \"/\"\nplugins = [\"nobody\"]\nrespond = { status = 200 }\n",
        ),
        &[r"phasor\.toml:3:14", r"phasor\.toml:6:12"],
    );
}

#[test]
fn a_missing_file() {
    let (code, _, text) = run(Command::new(PHASOR).args(["check", "no-such-file.toml"]));
    assert_eq!(code, BAD_CONFIGURATION, "{text}");
    assert!(text.contains("no-such-file.toml"), "{text}");
    refused(
        &with_server("[[route]]\npath = \"/\"\nlua.content = { file = \"none.lua\" }\n"),
        &[r"phasor\.toml:5", r"none\.lua"],
    );
    refused(
        &with_server(
            "[plugin.gone]\ncomponent = \"gone.wasm\"\n[[route]]\npath = \"/\"\ncontent = \"gone\"\n",
        ),
        &[r"phasor\.toml:4:13", r"gone\.wasm"],
    );
}

#[test]
fn a_component_that_is_none() {
    let config = with_server(
        "[plugin.bad]\ncomponent = \"bad.wasm\"\n[[route]]\npath = \"/\"\ncontent = \"bad\"\n",
    );
    refused_with(
        &config,
        &[("bad.wasm", b"this is no component")],
        &[r"phasor\.toml:[34]:", r"bad\.wasm"],
    );
    // A core module: magic and version 1, nothing more.
    refused_with(
        &config,
        &[("bad.wasm", b"\0asm\x01\0\0\0")],
        &[r"phasor\.toml:[34]:", r"bad\.wasm", "component"],
    );
    // A component that exports no phase: the smallest there is.
    refused_with(
        &config,
        &[("bad.wasm", b"\0asm\x0d\0\x01\0")],
        &[r"phasor\.toml:[34]:", "phase"],
    );
}

#[test]
fn a_plugin_without_content_as_content() {
    assert!(
        guests().join("body_filter.wasm").exists(),
        "`make guests` builds what this test needs"
    );
    let config = "[plugin.a]\ncomponent = \"{guests}/GUEST.wasm\"\n[[route]]\npath = \"/\"\ncontent = \"a\"\n";
    let config = with_server(config);
    refused(
        &config.replace("GUEST", "body_filter"),
        &[r"phasor\.toml:\d+", "content"],
    );
    refused(
        &config.replace("GUEST", "no_phase"),
        &[r"phasor\.toml:[34]:", "phase"],
    );
}

#[test]
fn lua_that_does_not_parse() {
    refused(
        &with_server("[[route]]\npath = \"/\"\nlua.content = '''\nlocal x =\nngx.say(\n'''\n"),
        &[r"phasor\.toml:\d+", "(unexpected symbol|expected)"],
    );
    refused_with(
        &with_server("[[route]]\npath = \"/\"\nlua.content = { file = \"bad.lua\" }\n"),
        &[("bad.lua", b"local x = 1\nif x then\n")],
        &[r"bad\.lua:\d+", "'end' expected"],
    );
}

#[test]
fn lua_whose_init_fails() {
    refused(
        &with_server(
            "[plugin.lua]\nconfig = { init = \"error('init says no')\" }\n[[route]]\npath = \"/\"\nlua.content = \"ngx.say(1)\"\n",
        ),
        &["init says no"],
    );
}

#[test]
fn an_init_that_never_ends() {
    refused(
        &with_server(
            "[plugin.init]\ncomponent = \"{guests}/init.wasm\"\nconfig = { spin = true }\nlimits = { watchdog = \"200ms\" }\n[[route]]\npath = \"/\"\ncontent = \"init\"\n",
        ),
        &[
            r"phasor\.toml:3:",
            "phase init",
            r"200ms \(limits\.watchdog\)",
        ],
    );
}

#[test]
fn an_init_in_lua_that_never_ends() {
    let inits = [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "local t = {} for i = 1, 1e5 do t[i] = i end while true do table.concat(t) end",
        "coroutine.wrap(function() while true do end end)()",
    ];
    for init in inits {
        refused(
            &with_server(&format!(
                "[plugin.lua]\nconfig = {{ init = \"{init}\" }}\nlimits = {{ watchdog = \"200ms\" }}\n[[route]]\npath = \"/\"\nlua.content = \"ngx.say(1)\"\n"
            )),
            &[r"phasor\.toml:4: `init` takes longer than `limits\.watchdog`"],
        );
    }
}

#[test]
fn run_says_the_same() {
    let folder = Folder::new();
    let file = folder.write("phasor.toml", "[[route]]\npath = 7\n");
    let (code, _, text) = run(Command::new(PHASOR).arg("run").arg(file));
    assert_eq!(code, BAD_CONFIGURATION, "{text}");
    assert!(text.contains("phasor.toml:2:8"), "{text}");
}

#[test]
fn bad_usage() {
    let (code, _, text) = run(Command::new(PHASOR).arg("fly"));
    assert_eq!(code, 2, "{text}");
    let (code, text, _) = run(Command::new(PHASOR).arg("--version"));
    assert_eq!(code, 0);
    assert!(text.starts_with("phasor "), "{text}");
}
