//! The access log's form, and what it does when the disk does not keep up.

use std::sync::Arc;

use super::{AccessLog, BUFFER_AGE_MS, Buffer, Format, format};
use crate::config::template::Template;
use crate::observe::log_file::{LogFile, Target};

fn lookup(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(match name {
        "remote_addr" => b"127.0.0.1",
        "time_local" => b"23/Nov/2026:21:00:00 +0000",
        "request" => b"GET /\"a\\b\x01\xc3\xa4 HTTP/1.1",
        "request_uri" => b"/\"a\xff",
        "status" => b"200",
        "body_bytes_sent" => b"12",
        "request_time" => b"0.003",
        _ => b"",
    });
}

#[test]
fn combined_is_escaped_as_nginx_does_it() {
    let mut out = Vec::new();
    format(&mut out, &Format::combined(), lookup);
    let expected = r#"127.0.0.1 - - [23/Nov/2026:21:00:00 +0000] "GET /\x22a\x5Cb\x01\xC3\xA4 HTTP/1.1" 200 12 "-" "-""#;
    assert_eq!(String::from_utf8(out).unwrap(), format!("{expected}\n"));
}

#[test]
fn json_is_valid_with_numbers_as_numbers() {
    let mut out = Vec::new();
    format(&mut out, &Format::Json, lookup);
    let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(value["status"], 200);
    assert_eq!(value["request_time"], 0.003);
    assert_eq!(value["uri"], "/\"a\u{fffd}");
    assert_eq!(value["referer"], serde_json::Value::Null);
    assert_eq!(out.iter().filter(|&&byte| byte == b'\n').count(), 1);
}

fn status_only() -> Format {
    Format::Template(Template::parse("s=$status", &|_| None).unwrap())
}

#[test]
fn lines_reach_the_file_by_size_by_age_and_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let log = AccessLog::open(Target::File(path.clone())).unwrap();
    let lines = || std::fs::read_to_string(&path).unwrap().lines().count();
    let mut buffer = Buffer::new(Arc::clone(&log));
    buffer.write(&status_only(), 1000, lookup);
    log.flush();
    assert_eq!(lines(), 0);
    buffer.tick(1000 + BUFFER_AGE_MS);
    log.flush();
    assert_eq!(lines(), 1);
    for _ in 0..10_000 {
        buffer.write(&status_only(), 2000, lookup);
    }
    log.flush();
    assert!(lines() > 5000);
    drop(buffer);
    drop(log);
    assert_eq!(lines(), 10_001);
}

#[test]
fn reopening_follows_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let log = AccessLog::open(Target::File(path.clone())).unwrap();
    let mut buffer = Buffer::new(Arc::clone(&log));
    buffer.write(&status_only(), 1, lookup);
    buffer.flush();
    log.flush();
    std::fs::rename(&path, folder.path().join("old")).unwrap();
    log.reopen();
    buffer.write(&status_only(), 1, lookup);
    buffer.flush();
    log.flush();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "s=200\n");
}

#[test]
fn a_full_queue_drops_and_counts_but_never_waits() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    // A pipe that nobody empties: after 64 KiB the log's thread hangs in its write.
    let reader = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&fifo)
        .unwrap();
    let log = AccessLog::open_with(LogFile::open(Target::File(fifo)).unwrap(), 2).unwrap();
    let mut buffer = Buffer::new(Arc::clone(&log));
    for _ in 0..100_000 {
        buffer.write(&status_only(), 1, lookup);
    }
    buffer.flush();
    let dropped = log.dropped();
    assert!(dropped > 50_000, "{dropped}");
    // Empty the pipe, so that the thread can end; what it wrote is whole lines, none lost.
    let drain = std::thread::spawn(move || {
        use std::io::Read as _;
        let mut reader = reader;
        let mut left = (100_000 - usize::try_from(dropped).unwrap()) * 6;
        let mut piece = vec![0; 4096];
        while left > 0 {
            left -= reader.read(&mut piece).unwrap();
        }
        drop(reader);
    });
    drop(buffer);
    drop(log);
    drain.join().unwrap();
}
