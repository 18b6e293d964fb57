# The two commands of the README are `make demo` and `make test`; each sets up all that it needs.
.PHONY: help demo test test-chain security lint bench lock clean install install-dev
INSTALL_FLAGS ?=
SECURITY_FLAGS ?=
# Many tests wait for processes of theirs: one more worker than the two cores of a small machine.
PYTEST_FLAGS ?= -n 3 --dist loadfile --no-loadscope-reorder
BIN := .venv/bin

help:
	@echo "make demo    install, then one whole adversarial round on real input"
	@echo "make test    install, then every test"
	@echo "make test-chain GAS_CHAIN_URL=ws://...  the chain's suite on a development node"
	@echo "make security  hostile models against the sandbox, as a table (SECURITY_FLAGS=--fast)"
	@echo "make lint    ruff, format, mypy --strict, floors"
	@echo "make bench   the benchmarks of benchmarks/"
	@echo "make lock    renew the lock files in requirements/"

install:
	./install.sh --profile demo $(INSTALL_FLAGS)

install-dev:
	./install.sh --profile dev $(INSTALL_FLAGS)

demo: install
	$(BIN)/gascli demo

test: install-dev
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

test-chain: install-dev
	@[ -n "$(GAS_CHAIN_URL)" ] || { echo "Name the node: make test-chain GAS_CHAIN_URL=ws://127.0.0.1:9944" >&2; exit 2; }
	GAS_CHAIN_URL="$(GAS_CHAIN_URL)" $(BIN)/python -m pytest tests/contracts/test_chain_live.py

security: install-dev
	$(BIN)/python tools/security.py $(SECURITY_FLAGS)

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install-dev
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

lock:
	$(BIN)/python tools/lock.py

clean:
	rm -rf .venv .gas build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
