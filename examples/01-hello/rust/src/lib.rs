//! The shortest plugin: it serves the phase `content`, with an answer that never changes.

use phasor_plugin::Answer;

#[phasor_plugin::content]
fn hello() -> Answer {
    Answer::text("hello from Rust\n")
}
