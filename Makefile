# dify-kit. `make up` stands the stack up, `make smoke` proves it, `make test` runs the project's own tests.
# STACK names the environment: make up STACK=staging

STACK ?= dev
export DIFY_KIT_STACK = $(STACK)
# How many tests that deploy run side by side.
WORKERS ?= 3
# Every clone of this user has the same types to check, most of them unchanged.
export MYPY_CACHE_DIR ?= $(HOME)/.cache/dify-kit/mypy
# Each command starts several Python processes. They read bytecode in place of compiling all packages anew, also where
# the environment says that none is to be written.
export PYTHONDONTWRITEBYTECODE =
KIT = .venv/bin/dify-kit
PYTEST = .venv/bin/pytest

.DEFAULT_GOAL := help
.PHONY: help packages setup browser test-tools integration-tools doctor up preview down smoke render test lint types unit integration browsing deploying bench lock

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

packages:
	@python3 tools/bootstrap

setup: packages ## install what is missing: Docker engine, Pulumi engine, Python packages, base images
	@$(KIT) setup

browser: packages ## install the Chromium that `make smoke` looks through, where none is
	@$(KIT) setup --browser

doctor: packages ## check this machine and the stack's settings; change nothing
	@$(KIT) doctor --stack $(STACK)

up: packages ## set up what is missing, then deploy or repair the stack
	@$(KIT) up --stack $(STACK)

preview: packages ## show what `make up` would change
	@$(KIT) preview --stack $(STACK)

down: packages ## remove containers and networks; the data stays in its volumes
	@$(KIT) down --stack $(STACK)

smoke: packages ## test the deployed stack: authentication, chat, CORS, exposure, the browser's view
	@$(PYTEST) smoke_tests --stack $(STACK)

render: packages ## write and check every rendered file of the stack: OUT=dir
	@$(KIT) render --stack $(STACK) --out $(or $(OUT),rendered/$(STACK))

test-tools: packages
	@.venv/bin/python -m tests.tools

integration-tools: packages
	@.venv/bin/python -m tests.tools integration

# Tests with a browser run without others that deploy: Chromium gives up requests while Docker's networks change.
# They leave half the machine idle, so unit tests run beside them, and yield where both want it.
test: setup browser test-tools integration-tools lint types ## everything the project promises, on the real engine
	@echo "→ unit tests, and beside them those that look through a browser; then those that deploy ..."
	@$(MAKE) --no-print-directory --jobs 2 NICE="nice -n 15" unit browsing
	@$(MAKE) --no-print-directory deploying

lint: packages ## ruff: rules and format; oxlint: rules for JavaScript; vale: plain English (docs/contributing/STYLE.md)
	@.venv/bin/ruff check . && .venv/bin/ruff format --check .
	@.venv/bin/oxlint --quiet
	@.venv/bin/python -m tests.vale

types: packages ## mypy, strict
	@.venv/bin/mypy

unit: packages test-tools ## tests without an engine
	@$(NICE) $(PYTEST) tests/unit -n auto

integration: setup browser integration-tools ## tests that deploy stacks of their own
	@$(MAKE) --no-print-directory browsing
	@$(MAKE) --no-print-directory deploying

browsing: setup browser integration-tools
	@$(PYTEST) tests/integration -m browser

deploying: setup integration-tools
	@$(PYTEST) tests/contract tests/integration -m "not browser" -n $(WORKERS)

bench: setup ## figures and long soaks, written to bench/results/
	@.venv/bin/python -m bench

lock: packages ## renew requirements.lock from pyproject.toml
	@tools/lock
