//! `net/http` in Go on the SDK's transport, with a real nginx at the other end: bodies both ways as
//! streams, many at once, contexts that end, and every error as a value.

use regex::Regex;
use rustix::process::Signal;

use crate::harness::{Folder, Server, free_port};
use crate::nginx::{Nginx, frame};
use crate::process::{PATIENCE, have};
use crate::services::ask;

const ORIGIN: &str = r#"
location /hello { content_by_lua_block {
    ngx.header["X-Two"] = { "a", "b" }
    ngx.header["Content-Length"] = 6
    ngx.print("hello", ngx.var.http_x_mine)
} }
location /moved { return 302 /hello; }
location /upload { client_max_body_size 1m; client_body_buffer_size 1m; content_by_lua_block {
    ngx.req.read_body()
    local body = ngx.req.get_body_data()
    ngx.print(tostring(ngx.var.http_content_length), " ", tostring(ngx.var.http_transfer_encoding), " ", #body, " ", ngx.md5(body))
} }
location /small/ { client_max_body_size 1k; content_by_lua_block { ngx.req.read_body() ngx.print("all") } }
location /pieces { content_by_lua_block {
    ngx.shared.d:delete("go on")
    ngx.say("first") ngx.flush(true)
    repeat ngx.sleep(0.01) until ngx.shared.d:get("go on")
    ngx.say("second")
} }
location /go-on { content_by_lua_block { ngx.shared.d:set("go on", true) ngx.say("yes") } }
location /all-ten { content_by_lua_block {
    ngx.shared.d:incr("ten", 1, 0)
    repeat ngx.sleep(0.01) until ngx.shared.d:get("ten") >= 10
    ngx.print("x")
} }
location /never { lua_check_client_abort on; content_by_lua_block {
    ngx.on_abort(function() ngx.log(ngx.WARN, "the client has left never") ngx.exit(499) end)
    ngx.sleep(60)
} }
location /forever { lua_check_client_abort on; content_by_lua_block {
    ngx.on_abort(function() ngx.log(ngx.WARN, "the client has left forever") ngx.exit(499) end)
    while true do ngx.say("and on") ngx.flush(true) ngx.sleep(0.01) end
} }
location /silent { return 444; }
location /cut { content_by_lua_block {
    ngx.header["Content-Length"] = 100
    ngx.print("too short") ngx.flush(true)
    ngx.exit(ngx.ERROR)
} }
"#;

#[test]
fn the_transport() {
    if !have("nginx") {
        return;
    }
    let (port, nobody) = (free_port(), free_port());
    let text = frame("lua_shared_dict d 1m;", ORIGIN, port);
    let nginx = Nginx::start_with(Folder::new(), &text, port);
    let server = Server::start(
        &format!(
            r#"
[server]
workers = 1
[plugin.go]
component = "{{guests}}/go-http.wasm"
limits = {{ cpu = "10s" }}
allow = {{ http = ["http://127.0.0.1:{port}", "http://127.0.0.1:{nobody}"] }}
[[route]]
path = "/*"
content = "go"
"#
        ),
        &[],
    );
    for (path, expected) in [
        ("/hello", "200 OK [a b] 6 hello1\n"),
        ("/redirect", "200 OK [a b] 6 hello1\n"),
        // A short body in one piece, a long one as it is read, one that nobody knows the length of.
        (
            "/post",
            "200 OK [] -1 5 nil 5 4f09daa9d95bcb166a302407a0e0babe\n",
        ),
        ("/long", "200 OK [] -1 400000 nil 400000 the same\n"),
        ("/endless", "200 OK [] -1 nil chunked 400000 the same\n"),
        ("/pieces", "\"first\\n\" then \"second\\n\"\n"),
        ("/ten", "10\n"),
        ("/deadline", "error: deadline, timeout: true\n"),
        ("/cancel", "error: canceled\n"),
        ("/example", "error: refused\n"),
        ("/silent", "error: protocol\n"),
        ("/cut", "error: protocol\n"),
    ] {
        assert_eq!(ask(&server, path, port), expected, "{path}");
    }
    assert_eq!(ask(&server, "/hello", nobody), "error: connect\n");
    // A server that has heard enough, of a body of a gigabyte; and a body that breaks off.
    let unwanted = ask(&server, "/unwanted", port);
    assert!(
        unwanted.starts_with("413 Request Entity Too Large"),
        "{unwanted}"
    );
    let broken = ask(&server, "/fails", port);
    assert!(
        broken.ends_with(": the source of the body is broken\n"),
        "{broken}"
    );
    // What a context ended has ended at the other end, too.
    let log = nginx.target().log;
    for path in ["never", "forever"] {
        let left = Regex::new(&format!("the client has left {path}")).unwrap();
        assert!(log.wait_for(&left, 0, PATIENCE).is_some(), "{path}");
    }
    server.stop(Signal::QUIT);
}
