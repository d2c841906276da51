//! `phasor stop` and `phasor reload`: they find the server that runs a file, and no other process.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{Client, get};
use crate::harness::{Folder, PHASOR, Server, free_port};
use crate::process::{PATIENCE, run};

const CONFIG: &str = r#"
[server]
workers = 2

[[route]]
path = "/hello"
respond = { status = 200, body = "old" }

[[route]]
path = "/long"
lua.content = "ngx.sleep(0.5) ngx.say('whole')"

[[route]]
path = "/for-ever"
lua.content = "ngx.sleep(50)"
"#;

/// Runs a command in a server's folder, as its operator does.
fn phasor(folder: &Folder, arguments: &[&str]) -> (i32, String, String) {
    run(Command::new(PHASOR)
        .args(arguments)
        .current_dir(folder.path())
        .env("NO_COLOR", "1")
        .env("XDG_RUNTIME_DIR", folder.path()))
}

#[test]
fn stop_waits_for_requests_in_progress() {
    let mut server = Server::start(CONFIG, &[]);
    let port = server.port();
    let mut client = Client::connect(port);
    client.send("GET /long HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(get(port, "/hello").text(), "old");
    let reader = thread::spawn(move || client.response(false));
    // No file: the one in the working folder.
    let (code, out, error) = phasor(server.folder(), &["stop"]);
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("has ended"), "{out}");
    // It has ended when the command has, not some time later.
    let status = server.process().wait(Duration::from_secs(5));
    assert_eq!(status.and_then(|status| status.code()), Some(0));
    let response = reader.join().unwrap().expect("the request was cut");
    assert_eq!(response.text(), "whole\n");

    let (code, _, error) = phasor(server.folder(), &["stop", "phasor.toml"]);
    assert_eq!(code, 1);
    assert!(error.contains("no server runs phasor.toml"), "{error}");
    let (code, _, error) = phasor(server.folder(), &["reload"]);
    assert_eq!(code, 1);
    assert!(error.contains("no server runs phasor.toml"), "{error}");
}

#[test]
fn stop_now_cuts_them() {
    let server = Server::start(CONFIG, &[]);
    let mut client = Client::connect(server.port());
    client.send("GET /for-ever HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(get(server.port(), "/hello").text(), "old");
    let start = Instant::now();
    let (code, _, error) = phasor(server.folder(), &["stop", "--now"]);
    assert_eq!(code, 0, "{error}");
    assert!(start.elapsed() < Duration::from_secs(25));
    assert!(client.response(false).is_err());
}

#[test]
fn reload_says_what_came_of_it() {
    let server = Server::start(CONFIG, &[]);
    let port = server.port();
    server.rewrite(&CONFIG.replace("old", "new"));
    let (code, out, error) = phasor(server.folder(), &["reload"]);
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("generation 2 serves"), "{out}");
    assert_eq!(get(port, "/hello").text(), "new");

    server.rewrite(&CONFIG.replace("respond", "respnd"));
    let (code, out, error) = phasor(server.folder(), &["reload", "phasor.toml"]);
    assert_eq!((code, out.as_str()), (78, ""));
    assert!(error.contains("generation 2 goes on"), "{error}");
    assert!(
        error.contains("phasor.toml:8:1: error: unknown key `respnd`"),
        "{error}"
    );
    assert_eq!(get(port, "/hello").text(), "new");

    // Whoever broke the file can still stop the server.
    server.folder().write("phasor.toml", "[server\n");
    let (code, _, error) = phasor(server.folder(), &["stop"]);
    assert_eq!(code, 0, "{error}");
}

#[test]
fn the_pid_file_is_where_the_configuration_says() {
    let config = CONFIG.replace("workers = 2", "workers = 2\npid = \"one.pid\"");
    let mut server = Server::start(&config, &[]);
    let folder = server.folder().path().to_owned();
    let pid = fs::read_to_string(folder.join("one.pid")).unwrap();
    assert!(pid.trim().parse::<u32>().is_ok(), "{pid}");

    // Another server cannot have it.
    let other = format!(
        "[server]\npid = \"one.pid\"\nlisten = [\"127.0.0.1:{}\"]\n",
        free_port()
    );
    server.folder().write("other.toml", other);
    let (code, _, error) = phasor(server.folder(), &["run", "other.toml"]);
    assert_eq!(code, 1, "{error}");
    let taken = format!("process {} serves this configuration already", pid.trim());
    assert!(error.contains(&taken), "{error}");

    // A reload puts it elsewhere.
    server.rewrite(&config.replace("one.pid", "two.pid"));
    server.reload();
    assert!(!folder.join("one.pid").exists());
    assert_eq!(fs::read_to_string(folder.join("two.pid")).unwrap(), pid);
    let (code, _, error) = phasor(server.folder(), &["reload", "--pid", "two.pid"]);
    assert_eq!(code, 0, "{error}");

    // What a killed server leaves names nobody.
    server.process().signal(Signal::KILL);
    assert!(server.process().wait(PATIENCE).is_some());
    assert!(folder.join("two.pid").exists());
    fs::write(folder.join("two.pid"), "1\n").unwrap();
    let (code, _, error) = phasor(server.folder(), &["stop"]);
    assert_eq!(code, 1);
    assert!(error.contains("no server runs phasor.toml"), "{error}");
}

#[test]
fn without_a_pid_file_the_command_says_so() {
    let config = CONFIG.replace("workers = 2", "workers = 2\npid = \"off\"");
    let server = Server::start(&config, &[]);
    let (code, _, error) = phasor(server.folder(), &["stop"]);
    assert_eq!(code, 1);
    assert!(error.contains("pid = \"off\""), "{error}");
    assert_eq!(get(server.port(), "/hello").text(), "old");
    server.stop(Signal::QUIT);
}
