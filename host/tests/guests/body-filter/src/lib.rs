//! Changes an answer's body on its way: letters become capitals, chunks that hold `drop` vanish,
//! and a line with the number of bytes seen is added at the end.

use phasor_plugin::{Chunk, Context, Filtered, Response};

const SEEN: &str = "body-filter.seen";

#[phasor_plugin::header_filter]
fn head(response: &mut Response) -> Result<(), String> {
    response
        .remove_header("content-length")
        .map_err(|error| error.to_string())
}

#[phasor_plugin::body_filter]
fn capitals(chunk: Chunk, context: &mut Context) -> Filtered {
    let seen = context
        .get(SEEN)
        .and_then(|seen| String::from_utf8(seen).ok()?.parse().ok());
    let seen = seen.unwrap_or(0_usize) + chunk.bytes.len();
    context.set(SEEN, seen.to_string());
    let mut bytes = chunk.bytes;
    if bytes.windows(4).any(|window| window == b"drop") {
        bytes.clear();
    }
    bytes.make_ascii_uppercase();
    if chunk.last {
        bytes.extend_from_slice(format!("{seen} bytes\n").as_bytes());
    }
    Filtered::Replace(bytes)
}
