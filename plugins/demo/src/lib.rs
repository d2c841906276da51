//! The Rust half of the built-in demo exists so that a newcomer sees both languages answer with no
//! tool chain installed: it is bundled, as `bundled:demo`.

use phasor_plugin::Answer;

#[phasor_plugin::content]
fn hello() -> Answer {
    Answer::text("hello from Rust\n")
}
