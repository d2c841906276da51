//! `require` of a module whose loading waits: it is loaded once, whoever else asks for it waits, and
//! a load that does not end is nobody's loss.

use rustix::process::Signal;

use crate::client::{Client, get};
use crate::harness::Server;

const CONFIG: &str = r#"
[server]
workers = 1

[shared.t]
size = "1m"

[[route]]
path = "/slow"
lua.content = "ngx.log(ngx.WARN, 'asks') ngx.say(require('slow').loads)"

[[route]]
path = "/go"
lua.content = "ngx.shared.t:set('go', true) ngx.say('ok')"

[[route]]
path = "/loop"
lua.content = "require 'a'"

[[route]]
path = "/thread"
lua.content = "require 'spawns'"

[[route]]
path = "/siblings"
lua.content = """
local t = {}
for i = 1, 2 do t[i] = ngx.thread.spawn(function() return require('sleeps').loads end) end
for i = 1, 2 do ngx.say(ngx.thread.wait(t[i])) end"""

[[route]]
path = "/busy"
lua.content = "require 'busy'"
"#;

const FILES: &[(&str, &str)] = &[
    (
        "lua/slow.lua",
        "ngx.log(ngx.WARN, 'loads')
         while not ngx.shared.t:get('go') do ngx.sleep(0.005) end
         return { loads = ngx.shared.t:incr('loads', 1, 0) }",
    ),
    ("lua/a.lua", "ngx.sleep(0) return require 'b'"),
    ("lua/b.lua", "ngx.sleep(0) return require 'a'"),
    (
        "lua/spawns.lua",
        "local t = ngx.thread.spawn(function() return require 'spawns' end)
         assert(ngx.thread.wait(t))",
    ),
    (
        "lua/sleeps.lua",
        "ngx.sleep(0.01) return { loads = ngx.shared.t:incr('sleeps', 1, 0) }",
    ),
    (
        "lua/busy.lua",
        "if ngx.shared.t:add('busy', 1) then while true do end end return 1",
    ),
];

#[test]
fn a_module_that_waits_is_loaded_once() {
    let server = Server::start(CONFIG, FILES);
    let mark = server.mark();
    let mut clients: Vec<Client> = Vec::new();
    for asked in 1..=3 {
        let mut client = Client::connect(server.port());
        client.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
        clients.push(client);
        let lines = format!(r"(?s)(asks.*){{{asked}}}");
        server.wait_log(&lines, mark);
        server.wait_log("loads", mark);
    }
    assert_eq!(get(server.port(), "/go").text(), "ok\n");
    for client in &mut clients {
        let response = client.response(false).unwrap();
        assert_eq!((response.status, response.text().as_str()), (200, "1\n"));
    }
    assert_eq!(get(server.port(), "/slow").text(), "1\n");
    assert_eq!(
        get(server.port(), "/siblings").text(),
        "true1\ntrue1\n",
        "two light threads"
    );
    server.stop(Signal::QUIT);
}

#[test]
fn a_loop_is_an_error() {
    let server = Server::start(CONFIG, FILES);
    for (path, module) in [("/loop", "a"), ("/thread", "spawns")] {
        for _ in 0..2 {
            let mark = server.mark();
            assert_eq!(get(server.port(), path).status, 500, "{path}");
            let message = format!("loop or previous error loading module '{module}'");
            server.wait_log(&message, mark);
        }
    }
    server.stop(Signal::QUIT);
}

#[test]
fn a_load_that_does_not_end_is_done_again() {
    let server = Server::start(CONFIG, FILES);
    let mark = server.mark();
    let mut leaves = Client::connect(server.port());
    leaves.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    server.wait_log("loads", mark);
    let mut waits = Client::connect(server.port());
    waits.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    server.wait_log("(?s)asks.*asks", mark);
    drop(leaves);
    server.wait_log("(?s)loads.*loads", mark);
    assert_eq!(get(server.port(), "/go").text(), "ok\n");
    assert_eq!(waits.response(false).unwrap().text(), "1\n");
    // The CPU budget ends a load in the middle.
    assert_eq!(get(server.port(), "/busy").status, 500);
    assert_eq!(get(server.port(), "/busy").status, 200);
    server.stop(Signal::QUIT);
}
