//! Shows the way of a request through the phases: each handler notes its name and the time, and the
//! content handler answers with what has been noted. Two phases come after the content has been
//! made; they show in a header (`header_filter`) and in the error log (`log`).

use std::fmt::Write as _;

use phasor_plugin::{Answer, Context, Request, Response, Variables, notice, time};

/// Where the notes are kept: lines of a phase's name and its time.
const NOTES: &str = "notes";

/// Adds a line to the notes, and gives all of them.
fn note(phase: &str, context: &mut Context) -> String {
    let notes = context.get(NOTES).unwrap_or_default();
    let mut notes = String::from_utf8_lossy(&notes).into_owned();
    let now = time::monotonic().as_micros();
    // The first line's time is the beginning, from which the others are counted.
    let first = notes
        .lines()
        .next()
        .and_then(|line| line.split('@').nth(1)?.trim().parse().ok());
    let passed = now.saturating_sub(first.unwrap_or(now));
    if writeln!(notes, "{phase:<14} +{passed:>5} us  @ {now}").is_err() {
        return notes;
    }
    context.set(NOTES, &notes);
    notes
}

#[phasor_plugin::rewrite]
fn rewrite(request: &mut Request, context: &mut Context) -> Result<(), String> {
    note("rewrite", context);
    // What a rewrite is for: the handlers after this one see the header.
    request
        .set_header("x-seen-by", "rewrite")
        .map_err(|error| error.to_string())
}

#[phasor_plugin::access]
fn access(variables: &Variables, context: &mut Context) -> Option<Answer> {
    note("access", context);
    let refused = variables.get("arg_deny").is_some();
    refused.then(|| {
        Answer::new(403)
            .content_type("text/plain")
            .body("not for you\n")
    })
}

#[phasor_plugin::precontent]
fn precontent(context: &mut Context) {
    note("precontent", context);
}

#[phasor_plugin::content]
fn content(context: &mut Context) -> Answer {
    let notes = note("content", context);
    let lines = notes.lines().filter_map(|line| line.split("  @").next());
    let page: String = lines.flat_map(|line| [line, "\n"]).collect();
    Answer::text(page)
}

#[phasor_plugin::header_filter]
fn header_filter(response: &mut Response, context: &mut Context) -> Result<(), String> {
    let notes = note("header_filter", context);
    let names: Vec<&str> = notes
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    response
        .set_header("x-phases", names.join(" "))
        .map_err(|error| error.to_string())
}

#[phasor_plugin::log]
fn log(context: &mut Context) {
    let notes = note("log", context);
    let names: Vec<&str> = notes
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    notice!("phases: {}", names.join(" "));
}
