"""The servers that are compared, and their processes: start on a free port, pin, read CPU and memory."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULES = "/usr/lib/nginx/modules"
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]
TICKS = os.sysconf("SC_CLK_TCK")

# The five Lua phases of one request, the same text on both sides.
FIVE = {
    "rewrite": "ngx.ctx.n = 1",
    "access": "ngx.ctx.n = ngx.ctx.n + 1",
    "content": "ngx.ctx.n = ngx.ctx.n + 1 ngx.say('hello')",
    "header_filter": "ngx.header['X-N'] = ngx.ctx.n",
    "log": "ngx.ctx.n = ngx.ctx.n + 1",
}
HELLO = "ngx.say('hello')"
WAIT = "ngx.sleep(0) ngx.say('hello')"
SLEEP = "ngx.sleep(30) ngx.say('awake')"
SLEEPS = "for i = 1, 100 do ngx.sleep(0) end ngx.say('hello')"
# A decoded value by a cache of two levels: a map in the VM, bytes that all workers share.
CACHE = """
local products = package.loaded['bench.products']
if not products then
    products = require('phasor.cache').open('products')
    package.loaded['bench.products'] = products
end
local product = products:get('42', nil, function() return { name = 'a lamp', price = 12 } end)
ngx.say(product.name)
"""
# What lua-resty-mlcache does, without its checks: lrucache, then a shared dict and cjson.
CACHE_OPENRESTY = """
local products = package.loaded['bench.products']
if not products then
    products = require('resty.lrucache').new(1000)
    package.loaded['bench.products'] = products
end
local product = products:get('42')
if not product then
    local text = ngx.shared.products:get('42')
    if not text then
        text = require('cjson').encode({ name = 'a lamp', price = 12 })
        ngx.shared.products:set('42', text, 30)
    end
    product = require('cjson').decode(text)
    products:set('42', product, 30)
end
ngx.say(product.name)
"""
# Light threads that want one value at once, and how many milliseconds after its source was done each has it.
CROWD = """
local products = require('phasor.cache').open('products')
local function source()
    while ngx.shared.crowd:get(ngx.var.arg_key) < tonumber(ngx.var.arg_all) do ngx.sleep(0.01) end
    ngx.sleep(0.2)
    ngx.update_time()
    return ngx.now()
end
local late, threads = {}, {}
local function want()
    ngx.shared.crowd:incr(ngx.var.arg_key, 1, 0)
    local done = assert(products:get(ngx.var.arg_key, { wait = 300 }, source))
    ngx.update_time()
    late[#late + 1] = ngx.now() - done
end
for i = 1, tonumber(ngx.var.arg_own) do threads[i] = ngx.thread.spawn(want) end
for i = 1, #threads do assert(ngx.thread.wait(threads[i])) end
for i = 1, #late do late[i] = string.format('%d', late[i] * 1000 + 0.5) end
ngx.say(table.concat(late, ' '))
"""
# A Redis' reply by lua-resty-redis; what differs is the module's name.
COSOCKET = """
local r = require('MODULE'):new()
r:set_timeout(1000)
assert(r:connect('127.0.0.1', REDIS))
ngx.say(r:get('k'))
r:set_keepalive(10000, 100)
"""
# Waits for a back end that never answers.
SLOW = """
local s = ngx.socket.tcp()
s:settimeout(600000)
assert(s:connect('127.0.0.1', SILENCE))
s:send('hello')
s:receive()
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cosocket(module, redis):
    return COSOCKET.replace("MODULE", module).replace("REDIS", str(redis))


def phasor_config(port, redis, silence):
    guest = ROOT / "target/wasm32-wasip2/guest/hello.wasm"
    five = "\n".join(f'lua.{phase} = "{code}"' for phase, code in FIVE.items())
    rust = ""
    if guest.exists():
        rust = f'[plugin.hello]\ncomponent = "{guest}"\n[[route]]\npath = "/rust"\ncontent = "hello"\n'
    services = guest.with_name("services.wasm")
    if services.exists():
        rust += f'[plugin.services]\ncomponent = "{services}"\nallow = {{ redis = ["main"] }}\n'
        rust += '[[route]]\npath = "/get"\ncontent = "services"\n'
    return f'''
[server]
listen = ["127.0.0.1:{port}"]
workers = 1
access_log = "off"
keepalive_requests = 1000000000
max_connections = 12000
idle_timeout = "600s"
[redis.main]
url = "redis://127.0.0.1:{redis}"
[plugin.lua]
config = {{ path = "/usr/share/lua/5.1/?.lua" }}
limits = {{ deadline = "600s" }}
[[route]]
path = "/fixed"
respond = {{ status = 200, body = "hello\\n" }}
[[route]]
path = "/cached"
proxy = "http://127.0.0.1:{port}/fixed"
cache = {{ name = "pages", valid = "1h" }}
[shared.crowd]
size = "1m"
[cache.pages]
[cache.products]
[[route]]
path = "/value"
lua.content = """{CACHE}"""
[[route]]
path = "/crowd"
lua.content = """{CROWD}"""
[[route]]
path = "/lua"
lua.content = "{HELLO}"
[[route]]
path = "/five"
{five}
[[route]]
path = "/wait"
lua.content = "{WAIT}"
[[route]]
path = "/sleep"
lua.content = "{SLEEP}"
[[route]]
path = "/sleeps"
lua.content = "{SLEEPS}"
[[route]]
path = "/redis"
lua.content = "ngx.say(require('phasor.redis').new('main'):get('k'))"
[[route]]
path = "/cosocket"
lua.content = """{cosocket("resty.redis", redis)}"""
[[route]]
path = "/unmodified"
lua.content = """{cosocket("nginx.redis", redis)}"""
[[route]]
path = "/slow"
lua.content = """{SLOW.replace("SILENCE", str(silence))}"""
{rust}
'''


def nginx_config(port, redis, silence):
    five = "\n".join(f"{phase}_by_lua_block {{ {code} }}" for phase, code in FIVE.items())
    return f"""
load_module {MODULES}/ndk_http_module.so;
load_module {MODULES}/ngx_http_lua_module.so;
daemon off; master_process off; pid nginx.pid; error_log stderr notice;
worker_rlimit_nofile 24000;
events {{ worker_connections 23000; }}
http {{
access_log off; default_type text/plain;
keepalive_requests 1000000000; keepalive_timeout 600s;
client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
lua_shared_dict products 1m;
proxy_cache_path cache keys_zone=pages:1m;
server {{
listen 127.0.0.1:{port} backlog=511;
location = /fixed {{ return 200 "hello\\n"; }}
location = /cached {{
    proxy_pass http://127.0.0.1:{port}/fixed; proxy_cache pages; proxy_cache_valid 1h;
}}
location = /value {{ content_by_lua_block {{ {CACHE_OPENRESTY} }} }}
location = /lua {{ content_by_lua_block {{ {HELLO} }} }}
location = /five {{ {five} }}
location = /wait {{ content_by_lua_block {{ {WAIT} }} }}
location = /sleep {{ content_by_lua_block {{ {SLEEP} }} }}
location = /sleeps {{ content_by_lua_block {{ {SLEEPS} }} }}
location = /redis {{ content_by_lua_block {{ {cosocket("nginx.redis", redis)} }} }}
location = /slow {{ content_by_lua_block {{ {SLOW.replace("SILENCE", str(silence))} }} }}
}}
}}
"""


class Server:
    """One server, pinned to a core of its own."""

    def __init__(self, name, redis=1, silence=1):
        self.name = name
        self.redis, self.silence = redis, silence
        self.port = free_port()
        self.folder = tempfile.TemporaryDirectory()
        self.process = None

    def start(self):
        if self.name == "phasor":
            file = Path(self.folder.name, "phasor.toml")
            file.write_text(phasor_config(self.port, self.redis, self.silence))
            binary = os.environ.get("PHASOR_BIN", str(ROOT / "target/release/phasor"))
            command = [binary, "run", str(file)]
        else:
            file = Path(self.folder.name, "nginx.conf")
            file.write_text(nginx_config(self.port, self.redis, self.silence))
            command = ["nginx", "-p", self.folder.name, "-c", str(file)]
        self.log = open(Path(self.folder.name, "log"), "w+")
        self.process = subprocess.Popen(
            ["taskset", "-c", str(SERVER_CORE), *command],
            stdout=subprocess.DEVNULL, stderr=self.log, cwd=self.folder.name,
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return self
            except OSError:
                time.sleep(0.02)
        self.log.seek(0)
        raise SystemExit(f"{self.name} does not start:\n{self.log.read()}")

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=30)
            self.process = None
        self.folder.cleanup()

    def cpu(self):
        """User and system time so far, in seconds."""
        text = Path(f"/proc/{self.process.pid}/stat").read_text()
        fields = text.rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self):
        """Resident set in bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
