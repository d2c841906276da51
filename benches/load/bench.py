#!/usr/bin/env python3
"""Measures Phasor beside nginx and nginx with ngx_lua, in turns; prints a table.

benches/README.md tells the method. Needs nothing but Python, wrk, ab, taskset and nginx.
"""

import argparse
import os
import platform
import re
import resource
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from servers import CORES, LOAD_CORE, ROOT, SERVER_CORE, Server

# Row, server, path, the row that it is compared with.
ROWS = [
    ("nginx, `return 200`", "nginx", "/fixed", None),
    ("nginx + ngx_lua, `ngx.say`", "nginx", "/lua", None),
    ("Phasor, `respond`", "phasor", "/fixed", "nginx, `return 200`"),
    ("Phasor, Rust component", "phasor", "/rust", "nginx + ngx_lua, `ngx.say`"),
    ("Phasor, Lua `ngx.say`", "phasor", "/lua", "nginx + ngx_lua, `ngx.say`"),
    ("nginx + ngx_lua, five phases", "nginx", "/five", None),
    ("Phasor, Lua in five phases", "phasor", "/five", "nginx + ngx_lua, five phases"),
    ("nginx, `proxy_cache`", "nginx", "/cached", None),
    ("Phasor, `cache` on a route", "phasor", "/cached", "nginx, `proxy_cache`"),
    ("nginx + ngx_lua, a value by lrucache and shared dict", "nginx", "/value", None),
    ("Phasor, a value by `phasor.cache`", "phasor", "/value", "nginx + ngx_lua, a value by lrucache and shared dict"),
    ("nginx + ngx_lua, one `ngx.sleep(0)`", "nginx", "/wait", None),
    ("Phasor, Lua, one `ngx.sleep(0)`", "phasor", "/wait", "nginx + ngx_lua, one `ngx.sleep(0)`"),
]
SLEEPERS = 4000
BEGIN, END = "<!-- generated: make bench -->", "<!-- end of generated -->"


def tool(*command):
    pinned = ["taskset", "-c", str(LOAD_CORE), *map(str, command)]
    done = subprocess.run(pinned, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(pinned)}:\n{done.stdout}{done.stderr}")
    return done.stdout


def found(pattern, text):
    match = re.search(pattern, text)
    return float(match.group(1)) if match else 0.0


def wrk(server, path, seconds):
    """Requests per second, CPU per request in µs."""
    before = server.cpu()
    text = tool("wrk", "-t1", "-c64", f"-d{seconds}s", f"http://127.0.0.1:{server.port}{path}")
    if "Non-2xx" in text or "Socket errors" in text:
        raise SystemExit(f"{server.name} {path} answers wrongly:\n{text}")
    requests = found(r"(\d+) requests in", text)
    rate = found(r"Requests/sec:\s+([\d.]+)", text)
    return rate, (server.cpu() - before) / max(requests, 1) * 1e6


def ab(server, path, requests):
    """Requests per second with a connection each."""
    url = f"http://127.0.0.1:{server.port}{path}"
    text = tool("ab", "-q", "-c", 100, "-n", requests, url)
    if found(r"Failed requests:\s+(\d+)", text) or "Non-2xx" in text:
        raise SystemExit(f"{server.name} {path} answers wrongly:\n{text}")
    return found(r"Requests per second:\s+([\d.]+)", text)


def status(server, path):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        return client.recv(4096).split(b" ")[1:2] == [b"200"]


def rounds(servers, options):
    """Every row in every round, in an order that rotates."""
    rows = [row for row in ROWS if status(servers[row[1]], row[2])]
    results = {row[0]: {"rate": [], "cpu": [], "ab": []} for row in rows}
    for row in rows:
        wrk(servers[row[1]], row[2], 1)
    for turn in range(options.rounds):
        for row in rows[turn % len(rows):] + rows[:turn % len(rows)]:
            title, name, path, _ = row
            rate, cpu = wrk(servers[name], path, options.seconds)
            results[title]["rate"].append(rate)
            results[title]["cpu"].append(cpu)
            results[title]["ab"].append(ab(servers[name], path, options.ab))
            print(f"round {turn + 1}: {title}: {rate:.0f}/s, {cpu:.2f} µs", file=sys.stderr)
    return {title: {key: statistics.median(values) for key, values in result.items()}
            for title, result in results.items()}


def held(server, count, request):
    """Memory per connection while `count` of them are held, each after `request`: what the second
    half adds to the first, because the first may live in what starting left free."""
    clients, readings = [], []
    try:
        for _ in range(2):
            for _ in range(count // 2):
                client = socket.create_connection(("127.0.0.1", server.port), timeout=30)
                client.sendall(request)
                clients.append(client)
            time.sleep(1)  # The server may still be accepting.
            readings.append(server.memory())
        return (readings[1] - readings[0]) / (count // 2)
    finally:
        for client in clients:
            client.close()


def settled(server):
    """Memory once it is quiet: what starting took goes back to the system a little later."""
    last = server.memory()
    for _ in range(20):
        time.sleep(0.5)
        now = server.memory()
        if now == last:
            break
        last = now
    return last


def memory(options):
    """Fresh servers: what a load test left behind would be counted otherwise."""
    keep = b"GET /fixed HTTP/1.1\r\nHost: x\r\n\r\n"
    sleep = b"GET /sleep HTTP/1.1\r\nHost: x\r\n\r\n"
    table = {}
    for name in ("nginx", "phasor"):
        for key, count, request in (("idle", options.idle, keep), ("sleeping", SLEEPERS, sleep)):
            server = Server(name).start()
            try:
                status(server, "/lua")
                start = settled(server)
                table[name, key] = (start, held(server, count, request))
            finally:
                server.stop()
    return table


def report(results, held_memory, options):
    cores = "one core for both" if SERVER_CORE == LOAD_CORE else "server and load generator on a core each"
    lines = [
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, {platform.machine()}, {len(CORES)} cores, {cores}; "
        f"medians of {options.rounds} rounds of {options.seconds} s.",
        "",
        "| | CPU per request, µs | ratio | wrk, requests/s | ab, requests/s |",
        "|---|---|---|---|---|",
    ]
    for title, _, _, partner in ROWS:
        row = results.get(title)
        if row is None:
            lines.append(f"| {title} | not there | | | |")
            continue
        ratio = ""
        if partner in results:
            ratio = f"{row['cpu'] / results[partner]['cpu']:.2f} ({partner})"
        lines.append(f"| {title} | {row['cpu']:.2f} | {ratio} | {row['rate']:,.0f} | {row['ab']:,.0f} |")
    lines += ["", "| memory | nginx + ngx_lua | Phasor |", "|---|---|---|"]
    starts = [f"{held_memory[name, 'idle'][0] / 2**20:.1f} MiB" for name in ("nginx", "phasor")]
    lines.append(f"| after the first request | {starts[0]} | {starts[1]} |")
    for key, what in (("idle", f"{options.idle:,} idle connections, each"), ("sleeping", f"{SLEEPERS:,} sleeping Lua requests, each")):
        each = [f"{held_memory[name, key][1] / 1024:.1f} KiB" for name in ("nginx", "phasor")]
        lines.append(f"| {what} | {each[0]} | {each[1]} |")
    return "\n".join(lines)


def write(text):
    """Puts the table between the markers."""
    path = ROOT / "benches/README.md"
    page = path.read_text()
    before, rest = page.split(BEGIN, 1)
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END, 1)[1]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--ab", type=int, default=10000, help="requests of a run of ab")
    parser.add_argument("--idle", type=int, default=10000, help="idle connections")
    parser.add_argument("--write", action="store_true", help="write the table to benches/README.md")
    options = parser.parse_args()
    # A file per connection on both sides.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY:
        options.idle = min(options.idle, hard - 1000)
    servers = {}
    try:
        for name in ("nginx", "phasor"):
            servers[name] = Server(name).start()
        results = rounds(servers, options)
    finally:
        for server in servers.values():
            server.stop()
    text = report(results, memory(options), options)
    print(text)
    if options.write:
        write(text)


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C")
    main()
