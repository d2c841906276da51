//! A trial of locks in Redis: two servers whose owners go into the same room, one at a time, while their
//! Redis is stopped, cut off, killed and empty when it is back. Who goes in and out is seen by a third one.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cache_redis::redis;
use crate::client::Client;
use crate::harness::Server;
use crate::http_client::wicked;
use crate::process::PATIENCE;
use crate::redis::Redis;

/// Who is inside, and what was wrong.
#[derive(Default)]
struct Room {
    inside: Option<u64>,
    last: u64,
    visits: usize,
    faults: Vec<String>,
}

impl Room {
    fn enter(&mut self, number: u64) {
        if let Some(other) = self.inside {
            self.faults.push(format!("{number} came in beside {other}"));
        }
        if number <= self.last {
            self.faults
                .push(format!("{number} came after {}", self.last));
        }
        self.inside = Some(number);
        self.last = number;
    }

    fn leave(&mut self, number: u64) {
        if self.inside != Some(number) {
            self.faults
                .push(format!("{number} left, {:?} was inside", self.inside));
        }
        self.inside = None;
        self.visits += 1;
    }
}

/// Serves `/enter/NUMBER` and `/leave/NUMBER`.
fn room() -> (u16, Arc<Mutex<Room>>) {
    let room = Arc::new(Mutex::new(Room::default()));
    let seen = room.clone();
    let (port, _) = wicked(move |mut stream| {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
            head.push(byte[0]);
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        let mut path = text.split(' ').nth(1).unwrap_or_default().split('/');
        let (what, number) = (path.nth(1), path.next());
        let number = number.and_then(|number| number.parse().ok()).unwrap_or(0);
        match what {
            Some("enter") => seen.lock().unwrap().enter(number),
            _ => seen.lock().unwrap().leave(number),
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        stream.write_all(answer).ok();
    });
    (port, room)
}

fn server(redis: u16, room: u16) -> Server {
    let config = format!(
        r#"
[server]
workers = 2
[redis.main]
url = "redis://127.0.0.1:{redis}"
timeout = "500ms"
connect_timeout = "500ms"
breaker = {{ failures = 2, pause = "200ms" }}
[lock.rooms]
redis = "main"
hold = "60s"
wait = "5s"
[plugin.lua]
allow = {{ http = ["*"] }}
[[route]]
path = "/visit"
lua.content = """
local fetch = require('phasor.http').fetch
local guard, err = require('phasor.lock').open('rooms'):acquire('the room')
if not guard then return ngx.print(err) end
local number = string.format('%.0f', guard:fencing())
assert(fetch('http://127.0.0.1:{room}/enter/' .. number))
ngx.sleep(0.005)
assert(fetch('http://127.0.0.1:{room}/leave/' .. number))
local _, err = guard:release()
ngx.print('visited ', err or '')
"""
"#
    );
    Server::start(&config, &[])
}

/// Visits until it is over; gives what was said that nobody may say.
fn visit(port: u16, over: &AtomicBool, visits: &AtomicUsize) -> Vec<String> {
    let mut strange = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let mut client = Client::connect(port);
        client.send("GET /visit HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let said = client.response(false).unwrap().text();
        visits.fetch_add(usize::from(said == "visited "), Ordering::Relaxed);
        let known = ["visited ", "visited unavailable", "timeout", "unavailable"];
        if !known.contains(&&*said) {
            strange.push(said);
        }
    }
    strange
}

/// Waits for so many more visits.
fn more(visits: &AtomicUsize, count: usize) {
    let (begin, before) = (Instant::now(), visits.load(Ordering::Relaxed));
    while visits.load(Ordering::Relaxed) < before + count {
        assert!(begin.elapsed() < PATIENCE, "nobody gets the lock");
        crate::process::pause(Duration::from_millis(5));
    }
}

#[test]
fn never_two_owners_whatever_becomes_of_redis() {
    let Some(mut store) = Redis::start(&[]) else {
        return;
    };
    let (port, room) = room();
    let servers = [server(store.port, port), server(store.port, port)];
    let (over, visits) = (AtomicBool::new(false), AtomicUsize::new(0));
    let strange: Vec<String> = std::thread::scope(|scope| {
        let visitors: Vec<_> = (0..8)
            .map(|n| {
                let (port, over, visits) = (servers[n % 2].port(), &over, &visits);
                scope.spawn(move || visit(port, over, visits))
            })
            .collect();
        more(&visits, 50);
        for _ in 0..3 {
            store.signal(Signal::STOP);
            crate::process::pause(Duration::from_millis(1200));
            store.signal(Signal::CONT);
            more(&visits, 20);
            redis(store.port, &[b"CLIENT", b"KILL", b"TYPE", b"pubsub"]);
            more(&visits, 20);
            redis(store.port, &[b"FLUSHALL"]);
            more(&visits, 20);
            store.kill();
            crate::process::pause(Duration::from_millis(300));
            store.run();
            more(&visits, 20);
        }
        over.store(true, Ordering::Relaxed);
        let joined = visitors.into_iter().map(|visitor| visitor.join().unwrap());
        joined.flatten().collect()
    });
    assert!(strange.is_empty(), "{strange:?}");
    let room = room.lock().unwrap();
    assert!(room.faults.is_empty(), "{:?}", room.faults);
    assert!(room.visits >= 300, "{} visits", room.visits);
}
