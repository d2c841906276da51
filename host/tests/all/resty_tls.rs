//! TLS in the modules that OpenResty brings: against Redis, MariaDB, memcached, and nginx for HTTP and
//! WebSocket, with certificates of the tests' own.

use std::net::TcpListener;
use std::process::Command;
use std::thread;

use crate::cosocket_tls::back_with;
use crate::harness::{Folder, free_port};
use crate::process::have;
use crate::redis::Redis;
use crate::resty::{check_in, mariadb, start};
use crate::resty_websocket::{ACCEPT, KEY, serve};
use crate::tls::Authority;

/// An authority, and a folder of a server that believes it.
fn authority() -> (Authority, Folder) {
    let (authority, folder) = (Authority::new(), Folder::new());
    authority.file(&folder);
    (authority, folder)
}

#[test]
fn redis() {
    let (authority, folder) = authority();
    let certificate = authority.sign(&folder, "redis.test");
    let port = free_port();
    let Some(_redis) = Redis::start(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        certificate.chain.to_str().unwrap(),
        "--tls-key-file",
        certificate.key.to_str().unwrap(),
        "--tls-ca-cert-file",
        folder.path().join("ca.pem").to_str().unwrap(),
        "--tls-auth-clients",
        "no",
    ]) else {
        return;
    };
    check_in(
        folder,
        r#"
local show = require "show"
local redis = require "resty.redis"
local function open(options)
  local red = redis:new()
  red:set_timeout(5000)
  return red, red:connect("127.0.0.1", PORT, options)
end
local good = { ssl = true, ssl_verify = true, server_name = "redis.test" }
local red, ok, err = open(good)
show(ok, err, red:set("k", "v"), red:get("k"))
show(red:set_keepalive(10000, 5))
red, ok, err = open(good)
show(ok, err, red:get_reused_times(), red:get("k"))
show(red:set_keepalive(10000, 5))
-- Who asks otherwise does not get this one.
show(select(2, open { ssl = true, ssl_verify = true, server_name = "other.test" }))
show((open { ssl = true }):get_reused_times())
show(((open()):ping()))
"#,
        &[("PORT", port.to_string())],
        r"
true nil OK v nil
1
1 nil 1 v nil
1
nil failed to do ssl handshake: certificate host mismatch
0
nil
",
    );
}

#[test]
fn http() {
    let Some(back) = back_with("") else { return };
    let folder = Folder::new();
    back.authority.file(&folder);
    let client = back.authority.sign(&folder, "client.test");
    let pem = |path: &std::path::Path| std::fs::read_to_string(path).unwrap();
    check_in(
        folder,
        r#"
local show = require "show"
local http, ssl = require "resty.http", require "ngx.ssl"
local function get(port, options)
  local h = http.new()
  h:set_timeout(5000)
  local res, err = h:request_uri("https://127.0.0.1:" .. port .. "/", options)
  show(res and res.status, err, res and (res.body:gsub("\n", "")))
end
get(GOOD, { ssl_server_name = "back.test" })
get(GOOD, { ssl_server_name = "back.test" })
get(GOOD, { ssl_server_name = "other.test" })
get(GOOD, { ssl_server_name = "other.test", ssl_verify = false })
get(GOOD, {})
get(STRICT, { ssl_server_name = "back.test", ssl_client_cert = ssl.parse_pem_cert(CERT), ssl_client_priv_key = ssl.parse_pem_priv_key(PKEY) })
local h = http.new()
show((h:connect { scheme = "https", host = "127.0.0.1", port = GOOD, ssl_server_name = "back.test", pool = "own" }))
local res = h:request { path = "/", headers = { Host = "back.test" } }
show(res.status, (res:read_body():gsub("\n", "")))
show(h:set_keepalive())
"#,
        &[
            ("GOOD", back.good.to_string()),
            ("STRICT", back.strict.to_string()),
            ("CERT", format!("[[{}]]", pem(&client.chain))),
            ("PKEY", format!("[[{}]]", pem(&client.key))),
        ],
        r"
200 nil back.test TLSv1.3 . NONE 1
200 nil back.test TLSv1.3 . NONE 2
nil certificate host mismatch nil
200 nil other.test TLSv1.3 . NONE 1
nil certificate host mismatch nil
200 nil back.test TLSv1.3 . SUCCESS 1
true
200 back.test TLSv1.3 . NONE 1
1
",
    );
}

#[test]
fn websocket() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let behind = listener.local_addr().unwrap().port();
    let locations = format!(
        "location /ws {{ proxy_pass http://127.0.0.1:{behind}; proxy_http_version 1.1;\n\
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }}"
    );
    let Some(back) = back_with(&locations) else {
        return;
    };
    let server = thread::spawn(move || serve(&listener, ACCEPT));
    let folder = Folder::new();
    back.authority.file(&folder);
    check_in(
        folder,
        r#"
local show = require "show"
local client = require "resty.websocket.client"
local wb = client:new { timeout = 5000 }
local options = { key = "KEY", ssl_verify = true, server_name = "other.test" }
show(wb:connect("wss://127.0.0.1:GOOD/ws", options))
options.server_name = "back.test"
show((wb:connect("wss://127.0.0.1:GOOD/ws", options)))
show((wb:send_text("hello")))
show(wb:recv_frame())
wb:send_close(1000, "bye")
show(wb:recv_frame())
"#,
        &[("GOOD", back.good.to_string()), ("KEY", KEY.to_owned())],
        r"
nil ssl handshake failed: certificate host mismatch
1
11
hello text nil
bye close 1000
",
    );
    server.join().unwrap();
}

#[test]
fn mysql() {
    let (authority, folder) = authority();
    let certificate = authority.sign(&folder, "127.0.0.1");
    let more = [
        format!("--ssl-cert={}", certificate.chain.display()),
        format!("--ssl-key={}", certificate.key.display()),
        format!("--ssl-ca={}", folder.path().join("ca.pem").display()),
    ];
    let own = Folder::new();
    let Some((_mariadb, port)) = mariadb(&own, &more) else {
        return;
    };
    check_in(
        folder,
        r#"
local show = require "show"
local mysql = require "resty.mysql"
local root = { path = "SOCKET", user = "root" }
local db = mysql:new()
show((db:connect(root)))
db:query("create user joe@'127.0.0.1' identified by 's3cret' require ssl")
local joe = { host = "127.0.0.1", port = PORT, user = "joe", password = "s3cret" }
show((select(2, mysql:new():connect(joe)):match("^Access denied")))
joe.ssl, joe.ssl_verify = true, true
for _ = 1, 2 do
  db = mysql:new()
  db:set_timeout(10000)
  show(db:connect(joe))
  show(db:get_reused_times(), db:query("show status like 'Ssl_version'")[1].Value)
  show(db:set_keepalive(10000, 5))
end
joe.host = "localhost"
show(select(2, mysql:new():connect(joe)))
"#,
        &[
            ("PORT", port.to_string()),
            ("SOCKET", own.path().join("db.sock").display().to_string()),
        ],
        r"
1
Access denied
1
0 TLSv1.3
1
1
1 TLSv1.3
1
failed to do ssl handshake: certificate host mismatch nil nil
",
    );
}

#[test]
fn memcached() {
    if !have("memcached") {
        return;
    }
    let (authority, folder) = authority();
    let certificate = authority.sign(&folder, "cache.test");
    let port = free_port();
    let mut command = Command::new("memcached");
    command
        .args(["-l", "127.0.0.1", "-m", "8", "-t", "1", "-Z"])
        .args(["-p", &port.to_string()])
        .arg("-o")
        .arg(format!(
            "ssl_chain_cert={},ssl_key={}",
            certificate.chain.display(),
            certificate.key.display()
        ));
    if rustix::process::geteuid().is_root() {
        command.args(["-u", "root"]);
    }
    let _memcached = start(&mut command, port);
    check_in(
        folder,
        r#"
local show = require "show"
local m = require("resty.memcached"):new()
m:set_timeout(5000)
show(m:connect("127.0.0.1", PORT))
show(m:sslhandshake(false, "cache.test", true))
show((m:set("a", "value")), (m:get("a")))
show(m:set_keepalive(10000, 10))
"#,
        &[("PORT", port.to_string())],
        r"
1
true
1 value
1
",
    );
}
