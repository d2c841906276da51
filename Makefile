# Two commands matter: `cargo run --release` and `make test`. The rest are their parts.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
# No path of the building machine gets into a component: it is the same everywhere.
CARGO_HOME ?= $(HOME)/.cargo
export CARGO_TARGET_WASM32_WASIP2_RUSTFLAGS := --remap-path-prefix=$(CARGO_HOME)=/cargo --remap-path-prefix=$(CURDIR)=/phasor

.PHONY: test tools targets plugins guests lint fmt doc check-docs unit bench soak bless clean-bench

WASM := wasm32-wasip2
OUT := target/$(WASM)/guest
# As root or through sudo; where neither is possible the tools must be there already.
SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)
PACKAGES := clang-22 llvm-22 wasi-libc nginx libnginx-mod-http-lua luajit2 lua-cjson \
            redis-server wrk apache2-utils nghttp2-client curl \
            memcached mariadb-server dnsmasq-base \
            lua-nginx-redis lua-nginx-websocket chromium
GUESTS := $(patsubst host/tests/guests/%/Cargo.toml,%,$(wildcard host/tests/guests/*/Cargo.toml))
EXAMPLES := $(shell sed -n 's/^name = "\(example-[a-z-]*\)"/\1/p' examples/*/rust/Cargo.toml)
GUEST_PACKAGES := $(GUESTS:%=guest-%) $(EXAMPLES)

## Everything that must hold before a change goes in.
test: tools targets
	$(MAKE) lint
	$(MAKE) guests
	$(MAKE) unit

## Unit tests, integration tests, doc tests. One profile, so that wasmtime is built once.
unit: guests
	PHASOR_REQUIRE_TOOLS=1 cargo test --locked -p phasor -p phasor-plugin -p phasor-plugin-macros
	cargo test --locked -p phasor-go

## Installs what the tests need and this machine lacks.
tools:
	@missing=(); \
	for package in $(PACKAGES); do \
	  dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing+=($$package); \
	done; \
	if [ $${#missing[@]} -gt 0 ]; then \
	  echo "installing: $${missing[*]}"; \
	  $(SUDO) apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends $${missing[@]}; \
	fi

## Rust's tool chain and Wasm targets, as rust-toolchain.toml names them.
targets:
	@command -v rustup >/dev/null || { echo "rustup is missing: https://rustup.rs"; exit 1; }
	@rustup toolchain install >/dev/null 2>&1 || rustup show

## Cheapest first.
lint: fmt
	cargo clippy --locked -p phasor --all-targets -- -D warnings
	cargo clippy --locked -p phasor-plugin -p phasor-plugin-macros -p phasor-go --all-targets -- -D warnings
	cargo clippy --locked --profile guest --target $(WASM) -p phasor-lua -p phasor-demo $(addprefix -p ,$(GUEST_PACKAGES)) -- -D warnings
	cd sdk/go && GOOS=wasip1 GOARCH=wasm go vet -unsafeptr=false ./...
	$(MAKE) doc

fmt:
	cargo fmt --all --check
	@unformatted=$$(gofmt -l sdk/go host/tests/guests-go examples | grep -v -e /internal/wit/phasor_ -e /wit_exports.go || true); \
	[ -z "$$unformatted" ] || { echo "gofmt: $$unformatted"; exit 1; }

## The bundled components, from their sources; the result is checked in and is the same everywhere.
plugins:
	cargo build --locked --profile guest --target $(WASM) -p phasor-lua -p phasor-demo
	mkdir -p plugins/bundled
	cp $(OUT)/phasor_lua.wasm plugins/bundled/lua.wasm
	cp $(OUT)/phasor_demo.wasm plugins/bundled/demo.wasm

## The components that tests use.
guests:
	cargo build --locked --profile guest --target $(WASM) $(addprefix -p ,$(GUEST_PACKAGES))
	host/tests/guests/build-go.sh

## Reference documentation of the crates.
doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps -p phasor -p phasor-plugin

## Writes generated parts of the documentation anew.
bless:
	cargo run --locked --quiet -p phasor-go -- bindings sdk/go
	PHASOR_BLESS=1 cargo test --locked -p phasor --test all wit_docs

## Phasor beside nginx and OpenResty's Lua, then single steps; fills the tables of benches/README.md.
bench:
	cargo build --locked --release
	cargo build --locked --profile guest --target $(WASM) -p guest-hello -p guest-services -p guest-cache
	python3 benches/load/bench.py --write
	python3 benches/load/waiting.py --write
	cargo bench --locked -p phasor --bench micro
	python3 benches/micro/table.py --write

## Two million requests of all kinds against the release build; fails when memory grows.
soak:
	cargo build --locked --release
	cargo build --locked --profile guest --target $(WASM) -p guest-hello
	python3 benches/load/soak.py --write
