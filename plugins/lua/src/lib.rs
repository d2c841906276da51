//! The bundled Lua plugin: one Lua VM for all requests of a worker, driven through `reactor`.
//!
//! Built for Wasm only; on other targets the crate is empty, so that the workspace checks natively.
//!
//! In the order of data: `pump` takes records (`wire`), `flow` runs a `job`'s steps as `task`s,
//! `wait`, `budget` and `coroutine` let many of them share the VM, `api_*` and `lib_*` are what
//! Lua code sees.
#![cfg(target_arch = "wasm32")]

mod abort;
mod alloc;
mod api;
mod api_body;
mod api_body_read;
mod api_cache;
mod api_cache_change;
mod api_cache_flight;
mod api_constants;
mod api_fields;
mod api_header;
mod api_http;
mod api_location;
mod api_location_options;
mod api_lock;
mod api_output;
mod api_redis;
mod api_request;
mod api_shared;
mod api_shared_list;
mod api_shared_swap;
mod api_socket;
mod api_socket_io;
mod api_socket_options;
mod api_socket_request;
mod api_socket_tls;
mod api_socket_udp;
mod api_socket_value;
mod api_variable;
mod api_worker;
mod bindings;
mod budget;
mod cache_copies;
mod cache_options;
mod coroutine;
mod ffi;
mod filter;
mod flight;
mod flow;
mod guard;
mod held;
mod job;
mod lib_bit;
mod lib_buffer;
mod lib_buffer_codec;
mod lib_bundle;
mod lib_cjson;
mod lib_cjson_decode;
mod lib_cjson_encode;
mod lib_date;
mod lib_digest;
mod lib_encode;
mod lib_lrucache;
mod lib_number;
mod lib_open;
mod lib_re;
mod lib_re_pcre;
mod lib_re_split;
mod lib_re_sub;
mod lib_resp;
mod lib_scratch;
mod lib_strftime;
mod lib_table;
mod lib_time;
mod libs;
mod module;
mod phase;
mod program;
mod pump;
mod seconds;
mod semaphore;
mod shared_entry;
mod task;
mod thread;
mod timer;
mod traceback;
mod vm;
mod wait;
mod wire;
mod worker_thread;
