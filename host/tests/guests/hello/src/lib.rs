//! The shortest way through a plugin: one call of the guest, one call of the host. It
//! does without `std`, so that tests can show that it imports nothing but the contract.
#![cfg_attr(target_arch = "wasm32", no_std)]

use phasor_plugin::Answer;

phasor_plugin::bare!();

#[phasor_plugin::content]
fn hello() -> Answer {
    Answer::text("hello\n")
}
