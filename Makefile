# Everything a fresh machine needs: Python 3.11+ and make. `make help` lists the targets.

SHELL := /bin/sh
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& echo $$p && break; done)
BIN := .venv/bin
STAMP := .venv/.installed
PYTEST_ARGS ?= -n 2 --dist loadfile
DEALS ?= 20000

.PHONY: help setup env up down dev demo test lint format bench lock clean
.DEFAULT_GOAL := help

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile

# uv fetches in parallel; pip is the way where only pip is set up for a company's own package index
$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Svod needs Python 3.11, 3.12 or 3.13: install it, or run make PYTHON=/path/to/python3"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; \
		echo "Python cannot make virtual environments: on Debian and Ubuntu, apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements.lock)"
	@echo "Installing pinned dependencies into .venv"
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.lock \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e . \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

setup: $(STAMP)  ## virtual environment with the pinned dependencies

env: $(STAMP)  ## .env for local use; fills only what is empty
	@$(BIN)/svod env

up: $(STAMP)  ## start the embedded PostgreSQL
	@$(BIN)/svod up

down: $(STAMP)  ## stop the embedded PostgreSQL
	@$(BIN)/svod down

dev: $(STAMP)  ## Dagster UI on http://localhost:3000, daemon, sandbox; Ctrl-C stops all
	@$(BIN)/svod dev

demo: $(STAMP)  ## load the sandbox portal (or the one in .env) into the warehouse and print what was loaded
	@$(BIN)/svod demo --deals $(DEALS)

test: lint  ## linters, type checker and all tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(STAMP)  ## ruff and basedpyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

format: $(STAMP)  ## let ruff rewrite the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## benchmarks, each against a named peer or limit
	$(BIN)/python -m benchmarks

lock: $(STAMP)  ## resolve pyproject.toml anew into requirements.lock
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras \
		--no-header --no-emit-index-url --no-annotate pyproject.toml --output-file requirements.lock

clean:  ## stop the embedded PostgreSQL, delete .venv and caches; data (.data, .dagster_home) and .env stay
	@test ! -x $(BIN)/svod || $(BIN)/svod down
	rm -rf .venv .tmp_dagster_home_* .pytest_cache .ruff_cache .hypothesis .benchmarks build dist
