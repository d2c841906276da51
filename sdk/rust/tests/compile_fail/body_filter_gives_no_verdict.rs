//! A body filter says what becomes of a piece, not what the request does next.

#[phasor_plugin::body_filter]
fn filter(_chunk: phasor_plugin::Chunk) -> phasor_plugin::Verdict {
    phasor_plugin::Verdict::Next
}

fn main() {}
