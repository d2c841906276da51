//! The contract as Rust sees it: generated from `wit/`, world `runtime`.

wit_bindgen::generate!({ world: "runtime", path: "../../wit" });
