//! Debian's `lua-nginx-redis` (lua-resty-redis under another name), unmodified, against a real Redis:
//! the same script on Phasor and on nginx with ngx_lua, with the same lines.

use std::path::Path;

use rustix::process::Signal;

use crate::client::get;
use crate::harness::{Folder, Server, free_port};
use crate::nginx::{Nginx, frame};
use crate::process::have;
use crate::redis::Redis;

const LIBRARY: &str = "/usr/share/lua/5.1/nginx/redis.lua";

const SCRIPT: &str = r#"
local redis = require "nginx.redis"
local function show(v)
  if v == ngx.null then return "null" end
  if type(v) ~= "table" then return tostring(v) end
  local t, keys = {}, {}
  for k in pairs(v) do keys[#keys + 1] = k end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for _, k in ipairs(keys) do t[#t + 1] = (type(k) == "number" and "" or k .. "=") .. show(v[k]) end
  return "{" .. table.concat(t, ",") .. "}"
end
local function say(...)
  local t = {}
  for i = 1, select('#', ...) do t[i] = show((select(i, ...))) end
  ngx.say(table.concat(t, " "))
end
ngx.say(redis._VERSION)
local red = redis:new()
red:set_timeout(5000)
say(red:get("x"))
say(red:connect("127.0.0.1", PORT))
say(red:flushall())
say(red:set("dog", "an animal"), red:get("dog"), red:get("none"))
say(red:incr("n"), red:incr("dog"))
say(red:mset("a", 1, "b", "x\r\ny"), red:mget("a", "b", "c"))
say(red:hmset("h", { one = "1" }), red:hmset("h", "two", "2"), red:array_to_hash(red:hgetall("h")))
say(red:lpush("l", 1, 2, 3), red:lrange("l", 0, -1), red:sadd("s", "m"), red:sismember("s", "m"))
say(red:eval("return {1, {2, 'x'}, redis.error_reply('ERR inner')}", 0))
say(red:set("big", string.rep("x", 300000)), #red:get("big"))
-- Pipelines.
red:init_pipeline()
red:set("p", 1) red:incr("dog") red:get("none") red:lrange("l", 0, 0)
say(red:commit_pipeline())
red:init_pipeline(2)
red:set("p", 2)
red:cancel_pipeline()
say(red:get("p"))
-- Transactions.
say(red:multi(), red:set("t", "in"), red:incr("dog"), red:exec())
say(red:multi(), red:set("t", "out"), red:discard(), red:get("t"))
-- Publish and subscribe.
local other = redis:new()
other:set_timeout(5000)
other:connect("127.0.0.1", PORT)
say(red:subscribe("news"))
say(red:get("dog"))
say(red:set_keepalive())
red:set_timeout(50)
say(red:read_reply())
red:set_timeout(5000)
say(other:publish("news", "hello"))
say(red:read_reply())
say(red:psubscribe("n*"))
say(other:publish("news", "again"))
say(red:read_reply(), red:read_reply())
say(red:unsubscribe("news"))
say(red:punsubscribe("n*"))
say(red:get("dog"))
-- The pool.
say(red:get_reused_times(), red:set_keepalive(10000, 10))
red = redis:new()
say(red:connect("127.0.0.1", PORT))
say(red:get_reused_times(), red:get("dog"), red:close(), red:close())
say(red:get("dog"))
-- Passwords.
say(other:config("set", "requirepass", "secret"))
red = redis:new()
red:connect("127.0.0.1", PORT)
say(red:get("dog"))
say(red:auth("wrong"))
say(red:auth("secret"), red:get("dog"))
say(red:config("set", "requirepass", ""))
-- A unix socket, also from its pool.
red = redis:new()
say(red:connect("unix:SOCKET"))
say(red:get("dog"), red:set_keepalive(10000, 10))
say(red:connect("unix:SOCKET", { pool = "other" }), red:get_reused_times())
say(red:connect("unix:SOCKET"), red:get_reused_times(), red:get("dog"))
say(red:connect("unix:/nonexistent/redis"))
say(red:connect("127.0.0.1", 1))
-- Commands of one's own, and a reader that waits too long.
redis.add_commands("client", "debug")
other:set_timeout(50)
say(other:blpop("nothing", 1))
say(other:get("dog"))
other = redis:new()
other:connect("127.0.0.1", PORT)
say(other:client("setname", "x"), other:client("getname"))
"#;

#[test]
fn unmodified_and_as_on_nginx() {
    if !have("nginx") || !Path::new(LIBRARY).exists() {
        assert!(
            std::env::var_os("PHASOR_REQUIRE_TOOLS").is_none(),
            "{LIBRARY} is missing: `make tools` installs it"
        );
        return;
    }
    let folder = Folder::new();
    let socket = folder.path().join("redis.sock");
    let socket = socket.to_str().unwrap().to_owned();
    let Some(redis) = Redis::start(&["--unixsocket", &socket]) else {
        return;
    };
    let script = SCRIPT
        .replace("PORT", &redis.port.to_string())
        .replace("SOCKET", &socket);
    let server = Server::start(
        r#"
[server]
workers = 1
[plugin.lua]
config = { path = "/usr/share/lua/5.1/?.lua" }
limits = { cpu = "5s" }
[[route]]
path = "/t"
lua.content = { file = "t.lua" }
"#,
        &[("t.lua", &script)],
    );
    let ours = get(server.port(), "/t").text();
    let port = free_port();
    let folder = Folder::new();
    let file = folder.write("t.lua", &script);
    let text = frame(
        "lua_package_path '/usr/share/lua/5.1/?.lua;;'; lua_socket_log_errors off;",
        &format!("location /t {{ content_by_lua_file {}; }}", file.display()),
        port,
    );
    let _nginx = Nginx::start_with(folder, &text, port);
    let theirs = get(port, "/t").text();
    for (place, (ours, theirs)) in ours.lines().zip(theirs.lines()).enumerate() {
        assert_eq!(ours, theirs, "line {}", place + 1);
    }
    assert_eq!(ours, theirs);
    // Both came to the end, and what they said is what Redis says.
    assert!(ours.ends_with("OK x\n"), "{ours}\n{}", server.log_since(0));
    for part in [
        "{message,news,hello}",
        "{OK,{false,ERR value is not an integer or out of range},null,{3}}",
        "false WRONGPASS",
        "nil subscribed state",
    ] {
        assert!(ours.contains(part), "{part}: {ours}");
    }
    server.stop(Signal::QUIT);
}
