# Every verb of this repository, the same for people and for CI. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
# Outside the checkout, so that a fresh clone on the same machine builds fast. Set either variable to move it.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/headrace
export CARGO_TARGET_DIR ?= $(CACHE)/target
export UV_CACHE_DIR ?= $(CACHE)/uv
export VIRTUAL_ENV := $(CURDIR)/.venv
export PATH := $(VIRTUAL_ENV)/bin:$(PATH)

UV_VERSION := $(shell sed -n 's/^uv==\([0-9.]*\).*/\1/p' constraints.txt)
PACKAGES := .venv/.packages-installed
CONTROL := .venv/.control-installed
ENGINE := pyplatform/headrace/_native.abi3.so
# Folders are listed too: deleting a file changes its folder's time.
ENGINE_SOURCES := Cargo.toml Cargo.lock pyproject.toml \
	$(shell find core native \( -name '*.rs' -o -name Cargo.toml -o -type d \) -not -path '*/fuzz/*')
TYPED := pyplatform/headrace control/headrace_control tests

.PHONY: help venv setup demo test test-rust test-python lint lint-rust lint-python stubs fmt lengths bench fuzz lock container clean prerequisites

help: ## List these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 22

venv: $(PACKAGES) $(CONTROL) ## Make .venv with the pinned packages, without building the core

setup: $(ENGINE) $(CONTROL) ## Make .venv, install the pinned packages, build the core in release mode

demo: setup ## Run the main job on 336,776 real flights: define, train, register, materialize, serve, prove
	@headrace demo
	@echo 'headrace is in .venv/bin; to have it on your path: . .venv/bin/activate'

test: lint test-rust test-python ## Run every test and every lint (what CI runs)

test-rust: $(PACKAGES) ## Rust tests only
	cargo test --workspace --locked --quiet

test-python: setup ## Python tests only, on every processor; ARGS="-k word" passes options to pytest
	pytest --numprocesses=$(shell nproc) --dist=loadgroup --maxprocesses=8 $(ARGS)

lint: lint-rust lint-python ## rustfmt, clippy with warnings denied, ruff, mypy --strict, stub check

lint-rust: $(PACKAGES)
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked --quiet -- -D warnings

lint-python: setup
	ruff check
	ruff format --check
	mypy $(TYPED)
	$(MAKE) stubs

stubs: setup ## Compare _native.pyi with the compiled module
	python -m mypy.stubtest headrace._native --mypy-config-file pyproject.toml --allowlist tests/tidy/stubtest_allowlist.txt

fmt: setup ## Format all code
	cargo fmt --all
	ruff check --fix-only --quiet
	ruff format

lengths: venv ## Print the longest files and functions, for whoever wants to tidy
	@python tests/tidy/lengths.py

bench: setup ## Run the benchmarks: AREA=lookup|trees|expr|windows|demo, ARGS="--quick"
	@headrace bench $(or $(AREA),lookup) $(ARGS)

fuzz: setup ## Fuzz the decoders and model loaders; SECONDS_EACH=60, finds are kept in tests/attacks
	python tests/attacks/fuzz.py --seconds $(or $(SECONDS_EACH),60) $(ARGS)

lock: $(PACKAGES) ## Resolve constraints.txt again (pins with hashes; UPGRADE=1 moves to the newest versions)
	uv pip compile pyproject.toml control/pyproject.toml --universal --python-version 3.11 --group dev --extra numba --extra ray --extra demo --extra bench --extra client \
		--generate-hashes --no-header --no-annotate --no-emit-package headrace --no-emit-package headrace-control \
		$(if $(UPGRADE),--upgrade) --quiet --output-file constraints.txt > /dev/null

container: setup ## Build the server's image: BASE=image, PYTHON_VERSION=3.12, TAG=headrace, BUILDER="podman build"
	control/container/wheels dist/container $(or $(PYTHON_VERSION),3.12) $(WITH)
	$(or $(BUILDER),buildah bud --isolation chroot --format docker) $(if $(BASE),--build-arg BASE=$(BASE)) \
		--tag $(or $(TAG),headrace) --file control/container/Containerfile $(ARGS) dist/container

clean: ## Remove .venv and what was built in the checkout (the caches outside stay)
	rm -rf .venv $(ENGINE) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Prints one line on the first thing that is missing and how to get it; nothing when all is there.
define FIND_MISSING
	rust='install Rust 1.90 or newer, for example with rustup (https://rustup.rs)'; \
	missing() { echo "$$1"; exit 0; }; \
	command -v cargo > /dev/null || missing "cargo not found: $$rust"; \
	version=$$(cargo --version 2> /dev/null | cut -d' ' -f2 || true); \
	printf '%s\n' 1.90 "$${version:-0}" | sort -C -V || missing "cargo $${version:-without a toolchain} is too old: $$rust"; \
	command -v cc > /dev/null || missing "no C compiler and linker (cc): sudo apt-get install build-essential"; \
	if test -x .venv/bin/python; then exit 0; fi; \
	command -v $(PYTHON) > /dev/null || missing "$(PYTHON) not found: sudo apt-get install python3 python3-venv"; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		missing "$$($(PYTHON) --version 2>&1) is too old: install Python 3.11 or newer, then make PYTHON=python3.11"; \
	$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || \
		missing "Python has no venv module: sudo apt-get install python3-venv"
endef
MISSING = $(shell $(FIND_MISSING))

prerequisites:
	$(if $(MISSING),$(error $(MISSING)))
	@:

.venv/bin/python: | prerequisites
	$(PYTHON) -m venv --clear .venv || { rm -rf .venv; exit 1; }

# The whole environment is exactly constraints.txt; hashes are checked.
$(PACKAGES): constraints.txt .venv/bin/python
	.venv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	uv pip sync --quiet --require-hashes constraints.txt
	@touch $@

$(ENGINE): $(PACKAGES) $(ENGINE_SOURCES) | prerequisites
	maturin develop --release --locked --uv
	@touch $@

# Written after the packages: the pinned environment is synchronised, and that removes what it does not list.
$(CONTROL): $(PACKAGES) control/pyproject.toml
	uv pip install --quiet --no-deps --no-build-isolation --editable ./control
	@touch $@
