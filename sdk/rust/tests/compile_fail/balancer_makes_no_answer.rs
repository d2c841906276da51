//! A balancer chooses a peer; it does not answer.

#[phasor_plugin::balancer]
fn choose() -> phasor_plugin::Answer {
    phasor_plugin::Answer::text("hello")
}

fn main() {}
