//! Plans: made when a configuration is loaded, walked by every request.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::hint::black_box;
use std::rc::Rc;

use criterion::{BatchSize, Criterion};
use phasor::api::WorkerInfo;
use phasor::engine::{self, Routes};
use phasor::exchange;
use phasor::generation::Served;

use crate::site::{Bench, connection, exchange as begin};

/// A generation of 1,000 routes without plugins: plans and router.
pub(crate) fn build(criterion: &mut Criterion) {
    let mut bench = Bench::new();
    let mut text = String::from("[server]\naccess_log = { path = \"off\" }\n");
    for n in 0..1000 {
        let written = write!(
            text,
            "[[route]]\npath = \"/{n}\"\nset = {{ number = \"{n} $arg_x\" }}\nrespond = {{ status = 204 }}\n"
        );
        written.expect("a string takes everything");
    }
    let config = bench.config(&text);
    let mut group = criterion.benchmark_group("plan");
    group.bench_function("build, 1,000 routes", |b| {
        b.iter_batched(
            || config.clone(),
            |config| black_box(bench.build(config)),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

/// A request through the engine whose plan does nothing but answer 204: the loop's own cost.
pub(crate) fn walk(criterion: &mut Criterion) {
    let mut bench = Bench::new();
    let config = bench.config(
        "[server]\naccess_log = { path = \"off\" }\n[[route]]\npath = \"/\"\nrespond = { status = 204 }\n",
    );
    let generation = bench.build(config);
    let served: Rc<dyn Routes> = Served::start(generation, WorkerInfo::default());
    let client = connection();
    let mut group = criterion.benchmark_group("plan");
    group.bench_function("walk, nothing but an answer", |b| {
        b.iter_custom(|count| {
            bench.time(count, async || {
                let id = begin(&client);
                let answered = Rc::new(RefCell::new(served.fallback().clone()));
                let start = engine::start(id, &*served);
                engine::run(id, served.clone(), answered, start).await;
                exchange::end(id);
            })
        });
    });
    group.finish();
}
