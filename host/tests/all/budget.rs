//! What a handler may use up: processor time, in every loop that Lua's libraries have in C or Rust,
//! and memory. Each of these ends with its own error, and its neighbour never notices.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::Client;
use crate::harness::Server;
use crate::process::bound;

/// Loops in C or Rust that would run for minutes if they counted only instructions.
const BUSY: &[(&str, &str)] = &[
    (
        "compare",
        "local a, b = ('x'):rep(4e6), ('x'):rep(4e6) .. 'y' while true do local _ = a < b end",
    ),
    (
        "equal",
        "local a, b = ('x'):rep(4e6) .. 'z', ('x'):rep(4e6) .. 'y' while true do local _ = a == b end",
    ),
    ("rep", "while true do (''):rep(2e9) end"),
    (
        "format",
        "local f = ('%%'):rep(4e6) while true do pcall(string.format, f) end",
    ),
    (
        "quoted",
        "local s = ('\\0'):rep(1e6) while true do local _ = ('%q'):format(s) end",
    ),
    (
        "concat",
        "local t = {} for i = 1, 1e5 do t[i] = '' end while true do table.concat(t) end",
    ),
    (
        "load",
        "local s = ('x = 1 '):rep(5e5) while true do loadstring(s) end",
    ),
    (
        "comment",
        "local s = '--' .. ('x'):rep(4e6) while true do loadstring(s) end",
    ),
    ("balance", "local s = ('('):rep(1e6) s:find('%b()')"),
    (
        "greedy",
        "local s = ('a'):rep(4e6) while true do s:match('a*') end",
    ),
    (
        "set",
        "local s, set = ('a'):rep(1e5), '[' .. ('bcde'):rep(2e4) .. ']' s:find(set)",
    ),
    (
        "find",
        "local s, p = ('a'):rep(2e6), ('a'):rep(1e6) .. 'b' s:find(p, 1, true)",
    ),
    (
        "next",
        "local t = {} for i = 1, 3e5 do t[i] = 1 end for i = 1, 3e5 do t[i] = nil end while true do next(t) end",
    ),
    (
        "rehash",
        "local t, i = {}, 0 for i = 1, 3e5 do t[i] = 1 end while true do i = i + 1 t['k' .. i % 9] = 1 t['k' .. i % 9] = nil end",
    ),
    (
        "tonumber",
        "local s = ('1'):rep(4e6) while true do local _ = s + 0 end",
    ),
    (
        "base",
        "local s = ('1'):rep(4e6) while true do tonumber(s, 7) end",
    ),
    (
        "unpack",
        "local t = {} for i = 1, 7000 do t[i] = i end while true do select('#', unpack(t)) end",
    ),
    (
        "vararg",
        "local t = {} for i = 1, 7000 do t[i] = i end (function(...) while true do select('#', ...) end end)(unpack(t))",
    ),
    (
        "collect",
        "local t = {} for i = 1, 2e5 do t[i] = {} end while true do collectgarbage() end",
    ),
    (
        "step",
        "local t = {} for i = 1, 2e5 do t[i] = {} end while true do collectgarbage('step', 1e6) end",
    ),
    (
        "byte",
        "local s = ('x'):rep(7000) while true do s:byte(1, -1) end",
    ),
    (
        "encode",
        "local c, t = require 'cjson', { '' } for _ = 1, 60 do t = { t, t } end c.encode(t)",
    ),
    (
        "decode",
        "local c, t = require 'cjson', '[' .. ('1,'):rep(1e5) .. '1]' while true do c.decode(t) end",
    ),
    (
        "print",
        "local t = { '' } for _ = 1, 40 do t = { t, t } end ngx.print(t)",
    ),
    (
        "md5",
        "local s = ('x'):rep(4e6) while true do ngx.md5(s) end",
    ),
    (
        "regex",
        "local s = ('a'):rep(1e6) while true do ngx.re.gsub(s, 'a', 'b') end",
    ),
    (
        "sort",
        "local t = {} for i = 1, 1e5 do t[i] = i % 977 end while true do table.sort(t) end",
    ),
    (
        "upper",
        "local s = ('x'):rep(4e6) while true do s:upper() end",
    ),
    (
        "reverse",
        "local s = ('x'):rep(4e6) while true do s:reverse() end",
    ),
    ("sub", "local s = ('x'):rep(4e6) while true do s:sub(2) end"),
    (
        "join",
        "local s = ('x'):rep(4e6) while true do local _ = s .. 'y' end",
    ),
    (
        "format-string",
        "local s = ('x'):rep(4e6) while true do ('%s'):format(s) end",
    ),
    (
        "insert",
        "local t = {} for i = 1, 1e5 do t[i] = i end while true do table.insert(t, 1, 0) table.remove(t, 1) end",
    ),
    (
        "insert-below",
        "while true do table.insert({}, -2e9, 0) end",
    ),
    (
        "move",
        "local t = {} for i = 1, 1e5 do t[i] = i end while true do table.move(t, 1, 1e5, 2) end",
    ),
    (
        "escape",
        "local s = ('é'):rep(1e6) while true do ngx.escape_uri(s) end",
    ),
    (
        "base64",
        "local s = ('x'):rep(4e6) while true do ngx.decode_base64(ngx.encode_base64(s)) end",
    ),
    (
        "crc32",
        "local s = ('x'):rep(4e6) while true do ngx.crc32_long(s) end",
    ),
    (
        "args",
        "local s = ('a=1&'):rep(1e5) while true do ngx.decode_args(s, 0) end",
    ),
    (
        "reader",
        "while true do load(function() return ' ' end) end",
    ),
    (
        "numerals",
        "local s = 'x = ' .. ('1'):rep(4e6) while true do loadstring(s) end",
    ),
    (
        "between-waits",
        "local a, b = ('x'):rep(4e6), ('x'):rep(4e6) .. 'y' while true do for _ = 1, 20 do local _ = a < b end ngx.sleep(0) end",
    ),
];

/// What takes memory until there is no more.
const GREEDY: &[(&str, &str)] = &[
    ("tables", "local t = {} for i = 1, 1e9 do t[i] = { i } end"),
    ("string", "local s = 'x' while true do s = s .. s end"),
    (
        "strings",
        "local t = {} for i = 1, 1e9 do t[i] = 'some text that is long enough not to be shared ' .. i end",
    ),
    (
        "closures",
        "local t = {} for i = 1, 1e9 do t[i] = function() return i end end",
    ),
    (
        "coroutines",
        "local t = {} for i = 1, 1e9 do t[i] = coroutine.create(print) end",
    ),
    ("rep", "local s = ('x'):rep(1e9)"),
    (
        "concat",
        "local t, s = {}, ('x'):rep(1e6) for i = 1, 1000 do t[i] = s end return table.concat(t)",
    ),
    (
        "buffer",
        "local b, s = require('string.buffer').new(), ('x'):rep(1e6) while true do b:put(s) end",
    ),
    (
        "json",
        "local t = { ('x'):rep(1e4) } for _ = 1, 30 do t = { t, t } end require('cjson').encode(t)",
    ),
    (
        "print",
        "local t = { ('x'):rep(1e4) } for _ = 1, 30 do t = { t, t } end ngx.print(t)",
    ),
    (
        "send",
        "local s = ngx.socket.tcp() s:connect('127.0.0.1', ngx.var.server_port) local t = { ('x'):rep(1e4) } for _ = 1, 30 do t = { t, t } end s:send(t)",
    ),
    ("gsub", "ngx.re.gsub(('x'):rep(1e6), '', ('y'):rep(1e3))"),
    (
        "body",
        "ngx.req.read_body() ngx.req.init_body() while true do ngx.req.append_body(('x'):rep(1e6)) end",
    ),
    (
        "globals",
        "i = 0 while true do i = i + 1 _G['k' .. i] = i end",
    ),
    (
        "threads",
        "for _ = 1, 500 do ngx.thread.spawn(function() local t = {} for j = 1, 1e5 do t[j] = { j } end ngx.sleep(9) end) end",
    ),
];

/// A server with a route for each, and the line of the file on which its Lua stands.
fn server(limits: &str, routes: &[(&str, &str)]) -> (Server, Vec<usize>) {
    let mut config = format!("[server]\nworkers = 1\n\n[plugin.lua]\nlimits = {{ {limits} }}\n");
    config.push_str("[[route]]\npath = \"/hello\"\nlua.content = \"local t = { 'hel' .. 'lo' } ngx.say(t[1])\"\n");
    for (name, lua) in routes {
        write!(
            config,
            "[[route]]\npath = \"/{name}\"\nlua.content = '''{lua}'''\n"
        )
        .unwrap();
    }
    let server = Server::start(&config, &[]);
    let text = std::fs::read_to_string(server.file()).unwrap();
    let lines = routes.iter().map(|(_, lua)| {
        let at = text
            .lines()
            .position(|line| line.ends_with(&format!("'''{lua}'''")));
        at.unwrap() + 1
    });
    let lines = lines.collect();
    (server, lines)
}

/// Sends a bad request; gives how long it and the worst good one beside it took.
fn both(server: &Server, name: &str) -> (Duration, Duration, usize) {
    let mark = server.mark();
    let mut bad = Client::connect(server.port());
    let mut beside = Client::connect(server.port());
    let start = Instant::now();
    bad.send(format!("GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n"));
    let mut worst = Duration::ZERO;
    for _ in 0..5 {
        let start = Instant::now();
        assert_eq!(beside.get("/hello").unwrap().text(), "hello\n", "{name}");
        worst = worst.max(start.elapsed());
    }
    let response = bad
        .response(false)
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let log = server.log_since(mark);
    assert_eq!(response.status, 500, "{name}; log:\n{log}");
    (start.elapsed(), worst, mark)
}

#[test]
fn every_loop_counts() {
    let (server, _) = server("memory = \"64m\", cpu = \"100ms\"", BUSY);
    for (name, _) in BUSY {
        let (took, _, mark) = both(&server, name);
        server.wait_log(
            r"plugin failed: [^ ]+:\d+: cpu budget of 100 ms exceeded",
            mark,
        );
        // Far more than the budget and one long operation, far less than a loop that does not count.
        assert!(
            took < bound(Duration::from_secs(10), Duration::from_secs(30)),
            "{name} took {took:?}"
        );
    }
    server.stop(Signal::QUIT);
}

#[test]
fn memory_ends_with_an_error_of_the_handler() {
    // Time enough: it is memory that must end them.
    let (server, lines) = server("memory = \"64m\", cpu = \"100s\"", GREEDY);
    for ((name, _), line) in GREEDY.iter().zip(lines) {
        let (_, _, mark) = both(&server, name);
        let log = server.wait_log(
            &format!(
                r#"(?s)\[error\][^\n]*plugin failed: [^ ]+:\d+: not enough memory\n\tstack traceback:\n.*phasor\.toml:{line}: in main chunk.*plugin: "lua", phase: content"#
            ),
            mark,
        );
        assert!(!log.contains("trapped"), "{name}: {log}");
    }
    server.stop(Signal::QUIT);
}
