//! The shortest way through a plugin: one call of the guest, one call of the host.

use phasor_plugin::Answer;

#[phasor_plugin::content]
fn hello() -> Answer {
    Answer::text("hello\n")
}
