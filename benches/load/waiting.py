#!/usr/bin/env python3
"""Measures what waiting costs: Redis per request, many requests that wait, and one suspension.

benches/README.md tells the method. Needs what bench.py needs, redis-server and lua-nginx-redis.
"""

import argparse
import os
import re
import resource
import socket
import statistics
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from backends import Redis, Silence
from bench import settled, status, tool, wrk
from servers import ROOT, Server

BEGIN, END = "<!-- generated: make bench, waiting -->", "<!-- end of generated -->"

# Row, server, path.
REDIS = [
    ("nginx + ngx_lua, lua-resty-redis", "nginx", "/redis"),
    ("Phasor, Lua, `phasor.redis`", "phasor", "/redis"),
    ("Phasor, Lua, the bundled `resty.redis`", "phasor", "/cosocket"),
    ("Phasor, Lua, lua-resty-redis as Debian has it", "phasor", "/unmodified"),
    ("Phasor, Rust component", "phasor", "/get"),
]
SLEEPS = 100


def rounds(servers, options):
    """Requests per second and CPU per request, medians; interleaved as in bench.py."""
    rows = [*REDIS, *[(f"{name} {path}", name, path) for name in servers for path in ("/lua", "/sleeps")]]
    rows = [row for row in rows if status(servers[row[1]], row[2]) or print(f"{row[0]} is not there", file=sys.stderr)]
    results = {row[0]: [] for row in rows}
    for row in rows:
        wrk(servers[row[1]], row[2], 1)
    for turn in range(options.rounds):
        for title, name, path in rows[turn % len(rows):] + rows[:turn % len(rows)]:
            results[title].append(wrk(servers[name], path, options.seconds))
            print(f"round {turn + 1}: {title}: {results[title][-1]}", file=sys.stderr)
    return {title: tuple(statistics.median(column) for column in zip(*values)) for title, values in results.items()}


def tail(server, options):
    """The 99th of a hundred answers to /lua, in µs; the median of several looks, because the system's own work shows here first."""
    looks = []
    for _ in range(options.rounds):
        text = tool("wrk", "-t1", "-c4", "-d4s", "--latency", f"http://127.0.0.1:{server.port}/lua")
        value, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", text).groups()
        looks.append(float(value) * {"us": 1, "ms": 1e3, "s": 1e6}[unit])
    return statistics.median(looks)


def waiting(name, redis, options):
    """Memory per connection that is idle and per request that waits for a back end, and /lua meanwhile."""
    silence = Silence().start()
    server = Server(name, redis=redis.port, silence=silence.port).start()
    clients = []

    def hold(count, path):
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        before = server.memory()
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", server.port), timeout=60)
            client.sendall(request)
            clients.append(client)
            if path == "/fixed":
                client.recv(4096)
        deadline = time.monotonic() + 120
        while path == "/slow" and len(silence.connections) < count and time.monotonic() < deadline:
            time.sleep(0.1)
        if path == "/slow" and len(silence.connections) < count:
            raise SystemExit(f"{name}: only {len(silence.connections)} of {count} requests wait")
        return (settled(server) - before) / count

    try:
        status(server, "/lua")
        settled(server)
        quiet = tail(server, options)
        hold(100, "/slow")
        silence.connections.clear()
        each = hold(options.waiting, "/slow")
        return each, quiet, tail(server, options)
    finally:
        for client in clients:
            client.close()
        silence.stop()
        server.stop()


def crowd(server, options):
    """So many want one value of the cache: how long after its source was done they have it, in ms."""
    requests = 16
    own = options.crowd // requests
    rounds = []
    for turn in range(options.rounds):
        target = f"http://127.0.0.1:{server.port}/crowd?key=crowd{turn}&own={own}&all={own * requests}"
        with ThreadPoolExecutor(requests) as pool:
            texts = pool.map(lambda _: urllib.request.urlopen(target, timeout=120).read(), range(requests))
            late = sorted(int(word) for text in texts for word in text.split())
        if len(late) != own * requests:
            raise SystemExit(f"{len(late)} of {own * requests} have the value")
        rounds.append((statistics.median(late), late[len(late) * 99 // 100]))
    return tuple(statistics.median(column) for column in zip(*rounds))


def idle(name, redis, options):
    """Memory of a connection that has had an answer."""
    server = Server(name, redis=redis.port, silence=1).start()
    clients = []
    try:
        status(server, "/lua")
        before = settled(server)
        for _ in range(options.waiting):
            client = socket.create_connection(("127.0.0.1", server.port), timeout=60)
            client.sendall(b"GET /lua HTTP/1.1\r\nHost: x\r\n\r\n")
            client.recv(4096)
            clients.append(client)
        return (settled(server) - before) / options.waiting
    finally:
        for client in clients:
            client.close()
        server.stop()


def report(results, held, late, options):
    base = results[REDIS[0][0]]
    lines = [
        f"{time.strftime('%Y-%m-%d', time.gmtime())}; medians of {options.rounds} rounds of {options.seconds} s.",
        "",
        "| Redis `GET` per request | requests/s | of ngx_lua's | CPU per request, µs |",
        "|---|---|---|---|",
    ]
    for title, _, _ in REDIS:
        if title in results:
            rate, cpu = results[title]
            lines.append(f"| {title} | {rate:,.0f} | {rate / base[0]:.2f} | {cpu:.2f} |")
        else:
            lines.append(f"| {title} | not there | | |")
    lines += ["", "| waiting | nginx + ngx_lua | Phasor |", "|---|---|---|"]

    def row(what, text):
        lines.append(f"| {what} | {text('nginx')} | {text('phasor')} |")

    row("one suspension and resumption in Lua (`ngx.sleep(0)`), CPU",
        lambda name: f"{(results[f'{name} /sleeps'][1] - results[f'{name} /lua'][1]) / SLEEPS:.2f} µs")
    row(f"{options.waiting:,} requests waiting for a back end, each",
        lambda name: f"{held[name][0] / 1024:.1f} KiB")
    row("of that, what its idle connection takes", lambda name: f"{held[name][3] / 1024:.1f} KiB")
    row("99th percentile of `ngx.say`, quiet", lambda name: f"{held[name][1]:,.0f} µs")
    row("the same while they wait", lambda name: f"{held[name][2]:,.0f} µs")
    lines.append(f"| {options.crowd:,} who want one value of a cache: the median has it after its source was done | | {late[0]:.0f} ms |")
    lines.append(f"| the 99th percentile of them | | {late[1]:.0f} ms |")
    return "\n".join(lines)


def write(text):
    """Puts the tables between the markers."""
    path = ROOT / "benches/README.md"
    before, rest = path.read_text().split(BEGIN, 1)
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END, 1)[1]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--waiting", type=int, default=10000, help="requests that wait at once")
    parser.add_argument("--crowd", type=int, default=10000, help="light threads that want one value")
    parser.add_argument("--write", action="store_true", help="write the tables to benches/README.md")
    options = parser.parse_args()
    # A file per connection on both sides, and one more for the back end.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY:
        options.waiting = min(options.waiting, (hard - 1000) // 2)
    redis, servers = Redis().start(), {}
    try:
        for name in ("nginx", "phasor"):
            servers[name] = Server(name, redis=redis.port, silence=1).start()
        results = rounds(servers, options)
        late = crowd(servers["phasor"], options)
        for server in servers.values():
            server.stop()
        held = {name: (*waiting(name, redis, options), idle(name, redis, options)) for name in ("nginx", "phasor")}
    finally:
        for server in servers.values():
            server.stop()
        redis.stop()
    text = report(results, held, late, options)
    print(text)
    if options.write:
        write(text)


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C")
    main()
