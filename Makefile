# `make demo` and `make test` need only make and Python >= 3.11: each makes the
# environment it runs in, .venv, from the exact versions of constraints.txt.

PROMPT ?= a red apple
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet \
       --constraint constraints.txt

.PHONY: help demo test check lint format clean

help:
	@echo 'make demo PROMPT="a red apple"   draw a picture of the words'
	@echo 'make test                        every check and every test'
	@echo 'make check                       the same without the slow tests'
	@echo 'make format                      lay the code out and repair what can be'
	@echo 'make clean                       remove .venv and what tools left behind'
	@echo 'PYTHON=python3.12 make ...       choose the interpreter of .venv'

# The words reach the shell as they are, quotes and dollars included.
demo: export WORDS := $(value PROMPT)
demo: $(VENV)/core
	@$(BIN)/cm3leon generate --upscale 4 -- "$$WORDS"

test: lint
	$(BIN)/pytest

check: lint
	$(BIN)/pytest -m "not slow"

lint: $(VENV)/dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are newer than what they were made from; `dev` holds all that `core` does.
$(VENV)/core: pyproject.toml constraints.txt | $(VENV)/made
	@echo 'installing the package into $(VENV) ...'
	@$(PIP) --editable '.[upscale]'
	@touch $@

$(VENV)/dev: pyproject.toml constraints.txt | $(VENV)/made
	@echo 'installing the package and the tools for its tests into $(VENV) ...'
	@$(PIP) --editable '.[dev]'
	@touch $(VENV)/core $@

$(VENV)/made:
	@for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	    then echo "making $(VENV) with $$python ..."; \
	        "$$python" -m venv --clear $(VENV) && touch $@; exit; fi; \
	done; \
	echo '$(or $(PYTHON),python3) is not Python >= 3.11; set PYTHON, as in' \
	    '"make demo PYTHON=/path/to/python3.12"' >&2; exit 1
