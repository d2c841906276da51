//! A component in Rust with Redis and HTTP: `async fn` handlers, several calls at once, the first of
//! several, a deadline, and what it may not do.

use rustix::process::Signal;

use crate::client::{Client, get};
use crate::harness::{Folder, Server, free_port};
use crate::nginx::{Nginx, frame};
use crate::process::have;
use crate::redis::Redis;

const ORIGIN: &str = r#"
location /hello { return 200 "hello"; }
location /echo { content_by_lua_block {
    ngx.req.read_body()
    ngx.print(ngx.req.get_method(), " ", ngx.req.get_headers()["x-mine"], " ", ngx.req.get_body_data())
} }
location /big { content_by_lua_block {
    local s = string.rep("x", 65536) for i = 1, 16 do ngx.print(s) ngx.flush(true) end
} }
location /upload { client_max_body_size 2m; client_body_buffer_size 2m; content_by_lua_block {
    ngx.req.read_body()
    ngx.print(ngx.var.http_transfer_encoding, " ", #ngx.req.get_body_data())
} }
location /slow { content_by_lua_block { ngx.sleep(10) ngx.say("late") } }
"#;

fn server(redis: u16, origin: u16, allow: &str) -> Server {
    let config = format!(
        r#"
[server]
workers = 1
[redis.main]
url = "redis://127.0.0.1:{redis}"
[plugin.services]
component = "{{guests}}/services.wasm"
allow = {{ {allow} }}
[[route]]
path = "/*"
content = "services"
"#
    );
    let config = config.replace("{origin}", &origin.to_string());
    Server::start(&config, &[])
}

/// Asks a guest that has an origin of its own to talk to.
pub(crate) fn ask(server: &Server, path: &str, origin: u16) -> String {
    let mut client = Client::connect(server.port());
    client.send(format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nX-Origin: http://127.0.0.1:{origin}\r\n\r\n"
    ));
    client.response(false).unwrap().text()
}

#[test]
fn redis_from_a_component() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let server = server(
        redis.port,
        0,
        r#"redis = ["main: SET one", "main: GET", "main: LPUSH one", "main: EVAL k", "main: INCR n"]"#,
    );
    let answer = ask(&server, "/redis", 0);
    for part in [
        r#"Ok(Status("OK"))"#,
        "WRONGTYPE",
        "List([Bytes([107]), List([Integer(1), Integer(2)])])",
        "Ok([Integer(1), Nil])",
    ] {
        assert!(answer.contains(part), "{part}: {answer}");
    }
    assert_eq!(ask(&server, "/both", 0), "Ok(Some([49])) Ok(None)");
    assert_eq!(ask(&server, "/nested", 0), "Ok(Some([49]))");
    let mark = server.mark();
    assert!(ask(&server, "/denied", 0).contains("Refused"));
    server.wait_log("allow.redis does not cover `main: FLUSHALL`", mark);
    server.stop(Signal::QUIT);
}

#[test]
fn http_from_a_component() {
    if !have("nginx") {
        return;
    }
    let origin = free_port();
    let _nginx = Nginx::start_with(Folder::new(), &frame("", ORIGIN, origin), origin);
    let server = server(1, origin, r#"http = ["http://127.0.0.1:{origin}"]"#);
    let ask = |path: &str| ask(&server, path, origin);
    assert_eq!(ask("/fetch"), "200 hello");
    assert_eq!(ask("/post"), "POST 1 a body");
    assert_eq!(ask("/big"), "Some(ClientError::TooLarge(1000))");
    assert_eq!(ask("/stream"), "200 1048576");
    assert_eq!(ask("/upload"), "chunked 1048581");
    assert_eq!(ask("/late"), "Some(Elapsed)");
    assert_eq!(ask("/timeout"), "Some(ClientError::Timeout)");
    assert_eq!(ask("/first"), "1 200");
    let mark = server.mark();
    let other = free_port();
    let refused = self::ask(&server, "/fetch", other);
    assert!(refused.contains("Refused"), "{refused}");
    server.wait_log("allow.http does not cover `http://127.0.0.1:", mark);
    assert_eq!(get(server.port(), "/none").text(), "what?");
    server.stop(Signal::QUIT);
}

#[test]
fn a_request_inside_the_server() {
    let server = Server::start(
        r#"
[server]
workers = 1
[plugin.services]
component = "{guests}/services.wasm"
allow = { subrequest = ["/lea*", "@leaf"] }
[plugin.barred]
component = "{guests}/services.wasm"
allow = { subrequest = ["/inner"] }
[[route]]
path = "/barred/inner"
content = "barred"
[[route]]
path = "/inner"
content = "services"
[[route]]
path = "/leaf"
internal = true
respond = { status = 202, body = "leaf $args $http_x_which" }
[[route]]
name = "leaf"
lua.content = "ngx.req.read_body() ngx.print(ngx.req.get_method(), ' ', ngx.req.get_body_data())"
"#,
        &[],
    );
    assert_eq!(get(server.port(), "/leaf").status, 404);
    assert_eq!(
        get(server.port(), "/inner").text(),
        "202 leaf n=1 one false; 200 POST two false; \
         Some(SubrequestError::Invalid(\"`not a path` is neither @NAME nor a path\")) 0"
    );
    let mark = server.mark();
    assert_eq!(
        get(server.port(), "/barred/inner").text(),
        "Err(SubrequestError::Refused(\"allow.subrequest does not cover `/inner/../leaf`\"))"
    );
    server.wait_log("allow.subrequest does not cover `/inner/../leaf`", mark);
    server.stop(Signal::QUIT);
}

const BOUNDS: &str = r#"
[server]
workers = 1
subrequest_depth = 3
subrequests = 4
subrequest_body_limit = "1k"
[[route]]
path = "/down"
lua.content = """
local fine, r = pcall(ngx.location.capture, '/down')
ngx.print(fine and r.body or r)
"""
[[route]]
path = "/wide"
lua.content = """
local list = {}
for i = 1, 5 do list[i] = { '/leaf' } end
ngx.say(select(2, pcall(ngx.location.capture_multi, list)))
list[5] = nil
ngx.say(select('#', ngx.location.capture_multi(list)))
"""
[[route]]
path = "/long"
lua.content = "local r = ngx.location.capture('/big') ngx.say(#r.body, ' ', r.truncated, ' ', r.status)"
[[route]]
path = "/big"
lua.content = "ngx.print(string.rep('x', 100)) ngx.flush() ngx.print(string.rep('x', 100000))"
[[route]]
path = "/leaf"
lua.content = "ngx.sleep(0.05) ngx.print('leaf')"
[[route]]
path = "/waits"
lua.content = "ngx.location.capture('/forever')"
[[route]]
path = "/forever"
lua.content = "ngx.log(ngx.WARN, 'inside') ngx.shared.t:incr('n', 1, 0) ngx.sleep(60)"
lua.log = "ngx.log(ngx.WARN, 'log of the inner one')"
[[route]]
path = "/count"
lua.content = "ngx.print(ngx.shared.t:get('n'))"
[shared.t]
size = "1m"
"#;

#[test]
fn bounds_of_subrequests() {
    let server = Server::start(BOUNDS, &[]);
    let ask = |path: &str| get(server.port(), path).text();
    assert!(ask("/down").ends_with("subrequests cycle: subrequest_depth is 3"));
    assert!(ask("/wide").ends_with("too many subrequests: subrequests is 4\n4\n"));
    let mark = server.mark();
    assert_eq!(ask("/long"), "1024 true 200\n");
    server.wait_log("longer than subrequest_body_limit, 1024 bytes", mark);
    // A client that leaves takes its subrequest along.
    let mark = server.mark();
    let mut client = Client::connect(server.port());
    client.send("GET /waits HTTP/1.1\r\nHost: x\r\n\r\n");
    server.wait_log("inside", mark);
    drop(client);
    assert_eq!(ask("/count"), "1");
    server.stop(Signal::QUIT);
}
