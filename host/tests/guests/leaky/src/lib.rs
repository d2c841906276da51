//! Keeps a counter in its own memory: with `isolation = "pooled"` it grows from request to request,
//! with `"request"` every request sees 1.

use std::sync::atomic::{AtomicU32, Ordering};

use phasor_plugin::Answer;

static REQUESTS: AtomicU32 = AtomicU32::new(0);

#[phasor_plugin::content]
fn count() -> Answer {
    let requests = REQUESTS.fetch_add(1, Ordering::Relaxed) + 1;
    Answer::text(format!("{requests}\n"))
}
