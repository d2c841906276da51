#!/bin/sh
# Builds the Go guests and examples: `go build`, then the component around it. Needs Go 1.25 or newer
# and no network beyond what cargo needs. The results lie where the Rust guests lie.
set -eu
root=$(cd "$(dirname "$0")/../../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
out=$target/wasm32-wasip2/guest

cargo build --quiet --manifest-path "$root/Cargo.toml" -p phasor-go
tool=$target/debug/phasor-go
# What is checked in is what the contract makes.
"$tool" check "$root/sdk/go"
for folder in "$root"/host/tests/guests-go/* "$root"/examples/*/go; do
    [ -f "$folder/main.go" ] || continue
    case $folder in
        */examples/*) name=$(basename "$(dirname "$folder")" | sed 's/^[0-9]*-\(.*\)/example_\1_go/') ;;
        *) name=$(basename "$folder") ;;
    esac
    "$tool" build "$folder" "$out/$name.wasm"
done
