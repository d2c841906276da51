//! Leaves its mark in every phase of a request: the context collects the phases' names, and the
//! header filter shows them in `x-phases`. With `?exit=PHASE` that phase answers 418, with
//! `?fail=PHASE` it fails.

use phasor_plugin::{
    Answer, Chunk, Context, Filtered, Request, Response, Variables, Verdict, error_log, notice,
};

const TRAIL: &str = "phases";

/// Appends a phase to the trail, and does what the query asks of it.
fn mark(phase: &str, request: &Request, context: &mut Context) -> Result<Verdict, String> {
    append(phase, context);
    let uri = request.uri();
    let query = uri.split_once('?').map_or("", |(_, query)| query);
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("exit", name)) if name == phase => return Ok(Verdict::Exit(418)),
            Some(("done", name)) if name == phase => return Ok(Verdict::Done),
            Some(("fail", name)) if name == phase => {
                return Err(format!("{phase} fails on purpose"));
            }
            _ => {}
        }
    }
    Ok(Verdict::Next)
}

fn append(phase: &str, context: &mut Context) {
    let mut trail = context.get(TRAIL).unwrap_or_default();
    if !trail.is_empty() {
        trail.push(b' ');
    }
    trail.extend_from_slice(phase.as_bytes());
    context.set(TRAIL, trail);
}

#[phasor_plugin::server_rewrite]
fn server_rewrite(request: &Request, context: &mut Context) -> Result<Verdict, String> {
    mark("server_rewrite", request, context)
}

#[phasor_plugin::set]
fn set(name: String, context: &mut Context) -> String {
    append("set", context);
    name + " from the plugin"
}

#[phasor_plugin::rewrite]
fn rewrite(request: &mut Request, context: &mut Context) -> Result<Verdict, String> {
    let verdict = mark("rewrite", request, context)?;
    if let Some(uri) = request.header("x-reroute") {
        // Once: the header goes, so that the next round finds none.
        request
            .remove_header("x-reroute")
            .map_err(|error| error.to_string())?;
        let uri = String::from_utf8_lossy(&uri);
        request.reroute(&uri).map_err(|error| error.to_string())?;
    }
    Ok(verdict)
}

#[phasor_plugin::access]
fn access(request: &Request, context: &mut Context) -> Result<Verdict, String> {
    mark("access", request, context)
}

#[phasor_plugin::precontent]
fn precontent(request: &Request, context: &mut Context) -> Result<Verdict, String> {
    mark("precontent", request, context)
}

#[phasor_plugin::content]
fn content(
    request: &Request,
    context: &mut Context,
    variables: &Variables,
) -> Result<Answer, String> {
    if let Verdict::Exit(status) = mark("content", request, context)? {
        return Ok(Answer::new(status));
    }
    let region = variables.get("region").unwrap_or_default();
    Ok(Answer::text(format!(
        "region: {}\n",
        String::from_utf8_lossy(&region)
    )))
}

#[phasor_plugin::header_filter]
fn header_filter(
    request: &Request,
    response: &mut Response,
    context: &mut Context,
) -> Result<Verdict, String> {
    let verdict = mark("header_filter", request, context)?;
    let trail = context.get(TRAIL).unwrap_or_default();
    response
        .set_header("x-phases", trail)
        .map_err(|error| error.to_string())?;
    // The body filter adds a line: the length that the content handler knew is wrong now.
    response
        .remove_header("content-length")
        .map_err(|error| error.to_string())?;
    Ok(verdict)
}

#[phasor_plugin::body_filter]
fn body_filter(chunk: Chunk, context: &mut Context) -> Filtered {
    if !chunk.last {
        return Filtered::Pass;
    }
    append("body_filter", context);
    let mut bytes = chunk.bytes;
    bytes.extend_from_slice(b"filtered\n");
    Filtered::Replace(bytes)
}

#[phasor_plugin::log]
fn log(context: &mut Context, response: &Response) {
    append("log", context);
    let trail = context.get(TRAIL).unwrap_or_default();
    if error_log::enabled(error_log::Level::Notice) {
        notice!(
            "phases: {} status: {}",
            String::from_utf8_lossy(&trail),
            response.status()
        );
    }
}
