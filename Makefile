# What one does with this repository. `make help` lists it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PY := .venv/bin/python

.PHONY: help setup demo demo-stop lab lab-demo lab-stop test lint client proto proto-check bench bench-cluster clean

help: ## Lists the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*## /\t/' | expand -t 15

setup: ## Installs the Debian packages that are missing and the virtual environment
	@tools/setup.sh

demo: setup ## Starts PVC on this machine, boots a real VM and shows it answering
	@$(PY) -m lab.demo

demo-stop: setup ## Ends the demo and leaves nothing behind
	@$(PY) -m lab.demo --stop

lab: setup ## Starts a real cluster of three nodes on this machine
	@lab/pvc-lab up

lab-demo: setup ## Shows that cluster boot VMs, move one live, lose nodes and come back
	@$(PY) -m lab.story

lab-stop: setup ## Ends that cluster and leaves nothing behind
	@lab/pvc-lab down

test: lint ## Checks and tests everything
	@$(PY) -m pytest -n 2 --dist loadfile

lint: setup ## Format, style, types, and whether the generated code is what the contracts make
	@.venv/bin/ruff format --check -q . || { echo "run: .venv/bin/ruff format ." >&2; exit 1; }
	@.venv/bin/ruff check -q .
	@.venv/bin/mypy --no-error-summary
	@$(PY) tools/sync_client.py check
	@tools/proto.sh check || [ $$? = 3 ]

client: setup ## Makes the blocking half of the Python client from its asyncio half
	@$(PY) tools/sync_client.py generate

proto: setup ## Generates the Python and OpenAPI code from the contracts
	@tools/proto.sh generate

bench: setup ## Measures PVC beside what one would use instead
	@$(PY) -m bench
	@$(PY) -m bench.simulate

bench-cluster: setup ## Measures a cluster of three nodes that moves VMs and loses nodes
	@$(PY) -m bench.cluster

clean: ## Removes everything that can be made again
	rm -rf .venv .cache dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
