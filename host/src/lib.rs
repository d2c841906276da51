//! Phasor: an HTTP server and gateway whose every request phase is programmed by sandboxed
//! WebAssembly components.
//!
//! The life of a request, as a list of these modules: a [`listener`] accepts, a [`connection`] speaks
//! HTTP and makes an [`exchange`], the [`engine`] drives it through the plan that the [`router`] found
//! in the [`generation`], a step calls a [`plugin`], which calls back through the [`api`] into
//! resources ([`shared_dict`], …), and a [`response`] goes out.

pub mod access_log;
pub mod api;
pub mod cache;
pub mod cli;
pub mod config;
pub mod connection;
pub mod cosocket;
pub mod engine;
pub mod error;
pub mod exchange;
pub mod generation;
pub mod http_cache;
pub mod http_client;
pub mod listener;
pub mod local_executor;
pub mod lock;
pub mod observe;
pub mod phase;
pub mod plugin;
pub mod reactor;
pub mod redis;
pub mod response;
pub mod router;
pub mod server;
pub mod shared_dict;
pub mod time_cache;
pub mod tls_client;
pub mod upstream;
pub mod worker;
