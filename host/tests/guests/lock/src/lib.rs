//! Locks from a component: the path says what is done.

use std::time::Duration;

use phasor_plugin::error_log::{self, Level};
use phasor_plugin::lock::{Guard, LockError, Locks, Options};
use phasor_plugin::redis::{self, Reply};
use phasor_plugin::shared_dict::{Dict, DictError, Value};
use phasor_plugin::{Answer, Request, task, timers};

/// What a handler that is to be seen holding waits.
const HELD: Duration = Duration::from_millis(300);

fn held(hold: Option<Duration>) -> Result<Guard, LockError> {
    let options = Options { hold, wait: None };
    let guard = Locks::open("orders")?.acquire_with("a", options)?;
    error_log::write(Level::Notice, "holds");
    Ok(guard)
}

/// Reads, waits, writes one more: what only an owner may do.
fn add() -> Result<u64, LockError> {
    let guard = Locks::open("orders")?.acquire("count")?;
    let step = || -> Result<(), DictError> {
        let dict = Dict::open("count")?;
        let before = match dict.get("n")? {
            Some(Value::Number(number)) => number,
            _ => 0.0,
        };
        timers::sleep(Duration::from_millis(1));
        dict.set("n", before + 1.0)
    };
    let owner = guard.fencing();
    if step().is_err() {
        return Err(LockError::Lost);
    }
    guard.release().map(|()| owner)
}

fn reply(command: &[&str]) -> Reply {
    redis::command("main", command)
        .wait()
        .unwrap_or_else(|error| Reply::Failed(format!("{error:?}")))
}

/// As `add`, with what several servers share; and each owner writes down its number.
fn add_in_redis() -> Result<u64, LockError> {
    let guard = Locks::open("orders")?.acquire("count")?;
    let before = reply(&["GET", "n"]).as_integer().unwrap_or(0);
    timers::sleep(Duration::from_millis(1));
    let owner = guard.fencing();
    reply(&["SET", "n", &(before + 1).to_string()]);
    reply(&["RPUSH", "owners", &owner.to_string()]);
    guard.release().map(|()| owner)
}

/// `hold`, `wait` and `keep` in milliseconds: the owner's number, and what its release says.
fn keep(query: &str) -> Result<String, LockError> {
    let time = |name: &str| {
        let value = query
            .split('&')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let number = value.and_then(|value| value.parse().ok());
        number.map(Duration::from_millis)
    };
    let options = Options {
        hold: time("hold"),
        wait: time("wait"),
    };
    let guard = Locks::open("orders")?.acquire_with("a", options)?;
    error_log::write(Level::Notice, "holds");
    timers::sleep(time("keep").unwrap_or_default());
    let renewed = time("renew").map(|hold| said(guard.renew(Some(hold))));
    let owner = guard.fencing();
    let released = said(guard.release());
    Ok(match renewed {
        Some(renewed) => format!("{owner} {renewed} {released}"),
        None => format!("{owner} {released}"),
    })
}

/// Two who add under the same key: the second one when the first has taken its own away.
async fn turns() -> String {
    let Ok(dict) = Dict::open("count") else {
        return "no dict".to_owned();
    };
    let add = |who: f64| dict.add_in_turn("turn", who, None, Duration::from_secs(20));
    let first = add(1.0).await;
    let (second, third) = (add(2.0), add(3.0));
    let late = dict.add_in_turn("turn", 4.0, None, Duration::ZERO).await;
    let mut seen = vec![format!("{first:?} {late:?}")];
    for waits in [second, third] {
        let deleted = dict.delete("turn").is_ok();
        let added = waits.await;
        let value = dict.get("turn").ok().flatten();
        seen.push(format!("{deleted} {added:?} {value:?}"));
    }
    seen.join(", ")
}

fn said<T>(result: Result<T, LockError>) -> String {
    result.map_or_else(|error| error.name().to_owned(), |_| "ok".to_owned())
}

fn act(path: &str, query: &str) -> Result<String, LockError> {
    Ok(match path {
        "/add" => add()?.to_string(),
        "/add-in-redis" => add_in_redis()?.to_string(),
        "/keep" => keep(query)?,
        "/turn" => task::block_on(turns()),
        "/count" => match Dict::open("count").and_then(|dict| dict.get("n")) {
            Ok(Some(Value::Number(number))) => number.to_string(),
            other => format!("{other:?}"),
        },
        "/trap" => {
            let _guard = held(None)?;
            timers::sleep(HELD);
            std::process::abort()
        }
        "/hold" => {
            let _guard = held(None)?;
            timers::sleep(Duration::from_secs(60));
            "held".to_owned()
        }
        "/late" => {
            let guard = held(Some(Duration::from_secs(1)))?;
            timers::sleep(Duration::from_millis(1500));
            format!("{} {}", said(guard.renew(None)), said(guard.release()))
        }
        "/try" => {
            let wait = query
                .strip_prefix("wait=")
                .and_then(|wait| wait.parse().ok());
            let options = Options {
                hold: None,
                wait: wait.map(Duration::from_millis),
            };
            Locks::open("orders")?
                .acquire_with("a", options)?
                .release()?;
            "got".to_owned()
        }
        "/other" => format!(
            "{} {} {}",
            said(Locks::open("other")),
            said(Locks::open("none")),
            said(Locks::open("orders")?.acquire(""))
        ),
        _ => "what?".to_owned(),
    })
}

#[phasor_plugin::content]
fn content(request: &Request) -> Answer {
    let uri = request.uri();
    let (path, query) = uri.split_once('?').unwrap_or((&uri, ""));
    Answer::text(act(path, query).unwrap_or_else(|error| error.name().to_owned()))
}
