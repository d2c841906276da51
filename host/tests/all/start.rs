//! A restart compiles nothing: compiled code and heap images are taken from disk.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::get;
use crate::harness::{Folder, Server};

const CONFIG: &str = r#"
[server]
workers = 1

[plugin.hello]
component = "{guests}/hello.wasm"

[[route]]
path = "/rust"
content = "hello"

[[route]]
path = "/lua"
lua.content = "ngx.say('hello')"
"#;

/// Starts on a cache and gives the time to the first answers; asks both languages.
fn start(config: &str, cache: &Path) -> Duration {
    let start = Instant::now();
    let server = Server::start_with(Folder::new(), config, |command| {
        command.env("PHASOR_CACHE", cache);
    });
    for path in ["/lua", "/rust"] {
        let response = get(server.port(), path);
        assert_eq!(response.status, 200, "{path}");
    }
    let time = start.elapsed();
    server.stop(Signal::QUIT);
    time
}

/// Compiled code: names and numbers of the files.
fn code(cache: &Path) -> Vec<(String, u64, u64)> {
    let files = fs::read_dir(cache).into_iter().flatten().flatten();
    let mut files: Vec<_> = files
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let found = entry.metadata().ok()?;
            name.ends_with(".cwasm")
                .then(|| (name, found.ino(), found.len()))
        })
        .collect();
    files.sort();
    files
}

#[test]
fn the_second_start_takes_its_code_from_disk() {
    let folder = Folder::new();
    let cache = folder.path().join("cache");
    let cold = start(CONFIG, &cache);
    let kept = code(&cache);
    // Lua and the component; an `init` would make one more.
    assert!(kept.len() >= 2, "{kept:?}");
    let warm = start(CONFIG, &cache);
    assert_eq!(code(&cache), kept, "the second start compiled again");
    assert!(warm * 2 < cold, "cold {cold:?}, warm {warm:?}");

    // Code that was cut short, or that somebody else could have written, is not believed.
    let victim = cache.join(&kept[0].0);
    fs::write(&victim, &fs::read(&victim).unwrap()[..1000]).unwrap();
    start(CONFIG, &cache);
    assert_eq!(fs::metadata(&victim).unwrap().len(), kept[0].2);
    fs::set_permissions(&victim, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    start(CONFIG, &cache);
    let mended = fs::metadata(&victim).unwrap();
    assert_eq!(mended.mode() & 0o022, 0);
}

/// A runtime that draws hash seeds and reads clocks when it starts leaves the same memory each time,
/// and yet what its program draws is random.
#[test]
fn heap_images_are_the_same_at_each_start() {
    let folder = Folder::new();
    let cache = folder.path().join("cache");
    let config = r#"
[server]
workers = 1
[plugin.go]
component = "{guests}/go-init.wasm"
config = { first = "same", second = "same", third = "other" }
[plugin.rust]
component = "{guests}/init.wasm"
config = { names = ["a", "b"] }
[[route]]
path = "/rust/*"
content = "rust"
[[route]]
path = "/*"
content = "go"
"#;
    let start = || {
        let server = Server::start_with(Folder::new(), config, |command| {
            command.env("PHASOR_CACHE", &cache);
        });
        let ask = |path: &str| get(server.port(), path).text();
        assert_eq!(ask("/"), "as init left it\n");
        assert_eq!(ask("/rust/b"), "1\n");
        let drawn = ask("/random");
        assert_ne!(drawn, ask("/random"));
        server.stop(Signal::QUIT);
        drawn
    };
    let first = start();
    let kept = code(&cache);
    assert_ne!(start(), first, "two servers drew the same");
    assert_eq!(code(&cache), kept, "the second start compiled again");
    // What the seeds are made of is nobody else's business.
    let seed = fs::metadata(cache.join("seed")).unwrap();
    let folder = fs::metadata(&cache).unwrap();
    assert_eq!((seed.mode() & 0o777, folder.mode() & 0o777), (0o600, 0o700));
}

#[test]
fn its_size_is_bounded_and_it_can_be_off() {
    let folder = Folder::new();
    let cache = folder.path().join("own");
    let text = cache.display();
    let table = format!("workers = 1\ncompile_cache = {{ path = \"{text}\", size = \"8m\" }}");
    let config = CONFIG.replace("workers = 1", &table);
    let unused = folder.path().join("unused");
    start(&config, &unused);
    // Another heap image every time; each of several megabytes.
    for init in 0..4 {
        let config = format!("{config}\n[plugin.lua]\nconfig = {{ init = \"x = {init}\" }}\n");
        start(&config, &unused);
        let total: u64 = code(&cache).iter().map(|(_, _, length)| length).sum();
        assert!(total > 0 && total <= 8 << 20, "{total} bytes");
    }
    assert!(!unused.exists());

    let off = CONFIG.replace("workers = 1", "workers = 1\ncompile_cache = \"off\"");
    start(&off, &unused);
    assert!(!unused.exists());
}
