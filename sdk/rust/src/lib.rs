//! Phasor plugins in Rust: a plugin is a crate with one annotated function per phase that it serves.
//!
//! ```
//! use phasor_plugin::{Answer, Request, Verdict};
//!
//! #[phasor_plugin::access]
//! fn check(request: &Request) -> Verdict {
//!     match request.header("x-key") {
//!         Some(_) => Verdict::Next,
//!         None => Verdict::Exit(401),
//!     }
//! }
//!
//! #[phasor_plugin::content]
//! fn hello() -> Answer {
//!     Answer::text("hello\n")
//! }
//! ```
//!
//! Build it as a `cdylib` for `wasm32-wasip2`. The component exports exactly the phases that are
//! annotated, and imports exactly the host functions that are called.
//!
//! A handler names what it wants as its arguments, in any order, and gets only what makes sense in
//! its phase: see [`phase`]. What it may return stands there, too. A host function that takes time
//! (a sleep, a body to read) suspends the handler and nothing else: the worker serves on.
//!
//! A plugin that needs no `std` can leave it out, see [`bare!`]: its component then imports nothing
//! but host functions, and is half as long.
#![no_std]

extern crate alloc;

// The macros name this crate by its name, also in its own tests.
extern crate self as phasor_plugin;

mod answer;
#[doc(hidden)]
pub mod bare;
mod bindings;
pub mod cache;
#[cfg(feature = "config")]
pub mod config;
pub mod context;
pub mod cosocket;
pub mod downstream;
pub mod error_log;
pub mod exchange;
#[doc(hidden)]
pub mod export;
pub mod http_client;
pub mod lock;
pub mod operation;
pub mod phase;
pub mod redis;
pub mod request;
pub mod response;
pub mod shared_dict;
pub mod subrequest;
pub mod task;
pub mod time;
pub mod timers;
pub mod variable;
pub mod worker;

pub use answer::Answer;
pub use bindings::phasor::plugin::types::Verdict;
pub use context::Context;
pub use exchange::Exchange;
pub use phase::{CertifiedKey, Choice, Chunk, Filtered, Manifest, Timer};
pub use phasor_plugin_macros::{
    access, balancer, body_filter, certificate, client_hello, content, exit_worker, header_filter,
    init, init_worker, log, manifest, precontent, rewrite, server_rewrite, set, timer,
};
pub use request::{Request, RequestBody};
pub use response::{Response, Writer};
pub use variable::Variables;
