//! What no phase can be given.

#[phasor_plugin::content(path = "/")]
fn hello() {}

#[phasor_plugin::access]
fn generic<T>() {}

fn main() {}
