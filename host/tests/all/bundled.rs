//! The built components that are checked in must be what their sources give: whoever runs the server
//! without a compiler for them runs what the reader sees.

use std::fs;
use std::process::Command;

use crate::harness::{root, walk};
use crate::process::{have, run};

#[test]
fn equals_a_fresh_build() {
    // `make plugins` costs minutes; CI sets this, and so does who changed a plugin.
    if std::env::var_os("PHASOR_CHECK_BUNDLED").is_none() || !have("clang-22") {
        return;
    }
    let folder = root().join("plugins/bundled");
    let checked_in: Vec<_> = walk(&folder)
        .into_iter()
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "wasm")
        })
        .map(|path| (fs::read(&path).unwrap(), path))
        .collect();
    assert!(!checked_in.is_empty(), "plugins/bundled holds no component");
    let (code, out, err) = run(Command::new("make")
        .arg("-s")
        .arg("plugins")
        .current_dir(root()));
    assert_eq!(code, 0, "make plugins:\n{out}{err}");
    for (bytes, path) in checked_in {
        let same = fs::read(&path).unwrap() == bytes;
        assert!(
            same,
            "{} differs from its build: commit what `make plugins` gives",
            path.display()
        );
    }
}
