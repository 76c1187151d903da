# evenkeel: `make demo` shows its main job, `make test` proves it. Each does its own set-up.

CARGO ?= cargo
QUICK = target/quick/evenkeel

.DEFAULT_GOAL := help
.PHONY: help demo strategies build quick test soak mutations evidence fmt lint bench docs

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

build: ## build the release binary: target/release/evenkeel
	$(CARGO) build --release --locked -p evenkeel

quick: ## build a binary to look around with, in a fraction of the time: target/quick/evenkeel
	$(CARGO) build --profile quick --locked -p evenkeel

demo: quick ## ship a good release and take back a bad one, on this machine, in about a minute
	@$(QUICK) demo $(ARGS)

strategies: quick ## try every strategy under load: a good release, then a bad one; about three minutes
	@examples/strategies/try --evenkeel $(QUICK) $(ARGS)

test: ## format, lints, every test, documentation
	@scripts/setup test
	@scripts/test

soak: ## let simulated worlds with faults happen for FOR seconds (60) from seed FROM (0), or tell the story of SEED
	@$(CARGO) build --quiet --locked --profile test-release -p evenkeel-sim --example soak
	@target/test-release/examples/soak $(if $(SEED),--seed $(SEED),--for $(or $(FOR),60) $(if $(FROM),--from $(FROM)))

mutations: ## plant a bug for each invariant in a copy of the tree, and tell after how many worlds it is found
	@$(CARGO) run --quiet --locked --profile test-release -p evenkeel-sim --example mutations

evidence: ## how good the statistics are: requests until a bad release is found, false rollbacks, also through the proxy
	@$(CARGO) run --quiet --locked --profile test-release -p evenkeel-analysis --example evidence
	@NULL_ROUNDS=$(or $(ROUNDS),8) $(CARGO) test --quiet --locked --profile test-release -p evenkeel-proxy --test null -- --nocapture --test-threads 1

fmt: ## format the code
	$(CARGO) fmt --all

lint: ## clippy with warnings as errors
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

docs: ## build the API documentation
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

bench: ## compare the proxy with HAProxy and nginx, interleaved, on this machine
	@scripts/setup bench
	@bench/proxy.sh
