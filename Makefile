# Frontdesk's commands. All but `dist` and `bench` build with the dev profile, so that none waits for another's build.
.PHONY: run test torture check fmt deps dist bench bench-full

run: ## A simulated practice in ./var/demo; prints its address and log-ins
	packaging/deps build
	cargo run --locked -- demo

test: ## Everything: units, scenarios, real peers, browser, package
	packaging/deps test
	cargo nextest run --locked

torture: ## What `make test` tries a few times, as often as it takes to trust it; prints figures, takes hours
	packaging/deps test
	FRONTDESK_STORE_KILLS=10000 FRONTDESK_KILLS=500 FRONTDESK_POWER_CUTS=2000 FRONTDESK_DAMAGES=10000 \
	FRONTDESK_SWAPS=5000 FRONTDESK_ROTATION_KILLS=100 FRONTDESK_FAULT_STRIDE=1 FRONTDESK_ORDERINGS=25 \
	cargo nextest run --locked --profile torture

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
	cargo bench --locked -p frontdesk-peers

bench-full: ## The inbox with a million messages, too: half an hour, 8 GB of disk
	packaging/deps test
	cargo bench --locked --bench inbox -- 10000 100000 1000000
