PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp
SPEC   := imagenet/r-mg-34
DEMO   := demo/r-mg-34

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test browser lint format types bench clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

# Made again whenever the dependencies change. Constraints hold the versions: torch as pinned, CPU build where an index has it.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: $(STAMP) ## check, audit, draw and compile R-MG-34 into ./demo
	mkdir -p demo
	$(BIN)/mgcompile check $(SPEC)
	$(BIN)/mgcompile audit $(SPEC) | tee $(DEMO).audit.txt
	$(BIN)/mgcompile draw $(SPEC) -o $(DEMO).svg
	$(BIN)/mgcompile draw $(SPEC) -o $(DEMO).png
	$(BIN)/mgcompile compile $(SPEC) -o $(DEMO).py
	@echo; echo 'Written:'; ls -lh $(DEMO).audit.txt $(DEMO).svg $(DEMO).png $(DEMO).py

# One thread a worker: two workers with two threads each wait for one another on two cores.
test: lint types ## everything that must hold before a merge
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# The tests of the interactive page drive a browser. Debian's is enough; where apt-get is, it is installed from there.
browser: ## install Chromium for the tests of the interactive page, where there is none
	@if command -v chromium chromium-browser google-chrome >/dev/null; then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then \
	  echo 'No Chromium and no apt-get: install Chromium, and put it on PATH as chromium.' >&2; exit 1; \
	fi; \
	as_root=; if [ "$$(id -u)" != 0 ]; then as_root=sudo; fi; \
	$$as_root apt-get update -qq && \
	$$as_root apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core

lint: $(STAMP) ## ruff: rules and format, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## ruff: mend what it can and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP) ## mypy, strict
	$(BIN)/mypy

bench: $(STAMP) ## run every script in benchmarks/ that does not start with _
	for script in benchmarks/[!_]*.py; do $(BIN)/python "$$script"; done

clean: ## remove what was built and cached; the environment stays
	rm -rf build dist demo .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find mgcompile tests benchmarks -type d -name __pycache__ -prune -exec rm -rf {} +
