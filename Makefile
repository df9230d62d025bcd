# Everything sets itself up: on a fresh Debian or Ubuntu `make serve` and `make test` are all there is to type.
# What is set up once is not touched again, so that later runs need no network.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
PY := $(VENV)/bin/python
HOT := $(wildcard zeekdb/hot/*.pyx zeekdb/hot/*.pxd)
MINUTES ?= 30
# LMCache has an environment of its own, since it brings PyTorch. `==2.13.0` takes the build for the CPU alone where
# pip's indexes have it: a version with a local part, `+cpu`, goes before the same without.
LMCACHE_VENV ?= .venv-lmcache
LMCACHE := torch==2.13.0 lmcache==0.5.6 requests
# Client libraries of other languages are tested where the language is; elsewhere their tests say that they are skipped.
NODE_CLIENT := $(if $(shell command -v npm),.cache/clients/.installed)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

# What pyproject.toml asks for: the build's requirements, the dependencies, and the extras named in $(1).
requirements = $(PY) -c 'import sys, tomllib; t = tomllib.load(open("pyproject.toml", "rb")); p = t["project"]; \
	rows = t["build-system"]["requires"] + p["dependencies"]; \
	rows += [r for extra in sys.argv[1:] for r in p["optional-dependencies"][extra]]; \
	print("\n".join(rows))' $(1)

.PHONY: help serve tiers test pytest clients lint bench compat compat-lmcache fuzz build clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

serve: build ## build, then serve on port 6379; ARGS='--port 7000 --save ""' are passed on
	@exec $(VENV)/bin/zeekdb serve $(ARGS)

tiers: build $(VENV)/.tiers ## serve with every tier embedded: PostgreSQL, Qdrant and objects in ./tiers; ARGS as above
	@exec $(VENV)/bin/zeekdb serve conf/tiers-embedded.conf $(ARGS)

build: $(VENV)/.built ## compile the hot room in place

test: lint pytest ## lint, types, and every test; ARGS='-k name' go to pytest

pytest: build $(VENV)/.dev $(NODE_CLIENT)
	@$(PY) -m pytest $(ARGS)

clients: build $(VENV)/.dev $(NODE_CLIENT) ## client libraries only: redis-py, and node-redis where node and npm are
	@$(PY) -m pytest tests/clients $(ARGS)

lint: $(VENV)/.dev ## ruff and mypy
	@$(PY) -m ruff check .
	@$(PY) -m mypy

bench: build $(VENV)/.dev ## against redis-server on this machine; results go to bench/results and the README
	@$(PY) bench/vs_redis.py $(ARGS)

compat: build $(VENV)/.dev ## Redis's own test suite; ARGS='--update', ARGS='--unit unit/type/hash'
	@$(PY) -m tests.compat.run $(ARGS)

compat-lmcache: build $(VENV)/.dev $(LMCACHE_VENV)/.lmcache ## LMCache's checks and benchmark; LMCACHE_VENV=dir, ARGS='--options "--maxmemory 8gb"'
	@$(PY) -m tests.compat.lmcache --python $(LMCACHE_VENV)/bin/python $(ARGS)
	@$(PY) bench/lmcache.py --python $(LMCACHE_VENV)/bin/python $(ARGS)

fuzz: build $(VENV)/.dev ## the hot room under sanitizers for MINUTES=30
	@$(PY) -m tests.fuzz.run --sanitize --minutes $(MINUTES) $(ARGS)

clean: ## remove what was built, but not the environment
	rm -rf build zeekdb/hot/*.so zeekdb/hot/*.c zeekdb/hot/*.html *.egg-info .mypy_cache .ruff_cache .pytest_cache
	rm -f $(VENV)/.built

$(VENV)/.python:
	@.ci/system build
	@test -x $(PY) || "$$(.ci/system python)" -m venv $(VENV)
	@touch $@

# A package that is there already is not looked for, so this works without a network when nothing is new.
$(VENV)/.run: pyproject.toml setup.py $(VENV)/.python
	@$(call requirements,) > $(VENV)/requirements.txt
	@$(PY) -m pip install -q -r $(VENV)/requirements.txt
	@ZEEKDB_LINK_ONLY=1 $(PY) -m pip install -q --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/.tiers: pyproject.toml $(VENV)/.run
	@$(call requirements,tiers) > $(VENV)/requirements-tiers.txt
	@$(PY) -m pip install -q -r $(VENV)/requirements-tiers.txt
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.run
	@.ci/system test
	@$(call requirements,dev) > $(VENV)/requirements-dev.txt
	@$(PY) -m pip install -q -r $(VENV)/requirements-dev.txt
	@touch $@

$(LMCACHE_VENV)/.lmcache:
	@.ci/system build
	@test -x $(@D)/bin/python || "$$(.ci/system python)" -m venv $(@D)
	@echo "Installing LMCache and PyTorch into $(@D) (once; 2 GB)"
	@$(@D)/bin/python -m pip install -q $(LMCACHE)
	@touch $@

.cache/clients/.installed: tests/clients/package.json tests/clients/package-lock.json
	@mkdir -p $(@D) && cp $^ $(@D)
	@cd $(@D) && npm ci --silent --no-audit --no-fund && touch $(@F) || echo "node-redis could not be installed" >&2

$(VENV)/.built: $(HOT) setup.py $(VENV)/.run
	@echo "Building the hot room (once, and again when it changes)"
	@$(PY) setup.py -q build_ext --inplace --parallel "$$(nproc)" > build.log 2>&1 || { cat build.log >&2; rm -f build.log; exit 1; }
	@rm -f build.log
	@touch $@
