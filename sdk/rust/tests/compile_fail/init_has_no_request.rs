//! `init` runs before there is a request.

#[phasor_plugin::init]
fn early(request: &phasor_plugin::Request) {
    let _path = request.path();
}

fn main() {}
