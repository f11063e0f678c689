# `make help` lists the targets. Needs python3.11 or newer and nothing else.
PYTHON ?= python3
BIN := .venv/bin
# What an install depends on; a change of any of these renews it.
SOURCES := pyproject.toml constraints.txt protos/build.py $(wildcard protos/lessor/v1/*.proto)

# What `make prove` runs: a fixed range of seeds, and as many as FRESH of a range that differs each time.
FIRST ?= 0
SEEDS ?= 10000
FRESH ?= 1000

# The contract may not break since the last release, or since the commit before where there is none.
SINCE := $(shell git describe --tags --abbrev=0 2>/dev/null || git rev-parse --quiet --verify HEAD~1)

# Tests start a hundred processes: those that keep no bytecode take most of their time to compile.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help .venv demo test quick prove soak lint protos bench bench-million bench-check constraints clean

help: ## list the targets
	@awk -F ':.*## ' '/^[.a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv: .venv/.test ## make the virtual environment, with all that tests and linters need

demo: .venv/.dev ## walk the tutorial on this machine, with an embedded AWS
	$(BIN)/lessor demo

test: .venv/.test ## run all tests
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder -m "not fire"

quick: .venv/.test ## run the tests that need no more than a few seconds each
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

prove: .venv/.test ## prove by simulation that nothing leaks: seeds, deaths, pairs of them, planted bugs
	$(BIN)/python -W ignore -m tests.simulation --first $(FIRST) --seeds $(SEEDS) --fresh $(FRESH)
	$(BIN)/python -m pytest -q --hypothesis-profile fresh -m hypothesis

soak: .venv/.test ## put the real server under fire for a quarter of an hour
	$(BIN)/python -m pytest -m fire
	$(BIN)/python -m tests.fire --kills 200 --renewals 150 --outage-seconds 14 --rate 200 --storm 2000 --soak-minutes 5

lint: .venv/.test ## check style, types, layers, protos and sizes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(if $(SINCE),$(BIN)/buf breaking --against '.git#ref=$(SINCE)')
	$(BIN)/python -m pytest -q tests/unit/test_house.py

protos: .venv/.test ## make the Python stubs from protos/
	$(BIN)/python protos/build.py

bench: .venv/.test ## measure Lessor beside OpenBao (bench/README.md)
	$(BIN)/python -m bench

bench-million: .venv/.test ## measure a million leases and draw the plots: takes long
	$(BIN)/python -m bench million

bench-check: .venv/.test ## compare the last run's ratios with those of the last release
	$(BIN)/python -m bench.check

constraints: ## write constraints.txt anew from what pip resolves today
	rm -rf build/resolve
	$(PYTHON) -m venv build/resolve
	build/resolve/bin/pip install --quiet '.[test]'
	build/resolve/bin/pip freeze --exclude lessor > constraints.txt

clean: ## remove all that make and the tools made
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	rm -f client/lessor/v1/*_pb2*

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "python 3.11 or newer, please: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv

.venv/.dev: $(SOURCES) | .venv/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

.venv/.test: $(SOURCES) | .venv/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch .venv/.dev $@
