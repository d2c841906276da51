//! The example `04-aggregate`: several calls at once in one request, in each language. What its cases
//! cannot see: that whoever lost, or was too slow, is really cancelled, at the back end.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::get;
use crate::harness::{Folder, Server, root};

/// The example, with a back end that is done when it is left, and not before.
fn server(file: &str) -> Server {
    let example = root().join("examples/04-aggregate");
    let folder = Folder::new();
    folder.copy_from(&example);
    let text = fs::read_to_string(example.join(file)).unwrap();
    let slow = "lua.content = \"ngx.sleep(10) ngx.print('reviews: many')\"";
    assert!(text.contains(slow));
    let never = "lua.content = \"ngx.log(ngx.WARN, 'slow begins') ngx.sleep(3000)\"\n\
                 lua.log = \"ngx.log(ngx.WARN, 'slow is over: ', ngx.var.status)\"";
    let text = text
        .replace("../../target/wasm32-wasip2/guest", "{guests}")
        .replace(slow, never);
    Server::start_in(folder, &text.replace("[server]", "[server]\nworkers = 1"))
}

/// All in time, then the first: in both the slow one begins, and is cancelled.
fn asks(server: &Server, prefix: &str, late: &str) {
    for (path, expected) in [
        ("all", format!("slow: {late}\nprice: 12\nstock: 3\n")),
        ("first", "price: 12".to_owned()),
    ] {
        let (mark, began) = (server.mark(), Instant::now());
        let answer = get(server.port(), &format!("{prefix}/{path}"));
        assert_eq!(answer.text(), expected, "{prefix}/{path}");
        server.wait_log("slow begins", mark);
        server.wait_log("slow is over: 499", mark);
        // Its own deadline is a minute.
        assert!(began.elapsed() < Duration::from_secs(30));
    }
}

#[test]
fn in_rust_and_lua() {
    let server = server("phasor.toml");
    asks(&server, "", "ClientError::Timeout");
    asks(&server, "/lua", "timeout");
    server.stop(Signal::QUIT);
}

#[test]
fn in_go() {
    let server = server("phasor-go.toml");
    asks(&server, "/go", "context deadline exceeded");
    server.stop(Signal::QUIT);
}
