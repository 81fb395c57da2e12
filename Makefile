# Frontdesk's commands. All but `dist` and `bench` build with the dev profile, so that none waits for another's build.
.PHONY: run test check fmt deps dist bench

run: ## A simulated practice in ./var/demo; prints its address and log-ins
	packaging/deps build
	cargo run --locked -- demo

test: ## Everything: units, scenarios, real peers, browser, package
	packaging/deps test
	cargo nextest run --locked

check: ## Before every commit: format, lints, units, layers
	packaging/deps build
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo nextest run --locked --lib --bins --test it -E 'kind(lib) | kind(bin) | test(/^layers::/)'

fmt: ## Format the code
	cargo fmt

deps: ## Install what building and testing need
	packaging/deps test

dist: ## The Debian package, from the dist profile
	packaging/deps need libsystemd-dev pkg-config debhelper dpkg-dev
	packaging/build-deb

bench: ## The tables of figures
	packaging/deps test
	cargo bench --locked
