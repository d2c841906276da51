//! stub
#[allow(missing_docs)]
mod b { wasmtime::component::bindgen!({ path: "../wit", world: "host", imports: { default: trappable } }); }
#[allow(missing_docs)]
mod c { wasmtime::component::bindgen!({ path: "../wit", world: "phases" }); }
