#!/usr/bin/env python3
"""Sends two million requests of all kinds to one Phasor and watches its memory; fails when it grows.

Every kind that keeps something for a while is there: instances, coroutines, contexts, shared dicts
that are full, timers, errors, clients that leave. `PHASOR_BIN` names another binary.
"""

import argparse
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import servers
from servers import LOAD_CORE, ROOT, Server, phasor_config

# What may come on top between the second quarter and the last: the allocator's breath.
SLACK = 4 << 20
BEGIN, END = "<!-- generated: make soak -->", "<!-- end of generated -->"

MORE = """
[shared.full]
size = "1m"

[[route]]
path = "/dict"
lua.content = '''
local d, n = ngx.shared.full, ngx.var.request_id
d:set(n, string.rep("x", 200), 0.05)
d:incr("count", 1, 0)
d:lpush("list", n)
if d:llen("list") > 100 then d:rpop("list") end
ngx.say(d:get("count"))
'''

[[route]]
path = "/timer"
lua.content = '''
local ok, err = ngx.timer.at(0, function(_, n) ngx.shared.full:incr("timers", n, 0) end, 1)
ngx.say(ok or err)
'''

[[route]]
path = "/thread"
lua.content = '''
local t = ngx.thread.spawn(function() ngx.sleep(0) return {string.rep("y", 1000)} end)
local _, result = ngx.thread.wait(t)
ngx.say(#result[1])
'''

[[route]]
path = "/stream"
lua.content = "for i = 1, 8 do ngx.print(string.rep('z', 4096)) ngx.flush(true) end"

[[route]]
path = "/error"
lua.content = "error(string.rep('e', 500))"
"""
PATHS = ["/fixed", "/lua", "/rust", "/five", "/wait", "/dict", "/timer", "/thread", "/stream", "/error"]

SCRIPT = """
local paths, i = {%s}, 0
function request()
  i = i + 1
  return wrk.format("GET", paths[i %% #paths + 1])
end
"""


def leave(server, count):
    """Clients that do not wait for their answers."""
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            client.sendall(b"GET /sleep HTTP/1.1\r\nHost: x\r\n\r\n")


def round_of(server, seconds, script):
    command = ["taskset", "-c", str(LOAD_CORE), "wrk", "-t1", "-c64", f"-d{seconds}s",
               "-s", str(script), f"http://127.0.0.1:{server.port}/"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Socket errors" in text:
        raise SystemExit(f"requests were lost:\n{text}")
    count = int(re.search(r"(\d+) requests in", text).group(1))
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    # One path in ten fails on purpose.
    if abs(int(wrong.group(1) if wrong else 0) - count / len(PATHS)) > count / 50 + 100:
        raise SystemExit(f"more than the wanted errors:\n{text}")
    return count


def soak(server, options):
    script = Path(server.folder.name, "mix.lua")
    script.write_text(SCRIPT % ", ".join(f'"{path}"' for path in PATHS))
    samples, total = [], 0
    while total < options.requests:
        total += round_of(server, options.seconds, script)
        leave(server, 50)
        samples.append((total, server.memory()))
        print(f"{total:>9,} requests: {samples[-1][1] / 2**20:.1f} MiB", file=sys.stderr)
    return samples


def verdict(samples):
    """The most of the second quarter and of the last."""
    total = samples[-1][0]
    second = [memory for count, memory in samples if total / 4 < count <= total / 2]
    last = [memory for count, memory in samples if count > total * 3 / 4]
    if not second or not last:
        raise SystemExit("too few samples: lower --seconds")
    return max(second), max(last)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=2_000_000)
    parser.add_argument("--seconds", type=int, default=2, help="between two samples")
    parser.add_argument("--write", action="store_true", help="write the figures to benches/README.md")
    options = parser.parse_args()
    servers.phasor_config = lambda *ports: phasor_config(*ports).replace(
        "[server]", '[server]\nerror_log = "off"', 1) + MORE
    server = Server("phasor").start()
    try:
        samples = soak(server, options)
    finally:
        server.stop()
    before, after = verdict(samples)
    grown = after - before
    first = samples[0]
    text = (
        f"{time.strftime('%Y-%m-%d', time.gmtime())}: {samples[-1][0]:,} requests of ten kinds on 64 connections; "
        f"resident {first[1] / 2**20:.1f} MiB after {first[0]:,}, at most {before / 2**20:.1f} MiB in the second quarter, "
        f"{after / 2**20:.1f} MiB in the last: {grown / 2**20:+.1f} MiB."
    )
    print(text)
    if options.write:
        path = ROOT / "benches/README.md"
        head, rest = path.read_text().split(BEGIN, 1)
        path.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.split(END, 1)[1]}")
    if grown > SLACK:
        raise SystemExit(f"memory grows: {grown / 2**20:.1f} MiB over the second half")


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C")
    main()
