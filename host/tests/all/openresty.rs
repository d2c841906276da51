//! Runs the Lua cases against nginx with ngx_lua: a case that fails there expects something that
//! OpenResty does not do. Cases marked `openresty = false` stand in `docs/openresty-differences.md`.

use std::path::Path;

use crate::case::CaseFile;
use crate::cases::{check_all, files, run_files};
use crate::nginx::{MODULES, Nginx};
use crate::process::have;

fn run_file(path: &Path) -> Vec<String> {
    let file = CaseFile::load(path);
    if !file.openresty {
        return Vec::new();
    }
    match Nginx::start(&file) {
        Ok(nginx) => check_all(&file, &nginx.target(), |case| case.openresty),
        Err(fault) => vec![format!(
            "{}: {fault}: mark the file with `openresty = false`",
            path.display()
        )],
    }
}

#[test]
fn gives_the_same_answers() {
    if have("nginx") && have(&format!("{MODULES}/ngx_http_lua_module.so")) {
        run_files(files("host/tests/cases/lua"), run_file);
    }
}
