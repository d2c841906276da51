//! Modules of a runtime's language are found by the host: a heap image cannot keep open folders, and
//! so a runtime needs no right to files in order to `require`.

use std::fmt::Write as _;
use std::path::Path;

use crate::api::PluginInfo;

/// The longest module (nginx has none; this keeps a mistake from filling the guest's memory).
const LARGEST: u64 = 16 << 20;

/// Looks for a module in each template of `path`, or of the plugin's own.
pub(super) fn find(
    plugin: &PluginInfo,
    path: &str,
    name: &str,
) -> Result<(String, Vec<u8>), String> {
    let plain = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/'));
    if !plain || name.is_empty() || name.contains("..") || name.starts_with('/') {
        return Err(format!("\n\t`{name}` is no module name"));
    }
    let own = &plugin.module_path;
    let path = if path.is_empty() {
        own.clone()
    } else {
        path.replace(";;", &format!(";{own};"))
    };
    let file = name.replace('.', "/");
    let mut tried = String::new();
    for template in path.split(';').filter(|template| !template.is_empty()) {
        let shown = template.replace('?', &file);
        let full = Path::new(&plugin.prefix).join(&shown);
        let note = match std::fs::canonicalize(&full) {
            Ok(real) if !allowed(plugin, &real) => {
                "not below a folder that this plugin may read: file"
            }
            Ok(real) => match read(&real) {
                Ok(bytes) => return Ok((shown, bytes)),
                Err(error) => return Err(format!("\n\tfile '{shown}': {error}")),
            },
            Err(_) => "no file",
        };
        // Writing to a string cannot fail.
        _ = write!(tried, "\n\t{note} '{shown}'").is_ok();
    }
    Err(tried)
}

/// Reads a file of source text; the errors are those of LuaJIT's `loadfile`. Of a file that lies where
/// the plugin may not read, it does not even say whether it is there.
pub(super) fn source(plugin: &PluginInfo, file: &str) -> Result<Vec<u8>, String> {
    let full = Path::new(&plugin.prefix).join(file);
    let cannot = |what: &str, error: &std::io::Error| {
        let text = error.to_string();
        let reason = text.split(" (os error").next().unwrap_or_default();
        format!("cannot {what} {file}: {reason}")
    };
    let real = match std::fs::canonicalize(&full) {
        Ok(real) => real,
        Err(error) => {
            let nearest = full.ancestors().skip(1).find_map(|a| a.canonicalize().ok());
            return Err(match nearest {
                Some(folder) if allowed(plugin, &folder) => cannot("open", &error),
                _ => cannot("open", &denied()),
            });
        }
    };
    if !allowed(plugin, &real) {
        return Err(cannot("open", &denied()));
    }
    if real.is_dir() {
        let error = std::io::Error::from_raw_os_error(rustix::io::Errno::ISDIR.raw_os_error());
        return Err(cannot("read", &error));
    }
    read(&real).map_err(|error| cannot("open", &error))
}

fn denied() -> std::io::Error {
    std::io::Error::from_raw_os_error(rustix::io::Errno::ACCESS.raw_os_error())
}

fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    if std::fs::metadata(file)?.len() > LARGEST {
        return Err(std::io::Error::other(format!(
            "larger than {LARGEST} bytes"
        )));
    }
    std::fs::read(file)
}

/// Below the configuration's folder, a folder that `config.path` names, or one of `allow.files`.
fn allowed(plugin: &PluginInfo, real: &Path) -> bool {
    let root = Path::new(&plugin.prefix);
    let below =
        |folder: &Path| std::fs::canonicalize(folder).is_ok_and(|folder| real.starts_with(folder));
    let templates = plugin
        .module_path
        .split(';')
        .filter_map(|template| template.split('?').next());
    below(root)
        || templates
            .filter(|prefix| !prefix.is_empty())
            .any(|prefix| below(&root.join(prefix)))
        || plugin.allow.files.iter().any(|grant| below(&grant.path))
}

#[cfg(test)]
mod tests {
    use super::{find, source};
    use crate::api::PluginInfo;

    #[test]
    fn a_module_is_found_by_its_parts_and_never_outside() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("site");
        std::fs::create_dir_all(root.join("lua/a")).unwrap();
        std::fs::write(root.join("lua/a/b.lua"), "return 1").unwrap();
        std::fs::write(folder.path().join("secret.lua"), "return 2").unwrap();
        let plugin = PluginInfo {
            prefix: root.display().to_string(),
            module_path: "lua/?.lua;lua/?/init.lua".to_owned(),
            ..PluginInfo::default()
        };
        assert_eq!(
            find(&plugin, "", "a.b"),
            Ok(("lua/a/b.lua".to_owned(), b"return 1".to_vec()))
        );
        assert_eq!(
            find(&plugin, "", "c"),
            Err("\n\tno file 'lua/c.lua'\n\tno file 'lua/c/init.lua'".to_owned())
        );
        let outside = format!("{}/?.lua;;", folder.path().display());
        assert!(
            find(&plugin, &outside, "secret")
                .unwrap_err()
                .contains("may read")
        );
        assert!(find(&plugin, &outside, "a.b").is_ok());
        for name in [
            "../secret",
            "..secret",
            "/etc/passwd",
            "a/../../secret",
            "",
            "x;y",
        ] {
            assert!(find(&plugin, "", name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_source_is_read_below_the_root_and_nothing_is_told_of_others() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("site");
        std::fs::create_dir_all(root.join("lua")).unwrap();
        std::fs::write(root.join("lua/a.lua"), "return 1").unwrap();
        std::fs::write(folder.path().join("secret.lua"), "return 2").unwrap();
        std::os::unix::fs::symlink("../secret.lua", root.join("link.lua")).unwrap();
        let plugin = PluginInfo {
            prefix: root.display().to_string(),
            ..PluginInfo::default()
        };
        assert_eq!(source(&plugin, "lua/a.lua"), Ok(b"return 1".to_vec()));
        let absolute = root.join("lua/../lua/a.lua").display().to_string();
        assert_eq!(source(&plugin, &absolute), Ok(b"return 1".to_vec()));
        for (file, wanted) in [
            ("no.lua", "cannot open no.lua: No such file or directory"),
            ("lua", "cannot read lua: Is a directory"),
            (
                "../secret.lua",
                "cannot open ../secret.lua: Permission denied",
            ),
            ("link.lua", "cannot open link.lua: Permission denied"),
            ("../none.lua", "cannot open ../none.lua: Permission denied"),
            ("/etc/passwd", "cannot open /etc/passwd: Permission denied"),
            ("/none/x", "cannot open /none/x: Permission denied"),
        ] {
            assert_eq!(source(&plugin, file), Err(wanted.to_owned()), "{file}");
        }
    }
}
