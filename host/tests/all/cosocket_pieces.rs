//! What comes over a socket in many small pieces costs no more than its bytes: a search that began anew
//! at each piece took seconds of processor time for a line of 16 MiB, a pattern minutes.

use std::io::Write;

use rustix::process::Signal;

use crate::client::get;
use crate::cosocket::{peer, server_with};

const SETTINGS: &str =
    "limits = { cpu = \"30s\", memory = \"512m\" }\ncosocket = { receive_limit = \"48m\" }";

/// Processor time of a process, in hundredths of a second.
fn processor_time(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Behind its name, which may hold anything.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split(' ').collect();
    fields[12].parse::<u64>().unwrap() + fields[13].parse::<u64>().unwrap()
}

/// Receives 16 MiB that come at most 16 KiB at a time and end so; what the handler says.
fn long(end: &'static [u8], script: &str) -> String {
    let (port, thread) = peer(1, move |mut stream| {
        let piece = [b'-'; 1 << 10];
        for _ in 0..16 << 10 {
            stream.write_all(&piece).unwrap();
        }
        // The end itself comes in pieces, too.
        for byte in end {
            stream.write_all(&[*byte]).unwrap();
        }
    });
    let mut server = server_with(SETTINGS, script, port);
    let before = processor_time(server.process().id());
    let answer = get(server.port(), "/t");
    assert_eq!(answer.status, 200, "{}", server.log_since(0));
    let took = processor_time(server.process().id()) - before;
    assert!(took < 150, "{took} hundredths of a second");
    thread.join().unwrap();
    server.stop(Signal::QUIT);
    answer.text()
}

#[test]
fn a_long_line() {
    let script = r#"
local sock = assert(ngx.socket.connect("127.0.0.1", PORT))
ngx.say(#sock:receive())
ngx.say(sock:receive())
"#;
    assert_eq!(long(b"\n", script), "16777216\nnilclosed\n");
}

#[test]
fn a_pattern_far_away() {
    let script = r#"
local sock = assert(ngx.socket.connect("127.0.0.1", PORT))
local reader = sock:receiveuntil("--end--\r\n")
ngx.say(#reader())
ngx.say(reader())
ngx.say(sock:receive())
"#;
    assert_eq!(
        long(b"-end--\r\n", script),
        "16777215\nnilclosed\nnilclosed\n"
    );
}
