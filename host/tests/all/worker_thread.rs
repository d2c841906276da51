//! `ngx.run_worker_thread`: what computes for long runs beside the worker and does not hold it.

use std::time::Instant;

use rustix::process::Signal;

use crate::client::{Client, get};
use crate::harness::Server;
use crate::process::PATIENCE;

const MODULE: &str = r#"
local M = {}
local count = 0
function M.echo(...) count = count + 1 return count, ... end
function M.spin(seconds)
  local finish = os.clock() + seconds
  local n = 0
  while os.clock() < finish do n = n + 1 end
  return n > 0
end
function M.spin_until_told()
  while not ngx.shared.t:get("told") do end
  return true
end
function M.fails() error("on purpose") end
function M.waits() ngx.sleep(1) end
function M.gives() return print end
function M.shared(key) return ngx.shared.t:incr(key, 1, 0), ngx.md5("x"), ngx.worker.pid() > 0 end
return M
"#;

const CONFIG: &str = r#"
[server]
workers = 1
[shared.t]
size = "1m"
[plugin.lua]
config = { thread_pool = { small = { threads = 1, max_queue = 1 } } }
limits = { deadline = "10s" }
[[route]]
path = "/echo"
lua.content = """
local function show(...)
  local t = {...}
  for i = 1, select('#', ...) do
    if t[i] == ngx.null then t[i] = 'null' end
    if type(t[i]) == 'table' then t[i] = '{' .. t[i].a .. ',' .. t[i].b.c .. ',' .. tostring(t[i][1]) .. '}' end
    t[i] = tostring(t[i]):match('^[^\\n]*')
  end
  ngx.say(table.concat(t, ' '))
end
local run = ngx.run_worker_thread
show(run('default', 'work', 'echo', 1, nil, true, 'two', { 'x', a = 1.5, b = { c = 'deep' } }, ngx.null))
show(run('nowhere', 'work', 'echo'))
show(run('default', 'nomodule', 'echo'))
show(run('default', 'work', 'none'))
show(run('default', 'work', 'fails'))
show(run('default', 'work', 'waits'))
show(run('default', 'work', 'gives'))
show(run('default', 'work', 'echo', print))
local round = {} round.a = round
show(run('default', 'work', 'echo', round))
show(run('default', 'work', 'shared', 'n'))
"""
[[route]]
path = "/spin"
lua.content = "ngx.say(ngx.run_worker_thread('default', 'work', 'spin_until_told'))"
[[route]]
path = "/tell"
lua.content = "ngx.say(ngx.shared.t:set('told', true))"
[[route]]
path = "/forever"
lua.content = "ngx.say(ngx.run_worker_thread('default', 'work', 'spin', 100))"
[[route]]
path = "/full"
lua.content = """
local function one() return ngx.run_worker_thread('small', 'work', 'spin', 0.3) end
local list = {}
for i = 1, 4 do list[i] = ngx.thread.spawn(one) end
local fine, full = 0, 0
for i = 1, 4 do
  local _, ran, text = ngx.thread.wait(list[i])
  if ran then fine = fine + 1 elseif text == 'thread pool "small" queue overflow' then full = full + 1 end
end
ngx.say(fine, ' ', full)
"""
[[route]]
path = "/hello"
lua.content = "ngx.say('hello')"
"#;

#[test]
fn results_come_back_and_nobody_is_held_up() {
    let server = Server::start(CONFIG, &[("lua/work.lua", MODULE)]);
    let text = get(server.port(), "/echo").text();
    let lines: Vec<&str> = text.lines().collect();
    for (line, wanted) in lines.iter().zip([
        "true 1 1 nil true two {1.5,deep,x} null",
        "false thread pool nowhere not found",
        "false module 'nomodule' not found",
        "false no function 'none' in module 'work'",
        "on purpose",
        "API disabled in the context of ngx.run_worker_thread",
        "false unsupported Lua type: function in the return value",
        "false unsupported Lua type: function in the argument",
        "false suspicious nested table",
        "true 1 9dd4e461268c8034f5c8564e155c67a6 true",
    ]) {
        assert!(line.contains(wanted), "{line} instead of {wanted}");
    }
    assert_eq!(lines.len(), 10, "{text}");
    // While a thread computes, the worker serves others: what ends it is one of their requests.
    let mut busy = Client::connect(server.port());
    busy.send("GET /spin HTTP/1.1\r\nHost: x\r\n\r\n");
    for _ in 0..10 {
        assert_eq!(get(server.port(), "/hello").text(), "hello\n");
    }
    assert_eq!(get(server.port(), "/tell").text(), "truenilfalse\n");
    assert_eq!(busy.response(false).unwrap().text(), "truetrue\n");
    let text = get(server.port(), "/full").text();
    assert!(
        text == "2 2\n" || text == "1 3\n" || text == "3 1\n",
        "{text}"
    );
    // One that does not come to an end is ended by the request's deadline or its own.
    let start = Instant::now();
    let answer = get(server.port(), "/forever");
    assert!(start.elapsed() < PATIENCE / 2);
    assert!(
        answer.status >= 500 || answer.text().contains("exceeded the deadline"),
        "{} {}",
        answer.status,
        answer.text()
    );
    server.stop(Signal::QUIT);
}
