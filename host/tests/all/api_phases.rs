//! Every function of `ngx.*` that waits × every phase: where it may be called it works, elsewhere it
//! says so. One configuration: each phase runs the same table of snippets and writes down what came
//! of each.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::TcpListener;
use std::thread;

use rustix::process::Signal;

use crate::client::get;
use crate::cosocket_tls::{Back, back_with};
use crate::harness::{Folder, Server};
use crate::process::Process;
use crate::redis::Redis;
use crate::resty::{mariadb, memcached};
use crate::resty_web::dnsmasq;

/// Where a function may be called.
#[derive(Clone, Copy, PartialEq)]
enum Where {
    /// Everywhere: in `init` there is nothing to wait for.
    Everywhere,
    /// Everywhere but in `init`.
    Waiting,
    /// Where an answer can be made.
    Answering,
}

/// Name, Lua whose first result must be true, where.
const TABLE: &[(&str, &str, Where)] = &[
    ("ngx.sleep", "ngx.sleep(0.001) return true", Where::Waiting),
    (
        "tcpsock:connect",
        "local s = ngx.socket.tcp() local ok, e = s:connect('127.0.0.1', REDIS) s:close() return ok, e",
        Where::Waiting,
    ),
    (
        "ngx.socket.connect",
        "local s, e = ngx.socket.connect('127.0.0.1', REDIS) return s and s:close(), e",
        Where::Waiting,
    ),
    (
        "tcpsock:receive",
        "local s = ngx.socket.tcp() s:connect('127.0.0.1', REDIS) s:send('PING\\r\\n') local line, e = s:receive() s:close() return line == '+PONG', e",
        Where::Waiting,
    ),
    (
        "tcpsock:send",
        "local s = ngx.socket.tcp() s:connect('127.0.0.1', REDIS) local n, e = s:send('PING\\r\\n') s:close() return n == 6, e",
        Where::Waiting,
    ),
    (
        "tcpsock:receiveany",
        "local s = ngx.socket.tcp() s:connect('127.0.0.1', REDIS) s:send('PING\\r\\n') local some, e = s:receiveany(1) s:close() return some == '+', e",
        Where::Waiting,
    ),
    (
        "tcpsock:receiveuntil",
        "local s = ngx.socket.tcp() s:connect('127.0.0.1', REDIS) s:send('PING\\r\\n') local some, e = s:receiveuntil('NG')() s:close() return some == '+PO', e",
        Where::Waiting,
    ),
    (
        "udpsock:receive",
        "local u = ngx.socket.udp() u:settimeout(1) u:setpeername('127.0.0.1', REDIS) local d, e = u:receive() u:close() return e == 'timeout', e",
        Where::Waiting,
    ),
    (
        "tcpsock:setkeepalive",
        "local s = ngx.socket.tcp() s:connect('127.0.0.1', REDIS) return s:setkeepalive(1000, 4)",
        Where::Waiting,
    ),
    (
        "phasor.redis",
        "local answer, e = require('phasor.redis').new('main'):ping() return answer == 'PONG', e",
        Where::Waiting,
    ),
    (
        "phasor.redis, pipeline",
        "local r, e = require('phasor.redis').new('main'):pipeline { { 'ping' }, { 'echo', 'a' } } return r and r[1] == 'PONG' and r[2] == 'a', e",
        Where::Waiting,
    ),
    (
        "phasor.redis, transaction",
        "local r, e = require('phasor.redis').new('main'):transaction { { 'ping' }, { 'echo', 'a' } } return r and r[2] == 'a', e",
        Where::Waiting,
    ),
    (
        "phasor.redis, subscribe",
        "local main = require('phasor.redis').new('main') local s, e = main:subscribe('news') main:publish('news', 'x') return s and s:next().payload == 'x', e",
        Where::Waiting,
    ),
    (
        "resty.memcached",
        "local m = require('resty.memcached'):new() local ok, e = m:connect('127.0.0.1', REDIS) m:close() return ok, e",
        Where::Waiting,
    ),
    (
        "resty.redis",
        "local r = require('resty.redis'):new() r:connect('127.0.0.1', REDIS) local p, e = r:ping() r:set_keepalive(1000, 4) return p == 'PONG', e",
        Where::Waiting,
    ),
    (
        "phasor.redis, eval",
        "local r, e = require('phasor.redis').new('main'):eval('return ARGV[1]', {}, { 'a' }) return r == 'a', e",
        Where::Waiting,
    ),
    (
        "tcpsock:sslhandshake",
        "local s = ngx.socket.tcp() s:connect('127.0.0.1', TLS) local ok, e = s:sslhandshake(false, 'back.test', true) s:close() return ok, e",
        Where::Waiting,
    ),
    (
        "resty.mysql",
        "local db = require('resty.mysql'):new() local ok, e = db:connect { host = '127.0.0.1', port = MYSQL, user = 'root' } local r = ok and db:query('select 1 as x') db:set_keepalive(1000, 4) return r and tostring(r[1].x) == '1', e",
        Where::Waiting,
    ),
    (
        "resty.dns.resolver",
        "local d, e = require('resty.dns.resolver'):new { nameservers = { { '127.0.0.1', DNS } }, timeout = 5000 } local a, e = d:query('a.test') return a and a[1] and a[1].address == '10.1.2.3', e",
        Where::Waiting,
    ),
    (
        "resty.memcached, a value",
        "local m = require('resty.memcached'):new() m:connect('127.0.0.1', MEMCACHED) m:set('k', 'v') local v, _, e = m:get('k') m:set_keepalive(1000, 4) return v == 'v', e",
        Where::Waiting,
    ),
    (
        "resty.websocket.client",
        "local c = require('resty.websocket.client'):new { timeout = 5000 } local ok, e = c:connect('ws://127.0.0.1:WS/ws') if not ok then return ok, e end c:send_text('x') local d, _, e = c:recv_frame() c:close() return d == 'x', e",
        Where::Waiting,
    ),
    (
        "phasor.cache, with a callback that waits",
        "local v, e = require('phasor.cache').open('products'):get(ngx.get_phase(), nil, function() ngx.sleep(0.001) return 7 end) return v == 7, e",
        Where::Waiting,
    ),
    (
        "phasor.lock",
        "local g, e = require('phasor.lock').open('turns'):acquire('a', { hold = 5, wait = 1 }) return g and g:fencing() > 0 and g:renew() and g:release(), e",
        Where::Waiting,
    ),
    (
        "phasor.lock, in Redis",
        "local g, e = require('phasor.lock').open('shared'):acquire('a') return g and g:fencing() > 0 and g:renew() and g:release(), e",
        Where::Waiting,
    ),
    (
        "resty.lock",
        "local l = require('resty.lock'):new('locks') local waited, e = l:lock('a') return waited and l:unlock(), e",
        Where::Everywhere,
    ),
    (
        "phasor.http",
        "local a, e = require('phasor.http').fetch('http://127.0.0.1:PORT/leaf') return a and a.body == 'leaf', e",
        Where::Waiting,
    ),
    (
        "phasor.http, streamed",
        "local a, e = require('phasor.http').open('http://127.0.0.1:PORT/leaf', { method = 'POST', body = function() end }) return a and a:read() == 'leaf', e",
        Where::Waiting,
    ),
    (
        "resty.http",
        "local a, e = require('resty.http').new():request_uri('http://127.0.0.1:PORT/leaf') return a and a.body == 'leaf', e",
        Where::Waiting,
    ),
    (
        "ngx.thread.spawn",
        "return ngx.thread.spawn(function() ngx.sleep(0.001) end) ~= nil",
        Where::Waiting,
    ),
    (
        "ngx.thread.wait",
        "local ok, v = ngx.thread.wait(ngx.thread.spawn(function() ngx.sleep(0.001) return 7 end)) return ok and v == 7",
        Where::Waiting,
    ),
    (
        "ngx.thread.kill",
        "return ngx.thread.kill(ngx.thread.spawn(function() ngx.sleep(3600) end))",
        Where::Waiting,
    ),
    (
        "in a coroutine",
        "return coroutine.wrap(function() ngx.sleep(0.001) coroutine.yield(7) end)() == 7",
        Where::Waiting,
    ),
    (
        "in table.sort",
        "local t = { 3, 1, 2 } table.sort(t, function(a, b) ngx.sleep(0) return a < b end) return t[1] == 1",
        Where::Waiting,
    ),
    (
        "in gsub and a metamethod",
        "local t = setmetatable({}, { __index = function(_, k) ngx.sleep(0.001) return k .. '!' end }) return ('a'):gsub('a', t) == 'a!'",
        Where::Waiting,
    ),
    (
        "semaphore:wait",
        "local s = require('ngx.semaphore').new() local ok, e = s:wait(0.001) return e == 'timeout'",
        Where::Waiting,
    ),
    (
        "ngx.timer.at",
        "return ngx.timer.at(0, function() end)",
        Where::Waiting,
    ),
    (
        "ngx.timer.every",
        "return ngx.timer.every(3600, function() end)",
        Where::Waiting,
    ),
    (
        "ngx.run_worker_thread",
        "return ngx.run_worker_thread('default', 'tiny', 'f')",
        Where::Waiting,
    ),
    (
        "ngx.location.capture",
        "return ngx.location.capture('/leaf').body == 'leaf'",
        Where::Answering,
    ),
    (
        "ngx.location.capture_multi",
        "local a, b = ngx.location.capture_multi { { '/leaf' }, { '/leaf' } } return b.body == 'leaf'",
        Where::Answering,
    ),
    (
        "ngx.req.read_body",
        "ngx.req.read_body() return true",
        Where::Answering,
    ),
    (
        "ngx.req.socket",
        "local socket, e = ngx.req.socket() return e == 'no body' or e == 'request body already exists', e",
        Where::Answering,
    ),
    (
        "ngx.on_abort",
        "local ok, e = ngx.on_abort(function() end) return ok or e == 'duplicate call', e",
        Where::Answering,
    ),
];

/// The phases, as the configuration names them, and what messages call them.
const PHASES: &[(&str, &str)] = &[
    ("init", "init_by_lua*"),
    ("init_worker", "init_worker_by_lua*"),
    ("exit_worker", "exit_worker_by_lua*"),
    ("server_rewrite", "server_rewrite_by_lua*"),
    ("set", "set_by_lua*"),
    ("rewrite", "rewrite_by_lua*"),
    ("access", "access_by_lua*"),
    ("precontent", "precontent_by_lua*"),
    ("content", "content_by_lua*"),
    ("header_filter", "header_filter_by_lua*"),
    ("body_filter", "body_filter_by_lua*"),
    ("log", "log_by_lua*"),
    ("timer", "ngx.timer"),
];

/// Phases in which an answer can be made.
const ANSWERING: &[&str] = &[
    "server_rewrite",
    "rewrite",
    "access",
    "precontent",
    "content",
];

/// Answers any request with `leaf`, as long as the test runs.
fn leaves() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                head.push(byte[0]);
            }
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nleaf";
            let _left = stream.write_all(answer).is_err();
        }
    });
    port
}

/// The servers that the snippets talk to, and the words that stand for their ports.
struct Peers {
    ports: Vec<(&'static str, u16)>,
    /// Holds the authority of the one that speaks TLS.
    folder: Folder,
    _running: (Redis, Back, Server, Vec<Process>),
}

/// Starts all of them; `None` where one is not installed.
fn peers() -> Option<Peers> {
    let redis = Redis::start(&[])?;
    let (dnsmasq, dns) = dnsmasq(|command| {
        command.arg("--address=/a.test/10.1.2.3");
    })?;
    let (memcached, memcached_port) = memcached()?;
    let back = back_with("")?;
    let folder = Folder::new();
    back.authority.file(&folder);
    let (mariadb, mysql) = mariadb(&folder, &[])?;
    let sockets = Server::start(SOCKETS, &[]);
    let ports = vec![
        ("REDIS", redis.port),
        ("PORT", leaves()),
        ("DNS", dns),
        ("MEMCACHED", memcached_port),
        ("MYSQL", mysql),
        ("TLS", back.good),
        ("WS", sockets.port()),
    ];
    let processes = vec![dnsmasq, memcached, mariadb];
    Some(Peers {
        ports,
        folder,
        _running: (redis, back, sockets, processes),
    })
}

/// Sends each message of a WebSocket back.
const SOCKETS: &str = r#"
[[route]]
path = "/ws"
lua.content = """
local wb = require('resty.websocket.server'):new()
local data = wb:recv_frame()
if data then wb:send_text(data) end
"""
"#;

fn module(ports: &[(&str, u16)]) -> String {
    let mut text = String::from("local M, list = {}, {}\n");
    for (name, code, _) in TABLE {
        let mut code = (*code).to_owned();
        for (word, port) in ports {
            code = code.replace(word, &port.to_string());
        }
        writeln!(
            text,
            "list[#list + 1] = {{ \"{name}\", function() {code} end }}"
        )
        .unwrap();
    }
    text.push_str(
        "function M.run(phase)\n\
           for _, one in ipairs(list) do\n\
             local fine, result, why = pcall(one[2])\n\
             local said = fine and (result and 'works' or 'failed: ' .. tostring(why)) or tostring(result)\n\
             ngx.log(ngx.WARN, 'RESULT ', phase, ' ', one[1], ' => ', said, ' END')\n\
           end\n\
         end\n\
         return M\n",
    );
    text
}

const CONFIG: &str = r#"
[server]
workers = 1
lua.server_rewrite = "if ngx.var.uri == '/all' then require('all').run('server_rewrite') end"
[redis.main]
url = "redis://127.0.0.1:{redis}"
[shared.locks]
size = "64k"
[cache.products]
[lock.turns]
[lock.shared]
redis = "main"
[plugin.lua]
config = { init = "require('all').run('init')", init_worker = "require('all').run('init_worker') ngx.timer.at(0, function() require('all').run('timer') end)", exit_worker = "require('all').run('exit_worker')" }
limits = { cpu = "5s" }
allow = { http = ["*"] }
cosocket = { ca = "ca.pem" }
[[route]]
path = "/all"
set = { x = { lua = "require('all').run('set') return 'x'" } }
lua.rewrite = "require('all').run('rewrite')"
lua.access = "require('all').run('access')"
lua.precontent = "require('all').run('precontent')"
lua.content = "require('all').run('content') ngx.say('done')"
lua.header_filter = "require('all').run('header_filter')"
lua.body_filter = "if not ngx.ctx.once then ngx.ctx.once = true require('all').run('body_filter') end"
lua.log = "require('all').run('log')"
[[route]]
path = "/leaf"
respond = { body = "leaf" }
"#;

#[test]
fn what_waits_works_in_every_phase_that_may() {
    let Some(peers) = peers() else {
        return;
    };
    let folder = Folder::new();
    let authority = fs::read(peers.folder.path().join("ca.pem")).unwrap();
    folder.write("ca.pem", authority);
    folder.write("lua/all.lua", module(&peers.ports));
    folder.write("lua/tiny.lua", "return { f = function() return true end }");
    let (_, redis) = peers.ports[0];
    let server = Server::start_in(folder, &CONFIG.replace("{redis}", &redis.to_string()));
    let answer = get(server.port(), "/all").text();
    assert_eq!(answer, "done\n", "{}", server.log_since(0));
    let (last, ..) = TABLE[TABLE.len() - 1];
    server.wait_log(&format!("RESULT log {last} => "), 0);
    server.wait_log(&format!("RESULT timer {last} => "), 0);
    let log = server.stop(Signal::QUIT);
    let mut faults = Vec::new();
    for (phase, context) in PHASES {
        for (name, _, allowed) in TABLE {
            let head = format!("RESULT {phase} {name} => ");
            let Some(said) = log
                .split(&head)
                .nth(1)
                .and_then(|rest| rest.split(" END").next())
            else {
                faults.push(format!("{phase} {name}: no result"));
                continue;
            };
            let may = match allowed {
                Where::Everywhere => true,
                Where::Waiting => *phase != "init",
                Where::Answering => ANSWERING.contains(phase),
            };
            let fine = if may {
                said == "works"
            } else {
                // In `init` it names the function, too: the one that was refused.
                let behind = if *phase == "init" { ": " } else { "" };
                said.contains(&format!("API disabled in the context of {context}{behind}"))
            };
            if !fine {
                faults.push(format!("{phase} {name}: {said}"));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}
