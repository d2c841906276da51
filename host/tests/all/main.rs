//! The tests that drive the built binary as a user does: configuration in, requests in, answers and
//! log lines out. One binary, so that it links once; it does not link the server's library.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so by panicking"
)]
#![expect(
    clippy::print_stderr,
    reason = "a skipped test says on stderr why it did not run"
)]
#![expect(
    clippy::disallowed_types,
    reason = "these tests measure another process, in real time"
)]

mod aggregate;
mod api_phases;
mod browser;
mod budget;
mod bundled;
mod cache;
mod cache_cluster;
mod cache_disk;
mod cache_disk_behind;
mod cache_example;
mod cache_redis;
mod cache_reload;
mod cache_trials;
mod case;
mod cases;
mod chat;
mod chat_browser;
mod chat_crowd;
mod client;
mod commands;
mod config_errors;
mod cosocket;
mod cosocket_pieces;
mod cosocket_tls;
mod docs;
mod faults;
mod go;
mod go_http;
mod go_sockets;
mod harness;
mod http;
mod http_cache;
mod http_cache_flow;
mod http_cache_servers;
mod http_client;
mod http_client_leaving;
mod http_client_line;
mod isolation;
mod leaving;
mod lock;
mod lock_redis;
mod lock_trials;
mod logs;
mod memory;
mod modules;
mod nginx;
mod nginx_redis;
mod openresty;
mod pool;
mod process;
mod proxy;
mod proxy_peers;
mod proxy_streams;
mod proxy_upgrade;
mod reactor;
mod redis;
mod redis_places;
mod redis_trials;
mod refusals;
mod reload;
mod req_socket;
mod resty;
mod resty_mysql_sha2;
mod resty_redis;
mod resty_tls;
mod resty_web;
mod resty_websocket;
mod services;
mod shared_dict;
mod spec;
mod start;
mod tidy;
mod tls;
mod tools;
mod waiting;
mod watch;
mod watchdog;
mod websocket;
mod wit_docs;
mod worker_thread;
