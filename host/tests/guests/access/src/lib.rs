//! Lets in who brings a key, and has no content: tests also use it where a content is demanded.

use phasor_plugin::{Request, Verdict};

#[phasor_plugin::access]
fn check(request: &Request) -> Verdict {
    match request.header("x-key").as_deref() {
        Some(b"open") => Verdict::Next,
        Some(_) => Verdict::Exit(403),
        None => Verdict::Exit(401),
    }
}
