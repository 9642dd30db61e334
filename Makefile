# dify-kit. `make up` stands the stack up, `make smoke` proves it, `make test` runs the project's own tests.
# STACK names the environment: make up STACK=staging
# ARGS are further options: make up ARGS=--verbose, make smoke ARGS="--browser none"

# Expanded here, before the variable is exported with the stack's name.
ifndef STACK
STACK := $(or $(DIFY_KIT_STACK),dev)
endif
export DIFY_KIT_STACK = $(STACK)
# LLM, ARGS and OUT count on the command line alone: the shell's environment may have such names for other programs.
given = $(if $(findstring command line,$(origin $(1))),$($(1)))
# The test cluster that `make cluster` starts.
CLUSTER ?= dev
# How many tests that deploy run side by side.
WORKERS ?= 3
# Which of those on a cluster run beside those on Docker, as an expression of pytest's marks.
ON_CLUSTER = not cluster
# Every clone of this user has the same types to check, most of them unchanged.
export MYPY_CACHE_DIR ?= $(HOME)/.cache/dify-kit/mypy
# Each command starts several Python processes. They read bytecode in place of compiling all packages anew, also where
# the environment says that none is to be written.
export PYTHONDONTWRITEBYTECODE =
KIT = .venv/bin/dify-kit
PYTEST = .venv/bin/pytest

.DEFAULT_GOAL := help
.PHONY: pictures help packages setup browser test-tools integration-tools doctor up preview down smoke render test lint types unit newest integration browsing deploying drills cluster cluster-down cluster-tools cluster-core test-cluster docs bench lock

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo 'STACK=NAME chooses the stack; ARGS=... passes options on to up, preview, down, doctor and smoke.'

packages:
	@python3 tools/bootstrap

setup: packages ## install what is missing: Docker engine, Pulumi engine, Python packages, base images
	@$(KIT) setup

browser: packages ## install the Chromium that `make smoke` looks through, where none is
	@$(KIT) setup --browser

doctor: packages ## check this machine and the stack's settings; change nothing
	@$(KIT) doctor --stack $(STACK) $(call given,ARGS)

up: packages ## set up what is missing, then deploy or repair the stack; LLM=1: with models, by the key in the environment
	@$(KIT) up --stack $(STACK) $(if $(filter-out 0 no false off,$(call given,LLM)),--llm) $(call given,ARGS)

preview: packages ## show what `make up` would change
	@$(KIT) preview --stack $(STACK) $(call given,ARGS)

down: packages ## remove containers and networks; the data stays in its volumes
	@$(KIT) down --stack $(STACK) $(call given,ARGS)

smoke: packages ## test the deployed stack: authentication, chat, CORS, exposure, the browser's view
	@$(KIT) smoke --stack $(STACK) $(call given,ARGS)

render: packages ## write and check every rendered file of the stack: OUT=dir
	@$(KIT) render --stack $(STACK) --out $(or $(call given,OUT),rendered/$(STACK))

test-tools: packages
	@.venv/bin/python -m tests.tools

integration-tools: packages
	@.venv/bin/python -m tests.tools integration

# Tests with a browser run without others that deploy: Chromium gives up requests while Docker's networks change.
# They leave half the machine idle, so unit tests run beside them, and yield where both want it.
test: setup browser test-tools integration-tools lint types ## what CI runs: lint, types, unit tests, a real engine, a cluster
	@echo "→ unit tests, and beside them those that look through a browser; then those that deploy, on a cluster, too ..."
	@$(MAKE) --no-print-directory --jobs 2 NICE="nice -n 15" unit browsing
	@$(MAKE) --no-print-directory cluster-tools
	@$(MAKE) --no-print-directory deploying ON_CLUSTER="not cluster or cluster_core"

lint: packages ## ruff: rules and format; oxlint: rules for JavaScript; vale: plain English (docs/contributing/STYLE.md)
	@.venv/bin/ruff check . && .venv/bin/ruff format --check .
	@.venv/bin/oxlint --quiet
	@.venv/bin/python -m tests.vale

types: packages ## mypy, strict
	@.venv/bin/mypy

unit: packages test-tools ## tests without an engine
	@$(NICE) $(PYTEST) tests/unit -n auto

newest: packages ## the clients of the guide with the newest packages of the network; CI does it each week
	@$(PYTEST) tests/newest

integration: setup browser integration-tools ## tests that deploy stacks of their own
	@$(MAKE) --no-print-directory browsing
	@$(MAKE) --no-print-directory deploying

browsing: setup browser integration-tools
	@$(PYTEST) tests/integration -m browser

deploying: setup integration-tools
	@$(PYTEST) tests/contract tests/integration -m "not browser and not drill and ($(ON_CLUSTER))" -n $(WORKERS)

# They take minutes each, and CI has a bounded time: it runs them each week.
drills: setup integration-tools ## rehearsals that take minutes: backup and restore, upgrade, rotation under load, a team
	@$(PYTEST) tests/integration -m drill -n $(WORKERS)

cluster: setup ## start a Kubernetes cluster of two containers, or complete it: CLUSTER=name; it prints its kubeconfig
	@.venv/bin/python -m tests.cluster up $(CLUSTER)

cluster-down: packages ## remove that cluster and everything of it: CLUSTER=name
	@.venv/bin/python -m tests.cluster down $(CLUSTER)

# Its programs take minutes to build, once: not within the tests, which have deadlines.
cluster-tools: packages
	@$(KIT) setup --kubernetes
	@.venv/bin/python -m tests.cluster programs

# The part of them that proves the most in a few minutes.
cluster-core: setup cluster-tools
	@$(PYTEST) tests/integration/cluster -m cluster_core

test-cluster: setup cluster-tools ## all tests on a cluster of their own
	@$(PYTEST) tests/integration/cluster -m cluster

docs: packages ## build the documentation site into site/, strictly
	@.venv/bin/python -m docsite site

pictures: browser ## renew the pictures of the pages from the deployed stack, after `make smoke`
	@.venv/bin/python -m docsite.pictures --stack $(STACK)

bench: setup ## figures and long soaks, written to bench/results/
	@.venv/bin/python -m bench

lock: packages ## renew requirements.lock from pyproject.toml
	@tools/lock
