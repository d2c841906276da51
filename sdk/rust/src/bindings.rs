//! The host's functions as Rust sees them: the only place where the contract's imports are
//! generated. Nothing here is public but through the modules that wrap it.
#![expect(
    missing_docs,
    reason = "generated code; the documentation stands in wit/"
)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "phasor:plugin/imports",
    ownership: Borrowing { duplicate_if_necessary: true },
    generate_unused_types: true,
});
