//! A Lua handler at the end of its memory, where the bytes are not Lua's: what is gathered for the host
//! is asked for first, what the host gave is not lost when Lua has no room for it, and what is too much
//! is not handed over. The runtime, which all requests of a worker share, lives on.

use std::fmt::Write as _;

use rustix::process::Signal;

use crate::client::get;
use crate::harness::Server;
use crate::redis::Redis;

/// Two hundred references to one string: as bytes, three times the memory.
const MANY: &str = "local s, t = ('x'):rep(1e6), {} for i = 1, 200 do t[i] = s end ";

/// What gathers bytes from Lua.
const GATHERS: &[(&str, &str)] = &[
    ("command", "assert(redis:mget(unpack(t)))"),
    (
        "pipeline",
        "for i = 1, 200 do t[i] = { 'set', 'x', s } end assert(redis:pipeline(t))",
    ),
    (
        "transaction",
        "for i = 1, 200 do t[i] = { 'set', 'x', s } end assert(redis:transaction(t))",
    ),
    ("script", "assert(redis:eval('return 1', {}, t))"),
    (
        "fetch",
        "local h = {} for i = 1, 200 do h['X-' .. i] = s end assert(require('phasor.http').fetch('http://127.0.0.1:1/', { headers = h }))",
    ),
    (
        "resty-redis",
        "require('resty.redis'):new():mget(unpack(t))",
    ),
    (
        "resty-pipeline",
        "local r = require('resty.redis'):new() r:init_pipeline() r:mget(unpack(t))",
    ),
    ("header", "ngx.header['X-A'] = t"),
    ("request-header", "ngx.req.set_header('X-A', t)"),
    ("arguments", "ngx.req.set_uri_args({ a = t })"),
    ("query", "ngx.encode_args({ a = t })"),
    ("log", "ngx.log(ngx.WARN, unpack(t))"),
    (
        "thread",
        "local ok, e = ngx.run_worker_thread('default', 'tiny', 'f', t) error(e)",
    ),
];

/// What keeps bytes of the host's until there is no room for more.
const KEEPS: &[(&str, &str)] = &[
    ("reply", "assert(redis:get('long'))"),
    ("value", "assert(ngx.shared.d:get('long'))"),
    (
        "answer",
        "assert(require('phasor.http').fetch('http://127.0.0.1:' .. ngx.var.server_port .. '/long')).body",
    ),
    ("inner", "assert(ngx.location.capture('/long')).body"),
    ("variable", "ngx.var.long"),
    (
        "cached",
        "assert(require('phasor.cache').open('things'):get('long', nil, function() end))",
    ),
];

/// What the host keeps back: with 64 MiB of memory no more than 8 at once.
const TOO_MUCH: &[(&str, &str, &str)] = &[
    (
        "huge-value",
        "ngx.say(ngx.shared.d:get('huge'))",
        "nilno memory\n",
    ),
    (
        "huge-reply",
        "ngx.say(redis:get('huge'))",
        "nilthe reply is longer than 8388608 bytes\n",
    ),
    (
        "huge-replies",
        "local t = {} for i = 1, 40 do t[i] = { 'get', 'long' } end ngx.say(redis:pipeline(t))",
        "nilthe reply is longer than 8388608 bytes\n",
    ),
    (
        "huge-answer",
        "local a = ngx.location.capture('/huge') ngx.say(#a.body, ' ', a.truncated)",
        "8388608 true\n",
    ),
];

const CONFIG: &str = r#"
[server]
workers = 1
subrequest_body_limit = "64m"
[redis.main]
url = "redis://127.0.0.1:REDIS"
timeout = "20s"
[shared.d]
size = "100m"
[cache.things]
l2 = { size = "256m" }
[plugin.lua]
limits = { memory = "64m", cpu = "100s" }
allow = { http = ["*"] }
# Another runtime, with room for what the first one gets.
[plugin.giver]
component = "bundled:lua"
limits = { memory = "512m", cpu = "100s" }
allow = { cache = ["*"], redis = ["*"], shared = ["*"] }
[[route]]
path = "/fill"
lua.vm = "giver"
lua.content = """
local redis, long, huge = require('phasor.redis').new('main'), ('x'):rep(7e6), ('y'):rep(12e6)
for name, value in pairs { long = long, huge = huge } do
  assert(redis:set(name, value))
  assert(ngx.shared.d:set(name, value))
end
assert(require('phasor.cache').open('things'):set('long', long))
ngx.say('filled')
"""
[[route]]
path = "/long"
lua.vm = "giver"
lua.content = "ngx.print(('x'):rep(7e6))"
[[route]]
path = "/huge"
lua.vm = "giver"
lua.content = "for _ = 1, 20 do ngx.print(('y'):rep(1e6)) ngx.flush(true) end"
[[route]]
path = "/count"
lua.content = "local kept = require('kept') kept.n = kept.n + 1 ngx.say(kept.n)"
[[route]]
path = "/patterns"
lua.content = "for i = 1, 1500 do local s = ('a'):rep(9999) .. i local a, _, e = ngx.re.find(s, s, 'jo') assert(a, e) end ngx.say('all')"
[[route]]
path = "/backtracking"
lua.content = "local s = ('a'):rep(20000) for i = 1, 60 do local _, _, e = ngx.re.find(s, '^(?:a|b' .. i .. ')*[xy]', 'jo') assert(not e, e) end ngx.say('all')"
"#;

fn config(redis: u16) -> String {
    let mut config = CONFIG.replace("REDIS", &redis.to_string());
    let mut route = |name: &str, lua: &str| {
        let set = "set = { long = { lua = \"return ('x'):rep(7e6)\" } }";
        let redis = "local redis = require('phasor.redis').new('main')";
        write!(
            config,
            "[[route]]\npath = \"/{name}\"\n{set}\nlua.content = '''{redis} {lua}'''\n"
        )
        .unwrap();
    };
    for (name, lua) in GATHERS {
        route(name, &format!("{MANY}{lua}"));
    }
    for (name, lua) in KEEPS {
        route(
            name,
            &format!("local t = {{}} for i = 1, 1e6 do t[i] = {lua} end"),
        );
    }
    for (name, lua, _) in TOO_MUCH {
        route(name, lua);
    }
    config
}

#[test]
fn the_runtime_survives() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let server = Server::start(
        &config(redis.port),
        &[
            ("lua/kept.lua", "return { n = 0 }"),
            ("lua/tiny.lua", "return { f = function(t) return #t end }"),
        ],
    );
    let ask = |path: &str| get(server.port(), path);
    assert_eq!(ask("/fill").text(), "filled\n", "{}", server.log_since(0));
    let mut count = 0;
    // The same runtime as before: it counts on.
    let mut lives = |after: &str| {
        count += 1;
        let text = get(server.port(), "/count").text();
        assert_eq!(text, format!("{count}\n"), "after {after}");
    };
    lives("start");
    for (name, _) in GATHERS.iter().chain(KEEPS) {
        // What is lost at each error would be missed after some.
        for _ in 0..6 {
            let mark = server.mark();
            assert_eq!(ask(&format!("/{name}")).status, 500, "{name}");
            server.wait_log("plugin failed: .*not enough memory", mark);
        }
        lives(name);
    }
    for (name, _, expected) in TOO_MUCH {
        assert_eq!(ask(&format!("/{name}")).text(), *expected, "{name}");
        lives(name);
    }
    assert_eq!(ask("/patterns").text(), "all\n", "{}", server.log_since(0));
    lives("many long patterns");
    // What a match needs for a while is not kept beside its pattern.
    assert_eq!(
        ask("/backtracking").text(),
        "all\n",
        "{}",
        server.log_since(0)
    );
    lives("patterns that backtrack");
    server.stop(Signal::QUIT);
}
