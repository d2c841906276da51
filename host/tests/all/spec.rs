//! `plugins/lua/spec`: what a library of the Lua plugin does, line by line, beside what OpenResty
//! does. Each file runs in the product and, where nginx has the library, on nginx.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;

use crate::client::get;
use crate::harness::{Folder, Server, free_port, root};
use crate::nginx::{MODULES, Nginx, frame};
use crate::process::have;

/// What Debian's packages do not have as OpenResty bundles it: OpenResty's own cjson,
/// lua-resty-string, lua-tablepool.
const ONLY_HERE: &[&str] = &["cjson", "digest", "tablepool"];

/// Name, Lua, what it says.
fn specs() -> Vec<(String, PathBuf, Vec<u8>)> {
    let folder = root().join("plugins/lua/spec");
    let mut specs: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "lua"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let wanted = fs::read(path.with_extension("out")).unwrap();
            (name, path, wanted)
        })
        .collect();
    specs.sort();
    assert!(specs.len() > 10, "only {} specs are there", specs.len());
    specs
}

/// Asks for every spec, and demands what stands in its `.out`.
fn check<'a>(who: &str, port: u16, specs: impl Iterator<Item = &'a (String, PathBuf, Vec<u8>)>) {
    for (name, _, wanted) in specs {
        let response = get(port, &format!("/{name}"));
        let wanted = String::from_utf8_lossy(wanted);
        let body = response.text();
        let difference = body
            .lines()
            .chain(std::iter::repeat("(nothing)"))
            .zip(wanted.lines())
            .position(|(found, wanted)| found != wanted);
        if let Some(line) = difference {
            panic!(
                "{who}, {name}.lua, line {} of its output:\n{}\ninstead of\n{}",
                line + 1,
                body.lines().nth(line).unwrap_or("(nothing)"),
                wanted.lines().nth(line).unwrap_or_default()
            );
        }
        assert_eq!(body, wanted, "{who}, {name}.lua");
    }
}

#[test]
fn the_product_does_what_each_spec_says() {
    let folder = Folder::new();
    let mut config = String::from("[plugin.lua]\nlimits = { cpu = \"10s\" }\n");
    let specs = specs();
    for (name, path, _) in &specs {
        folder.write(&format!("{name}.lua"), fs::read(path).unwrap());
        write!(
            config,
            "[[route]]\npath = \"/{name}\"\nlua.content = {{ file = \"{name}.lua\" }}\n"
        )
        .unwrap();
    }
    let server = Server::start_in(folder, &config);
    check("Phasor", server.port(), specs.iter());
    server.stop(Signal::QUIT);
}

#[test]
fn and_so_does_openresty() {
    if !have("nginx") || !have(&format!("{MODULES}/ngx_http_lua_module.so")) {
        return;
    }
    let port = free_port();
    let mut locations = String::new();
    let specs = specs();
    for (name, path, _) in &specs {
        let path = path.display();
        writeln!(
            locations,
            "location = /{name} {{ content_by_lua_file {path}; }}"
        )
        .unwrap();
    }
    let _nginx = Nginx::start_with(Folder::new(), &frame("", &locations, port), port);
    let theirs = specs
        .iter()
        .filter(|(name, ..)| !ONLY_HERE.contains(&name.as_str()));
    check("nginx", port, theirs);
}
