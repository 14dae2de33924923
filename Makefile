# Each target does all of its own set-up; stamps in .venv make a second run start at once.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
PY := $(VENV)/bin/python
# The first interpreter that runs and that the pins support.
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.13 python3.14; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null && { echo $$p; break; }; done)
# Another source for torch, such as https://download.pytorch.org/whl/cpu (studio.sh chooses one by the graphics card).
TORCH_INDEX ?=
PIP := $(PY) -m pip install --disable-pip-version-check --progress-bar off --quiet
# Arguments for the program that a target starts: make studio ARGS="--port 7861"
ARGS ?=
JOBS ?= 2

USER_STAMP := $(VENV)/.installed-user
DEV_STAMP := $(VENV)/.installed-dev

.PHONY: help studio test setup lint format bench toybox toybox-all third-party screenshots docs

help:  ## list the targets
	@sed -nE 's/^([a-z-]+):.*##(.*)/\1|\2/p' $(MAKEFILE_LIST) | sort | awk -F'|' '{printf "make %-12s%s\n", $$1, $$2}'

$(PY):
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12, 3.13 or 3.14 is needed and none was found." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(USER_STAMP): requirements.txt | $(PY)
	@echo "Installing what the studio needs (once) ..."
	@$(if $(TORCH_INDEX),$(PIP) --index-url $(TORCH_INDEX) "$$(grep -E '^torch==' requirements.txt)")
	@$(PIP) -r requirements.txt
	@echo "$(TORCH_INDEX)" >$@

$(DEV_STAMP): requirements-dev.txt $(USER_STAMP)
	@echo "Installing what tests and linters need (once) ..."
	@$(PIP) -r requirements-dev.txt
	@touch $@

studio: $(USER_STAMP)  ## install what is missing and open the studio in a browser
	$(PY) app.py $(ARGS)

test: $(DEV_STAMP)  ## install what is missing and run the tests
	OMP_NUM_THREADS=1 $(PY) -m pytest -q --numprocesses $(JOBS) --dist loadfile --durations 10 $(ARGS)

setup: $(DEV_STAMP)  ## install everything, run nothing

lint: $(DEV_STAMP)  ## style, types, shell scripts and the Dockerfile
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy studio pipelines app.py
	if command -v $(VENV)/bin/shellcheck >/dev/null; then $(VENV)/bin/shellcheck studio.sh .ci/run; fi
	$(VENV)/bin/hadolint Dockerfile

format: $(DEV_STAMP)  ## put imports and layout in order
	$(PY) -m ruff check --select I --fix .
	$(PY) -m ruff format .

bench: $(DEV_STAMP)  ## run one benchmark: make bench NAME=speed ARGS=--quick
	@test -n "$(NAME)" || { echo "Which one? make bench NAME=..., one of:" $(patsubst bench/%.py,%,$(filter-out bench/__init__.py bench/report.py,$(wildcard bench/*.py))) >&2; exit 2; }
	$(PY) -m bench.$(NAME) $(ARGS)

toybox: $(USER_STAMP)  ## train the Toybox base on from where it is, and write it to assets
	$(PY) -m studio.toybox all $(ARGS)

toybox-all: $(USER_STAMP)  ## remake the Toybox base from nothing, in a folder of its own
	$(PY) -m studio.toybox all --folder data/toybox-again $(ARGS)

third-party: $(DEV_STAMP)  ## remake THIRD_PARTY.md from the pins
	$(PY) -m tools.third_party

screenshots: $(DEV_STAMP)  ## remake the pictures of the page in docs/images
	$(PY) -m tools.screenshots

docs: screenshots  ## remake every picture in the documentation
	$(PY) -m studio.toybox world docs/images/world.png
	$(PY) -m studio.toybox sheet docs/images/toybox.png --shipped
