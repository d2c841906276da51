#!/usr/bin/env python3
"""Puts what criterion measured last into the table of benches/README.md (with --write), or prints it."""

import argparse
import json
import os
import platform
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- generated: make bench, micro -->", "<!-- end of generated -->"
# The groups in the order of a request.
GROUPS = ["call", "instance", "router", "plan", "cache", "hit in a guest"]


def spent(nanoseconds):
    for unit, size in (("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.2f} {unit}"
    return f"{nanoseconds:.1f} ns"


def rows():
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    found = []
    for file in (target / "criterion").glob("*/*/new/benchmark.json"):
        what = json.loads(file.read_text())
        estimates = json.loads(file.with_name("estimates.json").read_text())
        median = estimates["median"]
        interval = median["confidence_interval"]
        group = what["group_id"]
        elements = (what.get("throughput") or {}).get("Elements")
        each = f", {spent(median['point_estimate'] / elements)} each" if elements else ""
        found.append((
            GROUPS.index(group) if group in GROUPS else len(GROUPS),
            file.stat().st_mtime,
            f"| {group} | {what['function_id']} | {spent(median['point_estimate'])}{each} "
            f"| {spent(interval['lower_bound'])} – {spent(interval['upper_bound'])} |",
        ))
    return [row for _, _, row in sorted(found)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    lines = [
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, {platform.machine()}, {os.cpu_count()} cores; medians.",
        "",
        "| | | median | 95 % |",
        "|---|---|---|---|",
        *rows(),
    ]
    text = "\n".join(lines)
    print(text)
    if options.write:
        path = ROOT / "benches/README.md"
        before, rest = path.read_text().split(BEGIN, 1)
        path.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END, 1)[1]}")


if __name__ == "__main__":
    main()
