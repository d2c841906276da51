//! Fails on demand, so that tests can show that a fault costs one request: `/panic`, `/loop`,
//! `/alloc`, `/recurse`, `/error`. Beside these: `/sleep?ms=`, `/stream?n=`, `/echo`, `/counter`,
//! `/status?code=`, `/double`, `/config`, `/env`.

use std::hint::black_box;
use std::time::Duration;

use phasor_plugin::shared_dict::{Dict, DictError};
use phasor_plugin::{Answer, Request, RequestBody, Verdict, Writer, timers};

#[phasor_plugin::content]
fn handle(
    request: &Request,
    body: &mut RequestBody,
    writer: &mut Writer,
) -> Result<Verdict, String> {
    let uri = request.uri();
    let (path, query) = uri.split_once('?').unwrap_or((&uri, ""));
    // Tests mount the plugin under any prefix: only the last part counts.
    match path.rsplit('/').next().unwrap_or_default() {
        "panic" => give_up("the plugin panics"),
        "loop" => spin(),
        "alloc" => grow(),
        "recurse" => return text(writer, &dig(u64::MAX).to_string()),
        "error" => return Err("an error on purpose".to_owned()),
        "sleep" => timers::sleep(Duration::from_millis(number(query, "ms"))),
        "stream" => return stream(writer, number(query, "n")),
        "echo" => {
            let body = body.whole().map_err(|error| error.to_string())?;
            send(writer, 200, &body)?;
            return Ok(Verdict::Exit(0));
        }
        "counter" => return text(writer, &count().map_err(|error| error.to_string())?),
        "afterwards" => {
            let started = format!("{:?}", timers::afterwards(|| ()));
            return text(writer, &started);
        }
        "status" => {
            return Ok(Verdict::Exit(
                u16::try_from(number(query, "code")).unwrap_or(500),
            ));
        }
        "double" => {
            send(writer, 200, b"once\n")?;
            // The second answer is refused with a value, not a trap.
            let second = writer.send(200, &[], b"twice\n");
            return match second {
                Err(_) => Ok(Verdict::Exit(0)),
                Ok(()) => Err("a second answer was taken".to_owned()),
            };
        }
        "env" => {
            let names: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
            return text(writer, &names.join(" "));
        }
        _ => return Ok(Verdict::Exit(404)),
    }
    text(writer, "done")
}

fn text(writer: &mut Writer, text: &str) -> Result<Verdict, String> {
    send(writer, 200, format!("{text}\n").as_bytes())?;
    Ok(Verdict::Exit(0))
}

fn send(writer: &mut Writer, status: u16, body: &[u8]) -> Result<(), String> {
    let headers: [(&str, &[u8]); 1] = [("content-type", b"text/plain")];
    writer
        .send(status, &headers, body)
        .map_err(|error| error.to_string())
}

/// A query argument as a number; 0 when there is none.
fn number(query: &str, name: &str) -> u64 {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.into_iter().find(|(key, _)| *key == name);
    value
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or_default()
}

#[expect(clippy::panic, reason = "to be seen as a fault is what it is for")]
fn give_up(text: &str) {
    panic!("{text}");
}

fn spin() {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Takes memory until there is no more.
fn grow() {
    let mut blocks = Vec::new();
    loop {
        blocks.push(black_box(vec![1_u8; 1 << 20]));
    }
}

/// Uses stack until there is no more.
fn dig(depth: u64) -> u64 {
    let frame = black_box([depth; 32]);
    if frame[0] == 0 {
        return 0;
    }
    dig(depth - 1).wrapping_add(black_box(frame)[31])
}

fn stream(writer: &mut Writer, pieces: u64) -> Result<Verdict, String> {
    for piece in 0..pieces {
        writer
            .write(format!("piece {piece}\n"))
            .map_err(|error| error.to_string())?;
    }
    writer.finish().map_err(|error| error.to_string())?;
    Ok(Verdict::Exit(0))
}

fn count() -> Result<String, DictError> {
    let dict = Dict::open("counters")?;
    let hits = dict.incr("hits", 1.0, Some(0.0))?;
    Ok(hits.to_string())
}

/// Answers before the content handler when asked to, so that both ways to answer are there.
#[phasor_plugin::precontent]
fn early(request: &Request) -> Option<Answer> {
    request
        .header("x-early")
        .map(|_| Answer::text("early\n").header("x-answered", "precontent"))
}
