//! A crowd in one room of the example `05-websocket-chat`, on one worker: all come in, all hear one of
//! them, and when they have left nothing of them is left.

use std::collections::HashSet;

use futures_util::future::join_all;
use regex::Regex;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cosocket::sockets;
use crate::process::{PATIENCE, soaks};
use crate::redis::wait_until;
use crate::websocket::{CLOSE, TEXT, frame, handshake};

/// What it costs to come in grows with the crowd: two thousand are for the soak.
fn crowd_size() -> usize {
    if soaks() { 2_000 } else { 400 }
}

/// The most memory that the server may hold per WebSocket, with its handler, its two light threads
/// and what waits to be sent.
const EACH: u64 = 160 << 10;

struct Member(BufReader<TcpStream>);

impl Member {
    async fn enter(port: u16, name: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let head = handshake(&format!("/chat?room=lobby&name={name}"), "");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut stream = BufReader::with_capacity(16 << 10, stream);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "));
        Self(stream)
    }

    /// The next frame, a list of messages.
    async fn hear(&mut self) -> Vec<u8> {
        assert_eq!(self.0.read_u8().await.unwrap(), TEXT);
        let length = match self.0.read_u8().await.unwrap() {
            126 => self.0.read_u16().await.unwrap().into(),
            127 => usize::try_from(self.0.read_u64().await.unwrap()).unwrap(),
            short => short.into(),
        };
        let mut text = vec![0; length];
        self.0.read_exact(&mut text).await.unwrap();
        text
    }

    /// Hears on until somebody says it.
    async fn hears(&mut self, said: &str) {
        let said = format!(r#""text":"{said}""#);
        while memchr::memmem::find(&self.hear().await, said.as_bytes()).is_none() {}
    }

    /// Hears on until so many are there.
    async fn sees(&mut self, count: usize) {
        let mut here = HashSet::new();
        while here.len() < count {
            let messages: Vec<Value> = serde_json::from_slice(&self.hear().await).unwrap();
            for message in messages {
                if let Some(people) = message["people"].as_object() {
                    here.extend(people.keys().cloned());
                } else if message["kind"] == "joined" {
                    here.insert(message["id"].as_str().unwrap().to_owned());
                }
            }
        }
        assert_eq!(here.len(), count);
    }

    async fn say(&mut self, text: &str) {
        let frame = frame(TEXT, text.as_bytes());
        self.0.write_all(&frame).await.unwrap();
    }

    /// Says good-bye and waits until the server has hung up.
    async fn leave(mut self) {
        self.0.write_all(&frame(CLOSE, b"\x03\xe8")).await.unwrap();
        self.0.read_to_end(&mut Vec::new()).await.unwrap();
    }
}

/// They come in together; when the first sees them all it speaks, and all hear it.
async fn gather(port: u16, crowd: usize) -> Vec<Member> {
    join_all((0..crowd).map(async |number| {
        let mut member = Member::enter(port, &format!("n{number}")).await;
        if number == 0 {
            member.sees(crowd).await;
            member.say("welcome").await;
        }
        member.hears("welcome").await;
        member
    }))
    .await
}

#[test]
fn a_crowd_in_a_room() {
    let crowd = crowd_size();
    // Both ends of each connection are files of this process and its child.
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let mut server = crate::chat::server_with(1);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let port = server.port();
    let pid = server.process().id();
    // What is open beside one who is alone in the room.
    let alone = || {
        runtime.block_on(async {
            let mut member = Member::enter(port, "first").await;
            member.sees(1).await;
            let open = sockets(pid) - 1;
            member.leave().await;
            open
        })
    };
    let nobody = alone();
    wait_until(|| sockets(pid) == nobody);
    let memory = server.process().resident_memory();
    // Of the crowd only: what the one who was alone says may be read after the mark.
    let leaves = Regex::new(r" n\d+ left lobby: (\w+)").unwrap();
    for _ in 0..2 {
        let mark = server.mark();
        let members =
            runtime.block_on(async { timeout(PATIENCE, gather(port, crowd)).await.unwrap() });
        assert_eq!(sockets(pid), nobody + crowd);
        let each = (server.process().peak_memory() - memory) / crowd as u64;
        assert!(each < EACH, "{each} bytes a WebSocket");
        let leaving = join_all(members.into_iter().map(Member::leave));
        runtime.block_on(async { timeout(PATIENCE, leaving).await.unwrap() });
        // Nothing is left of them: no socket, no handler, no name on the list.
        wait_until(|| leaves.find_iter(&server.log_since(mark)).count() == crowd);
        let log = server.log_since(mark);
        let mut reasons = leaves
            .captures_iter(&log)
            .map(|leaves| leaves[1].to_owned());
        assert!(reasons.all(|reason| reason == "closed"), "{log}");
        wait_until(|| sockets(pid) == nobody);
        assert_eq!(alone(), nobody);
    }
    server.stop(Signal::QUIT);
}
