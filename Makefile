# The whole toolbox: demo, test, check, bench, lock, clean. `make demo ARGS="--accounts 5000"` passes options on.
# The first target called builds .venv from the pinned, hashed requirements (needs a network once).
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := $(VENV)/peers
UV_VERSION := 0.9.30

.PHONY: help demo test check release-schemas bench chaos lock clean needs-python needs-java

help:
	@echo "make demo    real crash prices through a local Kafka, live liquidations  (ARGS=...)"
	@echo "make test    the whole suite on a real local Kafka                       (ARGS=...)"
	@echo "make check   format, lint, types, layers, released schemas"
	@echo "make bench   measure this machine                                        (ARGS=...)"
	@echo "make chaos   kill, freeze and cut off workers and broker, long            (ARGS=...)"
	@echo "make lock    write requirements/*.txt again from pyproject.toml"
	@echo "make clean   remove .venv and caches; .solvent (data) stays"

demo: needs-java $(STAMP)
	@$(BIN)/solvent demo $(ARGS)

# Kernels are compiled first, once a version: tests start many workers, which then load them. Two processes, a file
# at a time, since most of the suite waits for brokers; ARGS="-n 0" for one (a debugger, say).
test: needs-java $(STAMP)
	@$(BIN)/python -c "from solvent.engine.margin import warm_up; warm_up()"
	@$(BIN)/pytest -n 2 --dist loadfile $(ARGS)

check: $(STAMP)
	@$(BIN)/ruff format --check streams tests benchmarks examples
	@$(BIN)/ruff check streams tests benchmarks examples
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@PYTHONPATH=tests $(BIN)/python -m compatibility

# Once a release: what is released now is what the next one is held against.
release-schemas: $(STAMP)
	@PYTHONPATH=tests $(BIN)/python -m compatibility release

bench: needs-java $(STAMP) $(PEERS)/.installed
	@$(BIN)/solvent bench $(ARGS)

chaos: needs-java $(STAMP)
	@PYTHONPATH=tests:. $(BIN)/python -m chaos $(ARGS)

lock: $(STAMP)
	@$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --no-emit-index-url \
		--python-version 3.11 -o requirements/base.txt pyproject.toml
	@$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --no-emit-index-url \
		--python-version 3.11 --extra dev -o requirements/dev.txt pyproject.toml
	@$(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['bench'], sep='\n')" \
		| $(BIN)/uv pip compile -q --universal --generate-hashes --no-header --no-emit-index-url \
		--python-version 3.11 -o requirements/bench.txt -

clean:
	@rm -rf $(VENV) dist .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	@find streams tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): requirements/dev.txt pyproject.toml | needs-python
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements/dev.txt
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	@touch $@

# A measured stranger (Quix Streams) wants other versions than ours: it gets an environment of its own.
# Where it cannot be had, the benchmarks say "not installed" and go on.
$(PEERS)/.installed: requirements/bench.txt | $(STAMP)
	@$(BIN)/uv venv -q --allow-existing --python $(BIN)/python $(PEERS) && \
		$(BIN)/uv pip install -q --python $(PEERS)/bin/python --require-hashes -r $< && touch $@ || \
		echo "make: Quix Streams cannot be installed here; it will not be measured" >&2

needs-python:
	@command -v $(PYTHON) >/dev/null || { \
		echo "make: no $(PYTHON) on the PATH: install Python 3.11 or newer, or give PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make: $$($(PYTHON) --version) is too old: install Python 3.11 or newer, or give PYTHON=..." >&2; exit 1; }

# The Kafka of tests, demo and bench is the real one: a Java to run it, and once Maven to resolve it.
needs-java:
	@java="$${JAVA_HOME:+$$JAVA_HOME/bin/}java"; \
	command -v "$$java" >/dev/null || { \
		echo "make: no java: install a Java runtime 17 or newer, e.g. openjdk-17-jre-headless" >&2; exit 1; }; \
	major=$$("$$java" -version 2>&1 | sed -nE 's/.*version "(1\.)?([0-9]+).*/\2/p;T;q'); \
	[ "$${major:-0}" -ge 17 ] || { \
		echo "make: java is version $${major:-unknown}: install a Java runtime 17 or newer" >&2; exit 1; }
	@command -v mvn >/dev/null \
		|| compgen -G "$${SOLVENT_CACHE_DIR:-$${XDG_CACHE_HOME:-$$HOME/.cache}/solvent}/kafka-*/*.jar" >/dev/null || { \
		echo "make: no mvn on the PATH: install Maven 3.6 or newer, e.g. apt install maven" >&2; exit 1; }
