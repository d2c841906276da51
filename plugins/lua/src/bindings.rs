//! The contract as Rust sees it: generated from `wit/`, world `runtime`.
#![expect(unsafe_code, missing_docs, reason = "generated code")]
#![expect(clippy::all, clippy::allow_attributes, clippy::allow_attributes_without_reason, reason = "generated code")]

wit_bindgen::generate!({ world: "runtime", path: "../../wit", pub_export_macro: true });
