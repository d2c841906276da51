//! The example `05-websocket-chat`, driven by several clients on several workers.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Folder, Server, root};
use crate::websocket::{CLOSE, Peer, TEXT};

/// The example on its two workers, with a log of who comes and goes.
pub(crate) fn server() -> Server {
    server_with(2)
}

/// The example on so many workers.
pub(crate) fn server_with(workers: usize) -> Server {
    let example = root().join("examples/05-websocket-chat");
    let folder = Folder::new();
    folder.copy_from(&example);
    let config = fs::read_to_string(example.join("phasor.toml")).unwrap();
    let config = config.replace(
        "workers = 2",
        &format!("workers = {workers}\nerror_log = {{ level = \"info\" }}"),
    );
    Server::start_in(folder, &config)
}

/// Somebody in a room, with the numbers and names of those who he knows are there.
struct Member {
    peer: Peer,
    heard: VecDeque<Value>,
    people: BTreeMap<String, String>,
}

impl Member {
    fn enter(server: &Server, name: &str, room: &str) -> Self {
        let path = format!("/chat?name={name}&room={room}");
        let mut member = Self {
            peer: Peer::open(server.port(), &path, ""),
            heard: VecDeque::new(),
            people: BTreeMap::new(),
        };
        let list = member.next("people");
        let people = list["people"].as_object().unwrap().iter();
        member.people = people
            .map(|(id, who)| (id.clone(), who.as_str().unwrap().to_owned()))
            .collect();
        member
    }

    fn say(&mut self, text: &str) {
        self.peer.send(TEXT, text.as_bytes());
    }

    /// The next message of this kind.
    fn next(&mut self, kind: &str) -> Value {
        loop {
            while let Some(message) = self.heard.pop_front() {
                let text = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
                match message["kind"].as_str().unwrap() {
                    "joined" => drop(self.people.insert(text("id"), text("who"))),
                    "left" => drop(self.people.remove(&text("id"))),
                    _ => {}
                }
                if message["kind"] == kind {
                    return message;
                }
            }
            let (first, text) = self.peer.receive();
            assert_eq!(first, TEXT);
            self.heard = serde_json::from_slice(&text).unwrap();
        }
    }

    /// Hears on until so many are there.
    fn sees(&mut self, count: usize) {
        while self.people.len() != count {
            let kind = if self.people.len() < count {
                "joined"
            } else {
                "left"
            };
            self.next(kind);
        }
    }
}

#[test]
fn everybody_in_a_room_sees_everything() {
    let server = server();
    let mut ada = Member::enter(&server, "Ada", "lobby");
    ada.sees(1);
    let mut other = Member::enter(&server, "Eve", "elsewhere");
    // So many that both workers have some.
    let mut peers: Vec<Member> = (0..12)
        .map(|n| Member::enter(&server, &format!("n%C3%A4me%20{n}"), "lobby"))
        .collect();
    ada.sees(13);
    assert!(ada.people.values().any(|name| name == "näme 11"));
    ada.say("<b>hällo</b>");
    for peer in &mut peers {
        let message = peer.next("message");
        assert_eq!(
            (&message["who"], &message["text"]),
            (&"Ada".into(), &"<b>hällo</b>".into())
        );
        assert_eq!(peer.people, ada.people);
    }
    // Many at once: nothing is lost, all see one order.
    for (n, peer) in peers.iter_mut().enumerate() {
        for m in 0..20 {
            peer.say(&format!("{n} {m}"));
        }
    }
    let mut orders = HashSet::new();
    for peer in &mut peers {
        let said: Vec<String> = (0..12 * 20)
            .map(|_| peer.next("message")["text"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(said.iter().collect::<HashSet<_>>().len(), 12 * 20);
        orders.insert(said);
    }
    assert_eq!(orders.len(), 1);
    // Who leaves is seen to: with a close, and without.
    let mut last = peers.pop().unwrap();
    last.peer.send(CLOSE, b"\x03\xe8");
    ada.sees(12);
    drop(peers);
    ada.sees(1);
    other.sees(1);
    other.say("alone");
    assert_eq!(other.next("message")["who"], "Eve");
    server.stop_and(Signal::TERM, || ());
}
