//! The request's body is for the phases before the answer.

#[phasor_plugin::header_filter]
fn filter(body: &mut phasor_plugin::RequestBody) {
    let _ = body;
}

fn main() {}
