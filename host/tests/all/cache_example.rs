//! The example `06-cache`: which level answers on the way of a product from the database to an
//! instance, after a restart, with the database away, and with Redis away.

use std::fs;

use rustix::process::Signal;

use crate::client::Client;
use crate::harness::{Folder, Server, root};
use crate::redis::{Redis, wait_until};

/// The example on one worker, so that it is known which instance answers.
fn server(redis: u16) -> Server {
    let (folder, config) = example(redis);
    Server::start_in(folder, &config)
}

fn example(redis: u16) -> (Folder, String) {
    let example = root().join("examples/06-cache");
    let folder = Folder::new();
    folder.copy_from(&example);
    let config = fs::read_to_string(example.join("phasor.toml"))
        .unwrap()
        .replace("../../", &format!("{}/", root().display()))
        .replace("workers = 2", "workers = 1")
        .replace("ttl = \"10s\"", "ttl = \"5s\"")
        .replace("timeout = \"100ms\"", "timeout = \"10s\"")
        .replace("127.0.0.1:6379", &format!("127.0.0.1:{redis}"));
    (folder, config)
}

fn counters(server: &Server) -> serde_json::Value {
    let text = ask(server, "GET", "/counters");
    serde_json::from_str(&text).unwrap()
}

fn ask(server: &Server, method: &str, path: &str) -> String {
    let mut client = Client::connect(server.port());
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    client.response(false).unwrap().text()
}

/// The level that answered, and the price.
fn level(server: &Server, path: &str) -> (String, f64) {
    let text = ask(server, "GET", path);
    let answer: serde_json::Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let level = match answer["stale"].as_bool() {
        Some(true) => "stale",
        _ => answer["level"].as_str().unwrap(),
    };
    let price = answer["product"]["price"].as_f64().unwrap();
    (level.to_owned(), price)
}

#[test]
fn after_a_restart_a_product_comes_from_the_disk() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let data = Folder::new();
    let port = redis.port;
    let start = || {
        let (folder, config) = example(port);
        let path = data.path().join("products");
        let config = config
            .replace("var/products", &path.display().to_string())
            .replace("ttl = \"5s\"", "ttl = \"10m\"");
        Server::start_in(folder, &config)
    };
    let first = start();
    let of = |server: &Server, name: &str| counters(server)["products"][name].as_u64().unwrap();
    let (_, price) = level(&first, "/product/1");
    wait_until(|| of(&first, "disk_writes") == 1);
    first.stop(Signal::TERM);
    // Redis has forgotten it, and is away: only the disk has it.
    drop(redis);
    let second = start();
    ask(&second, "POST", "/power?on=0");
    assert_eq!(level(&second, "/product/1"), ("disk".to_owned(), price));
    assert_eq!(level(&second, "/product/1"), ("instance".to_owned(), price));
    assert_eq!(of(&second, "disk_hits"), 1);
}

#[test]
fn a_product_comes_from_every_level() {
    let Some(mut redis) = Redis::start(&[]) else {
        return;
    };
    let is = |server: &Server, path: &str, wanted: &str, price: f64| {
        assert_eq!(level(server, path), (wanted.to_owned(), price), "{path}");
    };
    let first = server(redis.port);
    ask(&first, "POST", "/change?id=1&price=50");
    let asked = |server: &Server| counters(server)["database"]["asked"].as_u64().unwrap();
    is(&first, "/product/1", "callback", 50.0);
    is(&first, "/product/1", "instance", 50.0);
    // Rust has an instance of its own.
    is(&first, "/rust/product/1", "memory", 50.0);
    is(&first, "/rust/product/1", "instance", 50.0);
    assert_eq!(asked(&first), 1);
    // A second server, whose own database is off, finds the first one's values.
    let second = server(redis.port);
    ask(&second, "POST", "/power?on=0");
    is(&second, "/product/1", "redis", 50.0);
    // Until it hears of changes it compares what it has with Redis.
    wait_until(|| level(&second, "/product/1") == ("instance".to_owned(), 50.0));
    assert_eq!(asked(&second), 0);
    ask(&first, "POST", "/change?id=1&price=60");
    is(&first, "/rust/product/1", "callback", 60.0);
    wait_until(|| ask(&second, "GET", "/product/1").contains(r#""price":60"#));

    // The database is away: what is past its time serves, and says so.
    ask(&first, "POST", "/power?on=0");
    wait_until(|| level(&first, "/product/1").0 == "stale");
    is(&first, "/rust/product/1", "stale", 60.0);
    ask(&first, "POST", "/power?on=1");
    wait_until(|| level(&first, "/product/1").0 == "callback");

    // Redis is away: all goes on.
    redis.kill();
    ask(&first, "POST", "/change?id=1&price=70");
    is(&first, "/product/1", "callback", 70.0);
    is(&first, "/product/1", "instance", 70.0);
    is(&first, "/rust/product/1", "memory", 70.0);
    assert!(ask(&first, "GET", "/page/1").contains("It costs 70."));
    first.stop(Signal::TERM);
    second.stop(Signal::TERM);
}
