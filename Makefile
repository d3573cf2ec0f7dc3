# Everything a checkout needs. `make` alone lists the targets.
PYTHON ?= python3
BIN := .venv/bin
TSC := tests/types/node_modules/.bin/tsc

.DEFAULT_GOAL := help
.PHONY: help install run demo history test check bench bench-fanout bench-latency bench-rebuild torture torture-broken format lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/installed ## make .venv with the scoreboard command and the engines

run: .venv/installed ## start everything on port 8000
	$(BIN)/scoreboard up

demo: .venv/installed ## start everything with imaginary players, in a data folder of its own
	$(BIN)/scoreboard up --demo

history: .venv/installed ## watch the history of one project go by on a live board
	$(BIN)/python examples/redis-history/replay.py

test: .venv/installed-dev ## run the whole test suite against the real engines
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: .venv/installed-dev $(TSC) ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(TSC) -p tests/types
	$(TSC) -p tests/types/implementation.json

bench: .venv/installed-bench ## what an update and a read cost, beside others (some 5 minutes)
	$(BIN)/python bench/flow.py

bench-fanout: .venv/installed-dev ## what a delivered frame costs, beside others (takes a C compiler, some 10 minutes)
	$(BIN)/python bench/fanout.py

bench-latency: .venv/installed-dev ## from an update to every screen (takes a C compiler, some 2 minutes)
	$(BIN)/python bench/latency.py

torture: .venv/installed-dev ## faults under load and an audit after each (FAULTS=200 SEED=at random, some 15 minutes)
	$(BIN)/python -m torture $(if $(FAULTS),--faults $(FAULTS)) $(if $(SEED),--seed $(SEED))

torture-broken: .venv/installed-dev ## the same with a guarantee broken on purpose, three times: it must be told
	for guarantee in cursor increments early; do $(BIN)/python -m torture --break $$guarantee || exit 1; done

bench-rebuild: .venv/installed-dev ## a board of a million users, built again while updates go on (some 3 minutes)
	$(BIN)/python bench/rebuild.py

format: .venv/installed-dev ## put the code into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: .venv/installed-dev ## pin the dependencies anew, by hash
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --no-annotate --no-header --upgrade --extra engines pyproject.toml \
	  --group pyproject.toml:build -o requirements.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --no-annotate --no-header --upgrade --extra engines pyproject.toml \
	  --group pyproject.toml:build --group pyproject.toml:dev -c requirements.lock -o requirements-dev.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --no-annotate --no-header --upgrade \
	  --group pyproject.toml:bench -c requirements-dev.lock -o requirements-bench.lock

clean: ## remove .venv and caches; the data folder stays
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or later is needed; give it as: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: requirements.lock pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

.venv/installed-dev: requirements-dev.lock .venv/installed
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

.venv/installed-bench: requirements-bench.lock .venv/installed-dev
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@touch $@

$(TSC): tests/types/package-lock.json
	npm ci --prefix tests/types --silent --no-audit --no-fund
	@touch $@
