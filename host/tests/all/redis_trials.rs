//! What a Redis can do to its client: stop under load, answer late, byte by byte, by half, with
//! nonsense or without an end. Each is an error that says what happened, and the next command works.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::Client;
use crate::harness::Server;
use crate::process::{bound, pause, soaks};
use crate::redis::{Redis, post, server_at, wait_until};

const GET: &str =
    "local v, e = main:get('k') return v == ngx.null and 'null' or v or 'error: ' .. e";

/// Sends Lua over and over on a connection of its own until it is told to stop; what came back.
fn ask_on(port: u16, stop: &AtomicBool) -> Vec<(Duration, String)> {
    let mut client = Client::connect(port);
    let mut seen = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        client.send(format!(
            "POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{GET}",
            GET.len()
        ));
        let answer = client.response(false).unwrap();
        assert_eq!(answer.status, 200);
        seen.push((start.elapsed(), answer.text().trim().to_owned()));
    }
    seen
}

#[test]
fn stopped_and_started_under_load() {
    let Some(mut redis) = Redis::start(&[]) else {
        return;
    };
    let server = server_at(
        &format!("redis://127.0.0.1:{}", redis.port),
        "breaker = { failures = 3, pause = \"100ms\" }",
    );
    assert_eq!(post(&server, "return main:set('k', 'v')"), "OK");
    let stop = AtomicBool::new(false);
    let port = server.port();
    let answers = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| ask_on(port, &stop)))
            .collect();
        let mark = server.mark();
        redis.kill();
        server.wait_log("away, the breaker opens", mark);
        wait_until(|| post(&server, GET).contains("breaker is open"));
        redis.run();
        server.wait_log("back, the breaker closes", mark);
        wait_until(|| post(&server, GET) == "null");
        assert_eq!(post(&server, "return main:set('k', 'again')"), "OK");
        stop.store(true, Ordering::Relaxed);
        asking
            .into_iter()
            .flat_map(|asking| asking.join().unwrap())
            .collect::<Vec<_>>()
    });
    let mut refused = Vec::new();
    for (took, answer) in &answers {
        match answer.as_str() {
            "v" | "null" | "again" => {}
            "error: unavailable: the breaker is open" => refused.push(*took),
            error => assert!(error.starts_with("error: "), "{error}"),
        }
    }
    // At once: the one in the middle took a fraction of the second that a connection may take.
    refused.sort_unstable();
    let least = if soaks() { 100 } else { 16 };
    assert!(refused.len() > least, "{} refusals", refused.len());
    let middle = refused[refused.len() / 2];
    let most = bound(Duration::from_millis(200), Duration::from_millis(500));
    assert!(middle < most, "{middle:?}");
    server.stop(Signal::QUIT);
}

#[test]
fn a_reply_of_half_a_gigabyte_costs_no_memory() {
    let Some(redis) = Redis::start(&["--proto-max-bulk-len", "1gb"]) else {
        return;
    };
    let mut server = server_at(
        &format!("redis://127.0.0.1:{}", redis.port),
        "timeout = \"60s\"\nconnect_timeout = \"60s\"",
    );
    let lua = "return main:setrange('big', 536870911, 'x')";
    assert_eq!(post(&server, lua), "536870912");
    let before = server.process().resident_memory();
    for lua in [
        "return cjson.encode{main:get('big')}",
        "return cjson.encode{main:pipeline{{'get', 'big'}, {'get', 'k'}}}",
        "return cjson.encode{main:eval([[return redis.call('get', KEYS[1])]], {'big'}, {})}",
    ] {
        let answer = post(&server, lua);
        assert!(answer.contains("longer than 16777216 bytes"), "{answer}");
    }
    let more = server.process().peak_memory().saturating_sub(before);
    assert!(more < 64 << 20, "{} MiB", more >> 20);
    assert_eq!(post(&server, "return main:set('k', 'v')"), "OK");
    server.stop(Signal::QUIT);
}

#[test]
fn commands_that_fail_among_others() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let server = server_at(&format!("redis://127.0.0.1:{}", redis.port), "");
    for (lua, expected) in [
        (
            "main:set('s', 'x') return cjson.encode(main:pipeline{{'set', 'a', 1}, {'lpush', 's', 1}, {'nonsense'}, {'incr', 'a'}})",
            r#"["OK",[false,"WRONGTYPE Operation against a key holding the wrong kind of value"],[false,"ERR unknown command 'nonsense', with args beginning with: "],2]"#,
        ),
        // Refused before anything ran, with the reason; and an error of one that ran is its reply.
        (
            "return cjson.encode{main:transaction{{'set', 'a', 7}, {'set', 'a'}}}",
            r#"[null,"EXECABORT ERR wrong number of arguments for 'set' command"]"#,
        ),
        (
            "return cjson.encode(main:transaction{{'set', 'a', 7}, {'lpush', 'a', 1}, {'incr', 'a'}})",
            r#"["OK",[false,"WRONGTYPE Operation against a key holding the wrong kind of value"],8]"#,
        ),
        ("return main:get('a')", "8"),
    ] {
        assert_eq!(post(&server, lua), expected, "{lua}");
    }
    server.stop(Signal::QUIT);
}

/// A server of Redis' protocol that answers `GET key` as it is told, and everything else with `OK`.
fn fake(reply: impl Fn(&mut TcpStream, &str) + Send + Clone + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let reply = reply.clone();
            std::thread::spawn(move || answer_all(stream, reply));
        }
    });
    port
}

fn answer_all(mut stream: TcpStream, reply: impl Fn(&mut TcpStream, &str)) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(words) = command(&mut reader) {
        match words[0].as_str() {
            "GET" => reply(&mut stream, &words[1]),
            _ => {
                stream.write_all(b"+OK\r\n").ok();
            }
        }
    }
}

/// Reads a command's words.
pub(crate) fn command(reader: &mut impl BufRead) -> Option<Vec<String>> {
    let number = |reader: &mut dyn BufRead| {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        line.get(1..)?.trim().parse::<usize>().ok()
    };
    let count = number(reader)?;
    let mut words = Vec::new();
    for _ in 0..count {
        let mut bytes = vec![0; number(reader)? + 2];
        reader.read_exact(&mut bytes).ok()?;
        words.push(String::from_utf8_lossy(&bytes[..bytes.len() - 2]).into_owned());
    }
    (!words.is_empty()).then_some(words)
}

fn server_of(port: u16, more: &str) -> Server {
    let more = format!("protocol = \"resp2\"\nbreaker = {{ failures = 1000 }}\n{more}");
    server_at(&format!("redis://127.0.0.1:{port}"), &more)
}

fn ask(server: &Server, key: &str) -> String {
    let lua = format!(
        "local v, e = main:get('{key}') return v == ngx.null and 'null' or v or 'error: ' .. e"
    );
    post(server, &lua)
}

#[test]
fn half_a_reply_nonsense_and_no_end() {
    let port = fake(|stream, key| {
        let bytes: Vec<u8> = match key {
            "half" => b"$10\r\n01234".to_vec(),
            "nonsense" => b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            "deep" => b"*1\r\n".repeat(100_000),
            "line" => [b"+".to_vec(), vec![b'x'; 40 << 20]].concat(),
            "list" => b"*2147483647\r\n".to_vec(),
            _ => b"$4\r\ngood\r\n".to_vec(),
        };
        stream.write_all(&bytes).ok();
        if key == "half" {
            stream.shutdown(std::net::Shutdown::Both).ok();
        }
    });
    let mut server = server_of(port, "timeout = \"2s\"");
    assert_eq!(ask(&server, "k"), "good");
    let before = server.process().resident_memory();
    for key in ["half", "nonsense", "deep", "line", "list"] {
        let start = Instant::now();
        let answer = ask(&server, key);
        assert!(
            answer.starts_with("error: ") && !answer.contains("timeout"),
            "{key}: {answer} after {:?}",
            start.elapsed()
        );
        assert_eq!(ask(&server, "k"), "good", "after {key}");
    }
    let more = server.process().peak_memory().saturating_sub(before);
    assert!(more < 96 << 20, "{} MiB", more >> 20);
    server.stop(Signal::QUIT);
}

#[test]
fn a_reply_that_comes_late_is_nobody_elses() {
    let port = fake(|stream, key| {
        if key == "late" {
            pause(Duration::from_secs(4));
        }
        if key == "bytes" {
            for byte in b"$2000\r\n".iter().chain(&[b'x'; 2000]) {
                if stream.write_all(&[*byte]).is_err() {
                    return;
                }
                pause(Duration::from_millis(20));
            }
        }
        stream
            .write_all(format!("${}\r\n{key}\r\n", key.len()).as_bytes())
            .ok();
    });
    let server = server_of(port, "timeout = \"2s\"");
    assert_eq!(ask(&server, "one"), "one");
    assert_eq!(ask(&server, "late"), "error: timeout");
    // Whoever asks next waits behind it and gets what it asked for, or nothing.
    wait_until(|| {
        let answer = ask(&server, "two");
        assert!(answer == "two" || answer == "error: timeout", "{answer}");
        answer == "two"
    });
    assert_eq!(ask(&server, "bytes"), "error: timeout");
    server.stop(Signal::QUIT);
}

#[test]
fn a_server_that_says_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = server_of(port, "connect_timeout = \"200ms\"");
    assert_eq!(ask(&server, "k"), "error: timeout");
    server.stop(Signal::QUIT);
}

#[test]
fn more_commands_than_may_wait() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let server = server_at(
        &format!("redis://127.0.0.1:{}", redis.port),
        "queue = 4\ntimeout = \"60s\"",
    );
    assert_eq!(post(&server, "return main:set('k', 'v')"), "OK");
    redis.signal(Signal::STOP);
    let lua = "local t = {} for i = 1, 6 do t[i] = ngx.thread.spawn(function() return main:get('k') end) end \
               local busy = 0 local n = 0 \
               while busy < 2 do local _, v, e = ngx.thread.wait(unpack(t)) \
                 for i = #t, 1, -1 do if coroutine.status(t[i]) == 'dead' then table.remove(t, i) end end \
                 if e == 'too many commands wait' then busy = busy + 1 else return 'got ' .. tostring(v) .. tostring(e) end end \
               for i = 1, #t do ngx.thread.kill(t[i]) end return busy";
    assert_eq!(post(&server, lua), "2");
    redis.signal(Signal::CONT);
    wait_until(|| post(&server, GET) == "v");
    server.stop(Signal::QUIT);
}
