//! A client that leaves: its handler ends, unless it asked to be told (`ngx.on_abort`) or the plugin
//! lets handlers come to their end.

use rustix::process::Signal;

use crate::client::{Client, get};
use crate::harness::Server;

fn server(config: &str) -> Server {
    Server::start(
        &format!(
            r#"
[server]
workers = 1
[plugin.lua]
config = {{ {config} }}
[[route]]
path = "/told"
lua.content = """
ngx.say(ngx.on_abort(function() ngx.log(ngx.WARN, 'told of it') ngx.exit(499) end))
ngx.say(ngx.on_abort(function() end))
ngx.flush(true)
ngx.log(ngx.WARN, 'told waits')
ngx.sleep(50)
ngx.log(ngx.WARN, 'told went on')
"""
lua.log = "ngx.log(ngx.WARN, 'told is over')"
[[route]]
path = "/goes-on"
lua.content = """
ngx.on_abort(function() ngx.log(ngx.WARN, 'callback ran') end)
ngx.log(ngx.WARN, 'goes-on waits')
for i = 1, 20 do ngx.say(string.rep('x', 50000)) ngx.flush(true) ngx.sleep(0.05) end
ngx.log(ngx.WARN, 'goes-on went on')
"""
lua.log = "ngx.log(ngx.WARN, 'goes-on is over')"
[[route]]
path = "/stays"
lua.content = "ngx.say(ngx.on_abort(function() ngx.log(ngx.WARN, 'never') end))"
"#
        ),
        &[],
    )
}

fn leave(server: &Server, path: &str, wait: &str) -> usize {
    let mark = server.mark();
    let mut client = Client::connect(server.port());
    client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    server.wait_log(wait, mark);
    drop(client);
    mark
}

#[test]
fn the_callback_runs() {
    let server = server("");
    let mark = leave(&server, "/told", "told waits");
    server.wait_log("told of it", mark);
    server.wait_log("told is over", mark);
    assert!(!server.log_since(mark).contains("told went on"));
    // A handler goes on behind its callback, whatever it writes.
    let mark = leave(&server, "/goes-on", "goes-on waits");
    server.wait_log("callback ran", mark);
    server.wait_log("goes-on went on", mark);
    server.wait_log("goes-on is over", mark);
    let mark = server.mark();
    assert_eq!(get(server.port(), "/stays").text(), "1\n");
    assert!(!server.log_since(mark).contains("never"));
    server.stop(Signal::QUIT);
}

#[test]
fn handlers_may_come_to_their_end() {
    let server = server("lua_check_client_abort = false");
    let text = get(server.port(), "/stays").text();
    assert_eq!(text, "nillua_check_client_abort is off\n");
    let mark = leave(&server, "/goes-on", "goes-on waits");
    server.wait_log("goes-on went on", mark);
    server.wait_log("goes-on is over", mark);
    assert!(!server.log_since(mark).contains("callback ran"));
    server.stop(Signal::QUIT);
}
