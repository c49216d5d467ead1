# Needs python3 (3.11 or later, with venv) and nothing else: it makes its own environments in .venvs.
# Another Python: make PYTHON=python3.13 test

PYTHON ?= python3
SHELL := /bin/bash
BIN := .venvs/dev/bin
environments := $(PYTHON) tools/environments.py

.DEFAULT_GOAL := help
.PHONY: help demo test lint unit soak soak-databases bench sample clean

help: ## what can be made (this list)
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

demo: ## watch refresh-agent do its job, in a scratch tree; no root needed
	@$(environments) agent legacy peers heat-agents
	@$(PYTHON) tools/demo.py

test: ## everything that a change has to pass: lint and the whole suite with its coverage
	@$(PYTHON) tools/system_packages.py
	@$(environments) dev agent legacy peers heat-agents heat heat-legacy zaqar
	@$(MAKE) --no-print-directory lint
	@tools/coverage.sh $(BIN)

lint: ## style, types, the direction of imports, the sample configuration
	@$(environments) dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy tools
	$(BIN)/lint-imports --config setup.cfg
	PYTHON=$(BIN)/python tools/config/check_uptodate.sh --strict

unit: ## only the fast tests
	@$(environments) dev
	$(BIN)/pytest tests/unit

soak: ## the long forms of the proofs that no change is lost; half an hour
	@$(PYTHON) tools/system_packages.py
	@$(environments) dev
	$(BIN)/python -m tests.reliability.soak

soak-databases: ## kill migrations at random moments, 200 times for each kind of database; some 45 minutes
	@$(PYTHON) tools/system_packages.py
	@$(environments) dev legacy
	$(BIN)/python -m tests.integration.soak

bench: ## the figures that are promised, as ratios
	@$(PYTHON) tools/system_packages.py --profile bench
	@$(environments) dev agent peers heat zaqar
	$(BIN)/python benchmarks/run.py

sample: ## write the sample configuration in etc anew
	@$(environments) dev
	PYTHON=$(BIN)/python tools/config/generate_sample.sh --strict

clean: ## remove what was made, the environments too
	rm -rf .venvs build dist *.egg-info .coverage .coverage.* .hypothesis .*_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
