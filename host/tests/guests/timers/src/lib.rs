//! Timers, and several things at once: `/start?` sets a timer that counts in a shared dict,
//! `/every`, `/cancel` and `/fired` go with it; `/both` sleeps twice at once.

use std::time::Duration;

use phasor_plugin::shared_dict::Dict;
use phasor_plugin::{Answer, Request, Timer, error_log, operation, time, timers};

const DELAY: Duration = Duration::from_millis(50);

#[phasor_plugin::content]
fn handle(request: &Request) -> Result<Answer, String> {
    let path = request.path();
    let answer = match path.rsplit('/').next().unwrap_or_default() {
        "start" => format!(
            "{:?}",
            timers::after(DELAY, 7).map_err(|error| error.to_string())?
        ),
        "every" => format!(
            "{:?}",
            timers::every(DELAY, 8).map_err(|error| error.to_string())?
        ),
        "cancel" => {
            let timer = timers::after(DELAY, 9).map_err(|error| error.to_string())?;
            format!("{} {}", timers::cancel(timer), timers::cancel(timer))
        }
        "fired" => fired()?,
        "both" => both(),
        _ => return Ok(Answer::new(404)),
    };
    Ok(Answer::text(answer + "\n"))
}

/// Two sleeps at once take as long as the longer one.
fn both() -> String {
    let begin = time::monotonic();
    let short = timers::begin_sleep(DELAY);
    let long = timers::begin_sleep(DELAY * 2);
    let first = operation::select(&[&long, &short]);
    operation::join(&[&long, &short]);
    timers::end_sleep(short);
    timers::end_sleep(long);
    let took = time::monotonic().saturating_sub(begin);
    format!("first {first:?}, under three delays: {}", took < DELAY * 3)
}

fn fired() -> Result<String, String> {
    let dict = Dict::open("counters").map_err(|error| error.to_string())?;
    let fired = dict.get("fired").map_err(|error| error.to_string())?;
    let fired = fired
        .and_then(|fired| fired.as_number())
        .unwrap_or_default();
    Ok(fired.to_string())
}

#[phasor_plugin::timer]
fn fire(timer: Timer) -> Result<(), String> {
    let text = format!(
        "timer {} fires, premature: {}",
        timer.token, timer.premature
    );
    error_log::write(error_log::Level::Notice, &text);
    let dict = Dict::open("counters").map_err(|error| error.to_string())?;
    dict.incr("fired", 1.0, Some(0.0))
        .map(drop)
        .map_err(|error| error.to_string())
}
