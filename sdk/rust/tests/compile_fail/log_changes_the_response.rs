//! The answer has left when `log` runs.

#[phasor_plugin::log]
fn late(response: &mut phasor_plugin::Response) {
    let _ = response.set_status(500);
}

fn main() {}
