#!/bin/sh
# Builds the Go guest from nothing: bindings, core module, component. Needs Go 1.25 or newer and no
# network beyond what cargo needs. The result lies where the Rust guests lie.
set -eu
root=$(cd "$(dirname "$0")/../../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
work=$target/guests/go-hello
world=access-content
out=$target/wasm32-wasip2/guest

cargo build --quiet --manifest-path "$root/Cargo.toml" -p phasor-go
tool=$target/debug/phasor-go
rm -rf "$work"
mkdir -p "$work" "$out"
"$tool" bindings "$root/wit" "$world" "$work"
cp -r "$root"/host/tests/guests-go/go-hello/export_* "$work"
cd "$work"
# -checklinkname=0: the run-time package takes memory below Go's heap, by a name that Go keeps.
GOOS=wasip1 GOARCH=wasm GOFLAGS=-mod=mod GOWORK=off go build -trimpath -buildvcs=false \
    -buildmode=c-shared -ldflags="-checklinkname=0 -s -w" -o core.wasm .
"$tool" component core.wasm "$root/wit" "$world" "$out/go-hello.wasm"
cp "$out/go-hello.wasm" "$target/guests/go-hello.wasm"
"$tool" inspect "$out/go-hello.wasm"
