//! The modules that OpenResty brings, each against a real server: Redis, memcached, MariaDB, dnsmasq,
//! and Phasor itself for HTTP.

use std::process::Command;

use rustix::process::Signal;

use crate::client::{Client, get};
use crate::harness::{Folder, Server, free_port};
use crate::process::{PATIENCE, Process, have, run};
use crate::redis::Redis;

/// Shows any value in one line.
const SHOW: &str = r#"
local function show(v)
  if v == ngx.null then return "null" end
  if type(v) ~= "table" then return tostring(v) end
  local t, keys = {}, {}
  for k in pairs(v) do keys[#keys + 1] = k end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for _, k in ipairs(keys) do t[#t + 1] = (type(k) == "number" and "" or k .. "=") .. show(v[k]) end
  return "{" .. table.concat(t, ",") .. "}"
end
return function(...)
  local t = {}
  for i = 1, select('#', ...) do t[i] = show((select(i, ...))) end
  ngx.say(table.concat(t, " "))
end
"#;

/// A server with one route that runs the script, in a folder that may hold `ca.pem`: the authorities
/// that its sockets believe.
fn server_in(folder: Folder, script: &str, replace: &[(&str, String)]) -> Server {
    let mut script = script.to_owned();
    for (from, to) in replace {
        script = script.replace(from, to);
    }
    let config = r#"
[server]
workers = 1
[plugin.lua]
limits = { cpu = "5s" }
CA
[[route]]
path = "/t"
lua.content = { file = "t.lua" }
[[route]]
path = "/echo"
lua.content = "ngx.req.read_body() ngx.header['X-Two'] = {'a', 'b'} ngx.say(ngx.req.get_method(), ' ', tostring(ngx.var.args), ' ', tostring(ngx.req.get_body_data()), ' ', tostring(ngx.var.http_x_mine))"
[[route]]
path = "/stream"
lua.content = "for i = 1, 3 do ngx.print(string.rep(i, 10)) ngx.flush(true) end"
"#;
    let ca = match folder.path().join("ca.pem").exists() {
        true => "cosocket = { ca = \"ca.pem\" }",
        false => "",
    };
    folder.write("lua/show.lua", SHOW);
    folder.write("t.lua", &script);
    Server::start_in(folder, &config.replace("CA\n", &format!("{ca}\n")))
}

/// Runs a script, whose lines must be these.
pub(crate) fn check(script: &str, replace: &[(&str, String)], wanted: &str) {
    check_in(Folder::new(), script, replace, wanted);
}

/// The same in a folder that may hold `ca.pem`.
pub(crate) fn check_in(folder: Folder, script: &str, replace: &[(&str, String)], wanted: &str) {
    let server = server_in(folder, script, replace);
    let answer = get(server.port(), "/t");
    let text = answer.text();
    assert_eq!(answer.status, 200, "{}", server.log_since(0));
    for (place, (line, wanted)) in text.lines().zip(wanted.trim().lines()).enumerate() {
        assert_eq!(line, wanted, "line {} of\n{text}", place + 1);
    }
    assert_eq!(
        text.lines().count(),
        wanted.trim().lines().count(),
        "{text}"
    );
    server.stop(Signal::QUIT);
}

const REDIS: &str = r#"
local show = require "show"
local redis = require "resty.redis"
local red = redis:new()
red:set_timeouts(5000, 5000, 5000)
show(red:get("x"))
show(red:connect("127.0.0.1", PORT))
show(red:set("dog", "an animal"))
show(red:get("dog"))
show(red:get("none"))
show(red:incr("n"))
show(red:incr("dog"))
show(red:mget("dog", "none"))
show((red:hmset("h", { a = 1 })), (red:hmset("h", "b", 2)), (red:hgetall("h")))
show(red:array_to_hash(red:hgetall("h")))
show(red:eval("return {1, {2, 'x'}, redis.error_reply('ERR inner')}", 0))
red:init_pipeline()
red:set("p", 1) red:get("p") red:incr("dog") red:get("none")
show(red:commit_pipeline())
show(red:commit_pipeline())
show(red:multi()) show(red:set("m", 1)) show(red:exec())
show(red:blpop("empty", 0.1))
local sub = redis:new() sub:set_timeout(5000)
sub:connect("127.0.0.1", PORT)
show(sub:subscribe("ch1", "ch2")) show(sub:read_reply())
show(sub:set_keepalive())
sub:set_timeout(50)
show(sub:read_reply())
sub:set_timeout(5000)
show(red:publish("ch1", "hello"))
show(sub:read_reply())
show(red:publish("ch2", "again"))
show(sub:unsubscribe("ch1"))
show(sub:read_reply())
show(sub:unsubscribe("ch2"))
show(sub:read_reply())
show(sub:ping())
show(red:set_keepalive(10000, 10))
local again = redis:new()
again:connect("127.0.0.1", PORT)
show(again:get_reused_times())
show((select(2, again:nosuch("x")):match("unknown command")))
redis.register_module_prefix("bf")
show((select(2, again:bf():add("a", "b")):match("'bf.add'")))
again:set_timeout(50)
show(again:debug("sleep", 0.3))
show(again:get("dog"))
"#;

#[test]
fn redis() {
    let Some(redis) = Redis::start(&["--enable-debug-command", "yes"]) else {
        return;
    };
    check(
        REDIS,
        &[("PORT", redis.port.to_string())],
        r"
nil closed
1 nil
OK nil
an animal nil
null nil
1 nil
false ERR value is not an integer or out of range
{an animal,null} nil
OK OK {a,1,b,2}
{a=1,b=2}
{1,{2,x},{false,ERR inner}} nil
{OK,1,{false,ERR value is not an integer or out of range},null}
nil no pipeline
OK nil
QUEUED nil
{OK} nil
null nil
{subscribe,ch1,1} nil
{subscribe,ch2,2} nil
nil subscribed state
nil timeout
1 nil
{message,ch1,hello} nil
1 nil
{unsubscribe,ch1,1} nil
{message,ch2,again}
{unsubscribe,ch2,0} nil
nil not subscribed
PONG nil
1
1
unknown command
'bf.add'
nil timeout
nil closed
",
    );
}

/// A server of a test's own that says nothing when it is ready.
pub(crate) fn start(command: &mut Command, port: u16) -> Process {
    let taken = std::mem::replace(command, Command::new("true"));
    let process = Process::start(taken);
    let begun = std::time::Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(
            begun.elapsed() < PATIENCE,
            "it does not listen:\n{}{}",
            process.stdout.since(0),
            process.stderr.since(0)
        );
        std::thread::yield_now();
    }
    process
}

const MEMCACHED: &str = r#"
local show = require "show"
local m = require("resty.memcached"):new()
m:set_timeout(5000)
show(m:connect("127.0.0.1", PORT))
show(m:flush_all())
show(m:set("a key", "value", 0, 32))
show(m:get("a key"))
show(m:get("none"))
show(m:add("a key", "x"))
show(m:add("b", "1"))
show(m:replace("zz", 1))
show((m:append("b", "2")), (m:prepend("b", "0")), (m:get("b")))
show(m:get({"a key", "b", "none"}))
local v, f, cas = m:gets("b")
show(v, f, type(cas))
show(m:cas("b", "new", cas))
show(m:cas("b", "newer", cas))
show((m:set("n", 10)), (m:incr("n", 5)), (m:decr("n", 3)), m:incr("none", 1))
show((m:touch("n", 100)), (m:delete("n")), m:delete("n"))
show(type(m:stats()), type((m:version())))
m:init_pipeline()
m:set("p", "1") m:get("p") m:get("none")
show(m:commit_pipeline())
show(m:set_keepalive(1000, 10))
"#;

/// A memcached that listens on a port; `None` where there is none.
pub(crate) fn memcached() -> Option<(Process, u16)> {
    if !have("memcached") {
        return None;
    }
    let port = free_port();
    let mut command = Command::new("memcached");
    command.args([
        "-l",
        "127.0.0.1",
        "-m",
        "8",
        "-t",
        "1",
        "-p",
        &port.to_string(),
    ]);
    if rustix::process::geteuid().is_root() {
        command.args(["-u", "root"]);
    }
    Some((start(&mut command, port), port))
}

#[test]
fn values_of_memcached() {
    let Some((_memcached, port)) = memcached() else {
        return;
    };
    check(
        MEMCACHED,
        &[("PORT", port.to_string())],
        r"
1
1
1
value 32
nil
nil NOT_STORED
1
nil NOT_STORED
1 1 012
{a key={value,32},b={012,0}}
012 0 string
1
nil EXISTS
1 15 12 nil NOT_FOUND
1 1 nil NOT_FOUND
table string
{{1},{1,0},{}}
1
",
    );
}

const MYSQL: &str = r#"
local show = require "show"
local mysql = require "resty.mysql"
local db = mysql:new()
db:set_timeout(10000)
show(db:connect{ path = "SOCKET", user = "root", database = "mysql" })
db:query("create database shop")
db:query("create user joe@'127.0.0.1' identified by 's3cret'")
db:query("grant all on shop.* to joe@'127.0.0.1'")
show(db:set_keepalive(10000, 5))
local joe = { host = "127.0.0.1", port = PORT, user = "joe", password = "wrong", database = "shop" }
show((select(2, mysql:new():connect(joe)):match("^Access denied")))
joe.password, joe.charset = "s3cret", "utf8mb4"
joe.max_packet_size = 32 * 1024 * 1024
db = mysql:new()
db:set_timeout(10000)
show(db:connect(joe))
show(db:server_ver():match("MariaDB"))
db:query("create table t (id int primary key auto_increment, name varchar(100), price decimal(10,2), big bigint, f double, d date, b blob, n int)")
local r = db:query("insert into t (name, price, big, f, d, b) values ('one', 1.50, 9007199254740993, 0.25, '2024-02-03', x'00ff'), ('two \\'q\\'', 2, 5, 1e10, null, null)")
show(r.affected_rows, r.insert_id, r.warning_count)
local rows = db:query("select * from t order by id")
rows[1].b = #rows[1].b
show(rows)
db:set_compact_arrays(true)
show(db:query("select id, name from t"))
db:set_compact_arrays(false)
show(db:query("select 1; select 2; update t set n = 7"))
show(db:set_keepalive())
show(db:read_result())
r = db:read_result() show(r.affected_rows)
show(db:read_result())
show(db:query("select * from nosuch"))
show(db:query("select n from t where id = 99"))
show(#db:query("select repeat('x', 17000000) as x")[1].x)
show(db:query("select 5 as x"))
show(db:set_keepalive(10000, 5))
db = mysql:new()
show(db:connect(joe))
show(db:get_reused_times(), (db:query("select 1 as x")))
show(db:close())
joe.password = "other"
show((select(2, mysql:new():connect(joe)):match("^Access denied")))
"#;

/// A MariaDB that listens on a port and on `db.sock` in the folder; `None` where there is none.
pub(crate) fn mariadb(folder: &Folder, more: &[String]) -> Option<(Process, u16)> {
    if !have("mariadbd") || !have("mariadb-install-db") {
        return None;
    }
    let data = folder.path().join("data");
    let user = if rustix::process::geteuid().is_root() {
        "--user=root"
    } else {
        "--user="
    };
    let (code, out, err) = run(Command::new("mariadb-install-db")
        .args(["--no-defaults", "--skip-test-db", user])
        .arg("--auth-root-authentication-method=normal")
        .arg(format!("--datadir={}", data.display())));
    assert_eq!(code, 0, "{out}{err}");
    let port = free_port();
    let socket = folder.path().join("db.sock");
    let process = start(
        Command::new("mariadbd")
            .args(["--no-defaults", user, "--bind-address=127.0.0.1"])
            .args(["--skip-log-bin", "--innodb-buffer-pool-size=8M"])
            .arg("--max-allowed-packet=64M")
            .arg(format!("--port={port}"))
            .arg(format!("--socket={}", socket.display()))
            .arg(format!("--datadir={}", data.display()))
            .args(more),
        port,
    );
    Some((process, port))
}

#[test]
fn mysql() {
    let folder = Folder::new();
    let Some((_mariadb, port)) = mariadb(&folder, &[]) else {
        return;
    };
    let socket = folder.path().join("db.sock");
    check(
        MYSQL,
        &[
            ("PORT", port.to_string()),
            ("SOCKET", socket.display().to_string()),
        ],
        r"
1
1
Access denied
1
MariaDB
2 1 0
{{b=2,big=9007199254740993,d=2024-02-03,f=0.25,id=1,n=null,name=one,price=1.5},{b=null,big=5,d=null,f=10000000000,id=2,n=null,name=two 'q',price=2}}
{{1,one},{2,two 'q'}}
{{1=1}} again
nil cannot be reused in the current connection state: 2
{{2=2}} again
2
nil cannot read result in the current context: 1
nil Table 'shop.nosuch' doesn't exist 1146 42S02
{}
17000000
{{x=5}}
1
1
1 {{x=1}}
1
Access denied
",
    );
}

#[test]
fn a_file_on_the_path_wins() {
    let server = Server::start(
        "[server]\nworkers = 1\n[[route]]\npath = \"/t\"\nlua.content = \"ngx.print(require('resty.redis'), ' ', type(require('resty.http').new))\"\n",
        &[("lua/resty/redis.lua", "return 'mine'")],
    );
    let mut client = Client::connect(server.port());
    assert_eq!(client.get("/t").unwrap().text(), "mine function");
    server.stop(Signal::QUIT);
}
