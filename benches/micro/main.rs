//! What single steps of a request cost, because a table of whole requests says that something became
//! slower and not what: a call into a component, a host call, a fresh instance, the router, a plan.

#![expect(clippy::expect_used, reason = "a benchmark that cannot start says so")]

mod cache;
mod hits;
mod plan;
mod plugin;
mod router;
mod site;

use criterion::{criterion_group, criterion_main};

/// The server's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

criterion_group!(
    micro,
    plugin::calls,
    plugin::instances,
    router::look_up,
    plan::build,
    plan::walk,
    cache::look_up,
    hits::in_guests
);
criterion_main!(micro);
