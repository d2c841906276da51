//! A worker that panics: the supervisor sets another in its place, on the same sockets. No request can
//! make a worker panic, so that this stands here: the worker's own event loop is broken under it. What
//! is unsafe is to name a descriptor that another part of the process owns.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::mem::ManuallyDrop;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

use signal_hook::consts::SIGTERM;
use tokio::sync::mpsc::UnboundedSender;

use super::{Event, Options, Server, Source};

const CONFIG: &str = r#"
[server]
listen = ["127.0.0.1:PORT"]
workers = 2
pid = "off"
compile_cache = "off"
access_log = "off"

[[route]]
path = "/*"
respond = { status = 200, body = "hello" }
"#;

/// Runs a server on a thread; gives its port and where its events come in.
fn start() -> (u16, UnboundedSender<Event>, std::thread::JoinHandle<()>) {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let config = CONFIG.replace("PORT", &port.to_string()).leak();
    let (told, hears) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let source = Source::Text(config);
        let config = source.load().unwrap();
        let options = Options {
            watch: false,
            json: false,
        };
        let server = Server::start(source, config, options).unwrap();
        told.send(server.events_in.clone()).unwrap();
        server.run().unwrap();
    });
    (port, hears.recv().unwrap(), thread)
}

/// The workers' event loops, by the socket on the port that each watches: a loop has two descriptors.
fn event_loops(port: u16) -> Vec<Vec<RawFd>> {
    let local = format!("0100007F:{port:04X} 00000000:0000 0A");
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let listening: Vec<String> = table
        .lines()
        .filter(|line| line.contains(&local))
        .map(|line| {
            let inode: u64 = line.split_whitespace().nth(9).unwrap().parse().unwrap();
            format!("ino:{inode:x} ")
        })
        .collect();
    let mut found = BTreeMap::<&String, Vec<RawFd>>::new();
    for entry in fs::read_dir("/proc/self/fdinfo").unwrap().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let mut watched = text.lines().filter(|line| line.starts_with("tfd:"));
        let socket = watched.find_map(|line| listening.iter().find(|inode| line.contains(*inode)));
        if let Some(socket) = socket {
            let descriptor = entry.file_name().to_str().unwrap().parse().unwrap();
            found.entry(socket).or_default().push(descriptor);
        }
    }
    found.into_values().collect()
}

/// Puts a file in the place of an event loop: what waits on it is told that it is none.
fn break_loop(descriptors: &[RawFd]) {
    let file = fs::File::open("/dev/null").unwrap();
    for descriptor in descriptors {
        #[expect(
            unsafe_code,
            reason = "the descriptor stays its worker's, and open: only what is behind it changes"
        )]
        // SAFETY: it is open as long as its worker lives, and is not closed here.
        let mut owned = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(*descriptor) });
        rustix::io::dup2(&file, &mut owned).unwrap();
    }
}

fn ask(stream: &mut TcpStream) -> std::io::Result<String> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let mut text = Vec::new();
    let mut buffer = [0; 1024];
    while !text.ends_with(b"hello") {
        match stream.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            length => text.extend_from_slice(&buffer[..length]),
        }
    }
    Ok(String::from_utf8(text).unwrap())
}

#[test]
fn a_worker_that_panics_is_replaced_and_the_others_go_on() {
    let (port, events, server) = start();
    let connect = || TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut clients: Vec<_> = (0..40).map(|_| connect()).collect();
    for client in &mut clients {
        assert!(ask(client).unwrap().starts_with("HTTP/1.1 200"));
    }
    for _ in 0..3 {
        let loops = event_loops(port);
        assert_eq!(loops.len(), 2, "{loops:?}");
        break_loop(&loops[0]);
        // Who comes now waits in the line of a socket that outlives its worker; only whom it has taken
        // already goes with it.
        let (mut served, mut lost) = (0, 0);
        while event_loops(port).len() < 2 || served < 40 {
            match ask(&mut connect()) {
                Ok(_) => served += 1,
                Err(_) => lost += 1,
            }
        }
        assert!(lost < 10, "{lost} lost, {served} served");
    }
    // Its clients were let go, at once; those of the other worker have noticed nothing.
    let mut clients: Vec<_> = (0..40).map(|_| connect()).collect();
    for client in &mut clients {
        ask(client).unwrap();
    }
    break_loop(&event_loops(port)[0]);
    let mut lost = 0;
    while lost == 0 {
        lost = clients
            .iter_mut()
            .filter_map(|client| ask(client).err())
            .count();
    }
    assert!(lost < clients.len(), "both workers are gone");
    events.send(Event::Signal(SIGTERM)).ok();
    server.join().unwrap();
}
