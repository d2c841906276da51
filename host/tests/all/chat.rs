//! The example `05-websocket-chat`, driven by several clients on several workers.

use std::collections::HashSet;
use std::fs;

use rustix::process::Signal;

use crate::harness::{Folder, Server, root};
use crate::websocket::{CLOSE, Peer, TEXT};

/// The example, with a log of who comes and goes.
pub(crate) fn server() -> Server {
    let example = root().join("examples/05-websocket-chat");
    let folder = Folder::new();
    folder.copy_from(&example);
    let config = fs::read_to_string(example.join("phasor.toml")).unwrap();
    let config = config.replace(
        "workers = 2",
        "workers = 2\nerror_log = { level = \"info\" }",
    );
    Server::start_in(folder, &config)
}

fn enter(server: &Server, name: &str, room: &str) -> Peer {
    Peer::open(server.port(), &format!("/chat?name={name}&room={room}"), "")
}

/// The next message that is one of these kinds.
fn next(peer: &mut Peer, kind: &str) -> serde_json::Value {
    loop {
        let (first, text) = peer.receive();
        assert_eq!(first, TEXT);
        let message: serde_json::Value = serde_json::from_slice(&text).unwrap();
        if message["kind"] == kind {
            return message;
        }
    }
}

#[test]
fn everybody_in_a_room_sees_everything() {
    let server = server();
    let mut ada = enter(&server, "Ada", "lobby");
    assert_eq!(
        next(&mut ada, "joined")["people"],
        serde_json::json!(["Ada"])
    );
    let mut other = enter(&server, "Eve", "elsewhere");
    next(&mut other, "joined");
    // So many that both workers have some.
    let mut peers: Vec<Peer> = (0..12)
        .map(|n| enter(&server, &format!("n%C3%A4me%20{n}"), "lobby"))
        .collect();
    for _ in &peers {
        next(&mut ada, "joined");
    }
    ada.send(TEXT, "<b>hällo</b>".as_bytes());
    for peer in &mut peers {
        let message = next(peer, "message");
        assert_eq!(
            (&message["who"], &message["text"]),
            (&"Ada".into(), &"<b>hällo</b>".into())
        );
        assert_eq!(message["people"].as_array().unwrap().len(), 13);
    }
    // Many at once: nothing is lost, all see one order.
    for (n, peer) in peers.iter_mut().enumerate() {
        for m in 0..20 {
            peer.send(TEXT, format!("{n} {m}").as_bytes());
        }
    }
    let mut orders = HashSet::new();
    for peer in &mut peers {
        let said: Vec<String> = (0..12 * 20)
            .map(|_| next(peer, "message")["text"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(said.iter().collect::<HashSet<_>>().len(), 12 * 20);
        orders.insert(said);
    }
    assert_eq!(orders.len(), 1);
    // Who leaves is seen to: with a close, and without.
    for _ in 0..12 * 20 + 1 {
        next(&mut ada, "message");
    }
    let mut last = peers.pop().unwrap();
    last.send(CLOSE, b"\x03\xe8");
    assert_eq!(
        next(&mut ada, "left")["people"].as_array().unwrap().len(),
        12
    );
    drop(peers);
    for _ in 0..11 {
        next(&mut ada, "left");
    }
    other.send(TEXT, b"alone");
    let message = next(&mut other, "message");
    assert_eq!(message["people"], serde_json::json!(["Eve"]));
    server.stop_and(Signal::TERM, || ());
}
