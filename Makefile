# The only commands to know. `make help` lists them. A system Python 3.11 or newer is enough:
# the first command makes .venv and installs exactly what uv.lock says.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.everloop-installed
WORKERS ?= auto
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist loadfile
ARGS ?=

.PHONY: help install parts demo test test-all check bench docs proto format clean

help: ## List these commands
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | \
	  while IFS=$$'\t' read -r name text; do printf '  make %-9s %s\n' "$$name" "$$text"; done

# Keyed by what it was made from: a second call costs nothing.
$(STAMP): uv.lock pyproject.toml tools/environment.py
	@$(PYTHON) tools/environment.py --venv $(VENV) --stamp $(STAMP)

install: $(STAMP) ## Make .venv from uv.lock (every other command does this by itself)

parts: $(STAMP)
	@$(BIN)/python tools/parts.py

demo: $(STAMP) ## Run the whole loop once around on two years of real data (about two minutes)
	@$(BIN)/python examples/bike_demand/demo.py $(ARGS)

test: $(STAMP) parts ## Run the tests (PostgreSQL and Chromium are installed where permitted)
	@$(PYTEST) $(ARGS)

test-all: $(STAMP) parts ## Run the tests and the campaigns (kill -9 and the like; many minutes)
	@$(PYTEST) -m "" $(ARGS)

check: $(STAMP) ## Lint, types, import contracts, changelog fragments; prints the largest functions
	@$(BIN)/python tools/check.py

bench: $(STAMP) ## Run the benchmarks
	@shopt -s nullglob; for file in benchmarks/bench_*.py benchmarks/*/bench_*.py; do echo "== $$file"; $(BIN)/python "$$file" $(ARGS); done

docs: $(STAMP) ## Regenerate docs/reference from the code
	@if [ -f tools/reference.py ]; then $(BIN)/python -m tools.reference $(ARGS); \
	  else echo "docs: tools/reference.py is not there, nothing to generate"; fi

proto: $(STAMP) ## Write what gRPC says as messages, after a change of its .proto files
	@cd src/everloop/serve/proto && $(abspath $(BIN))/uv run --quiet --no-project \
	  --with grpcio-tools python -m grpc_tools.protoc -I. \
	  --descriptor_set_out=messages.binpb inference.proto health.proto

format: $(STAMP) ## Sort the imports and format the code
	@$(BIN)/ruff check --select I --fix .
	@$(BIN)/ruff format .

clean: ## Remove .venv, caches and what the demo and the tests left
	@rm -rf $(VENV) .cache .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache \
	  .schemathesis build dist test-results examples/*/work
	@find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
