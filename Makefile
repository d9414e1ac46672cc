# `make` lists what can be made. Everything lives in .venv; nothing outside this folder is touched.
PYTHON ?= python3
# Where pip finds torch builds without CUDA, for example; empty takes the usual ones.
TORCH_INDEX ?=

BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	-c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all test-cluster references check bench reproduce compare-operators docs clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 20

install: $(STAMP) ## Install cultivar and its development tools into .venv

demo: $(STAMP) ## Breed a tiny CartPole network out of four teachers
	$(BIN)/cultivar evolve cartpole

test: $(STAMP) ## Run all tests but the slow ones
	$(BIN)/python -m pytest

test-all: $(STAMP) ## Run all tests, the slow ones too
	$(BIN)/python -m pytest -m "not gpu and not cluster"

test-cluster: $(STAMP) ## Run the tests on several hosts made of namespaces, as root
	$(BIN)/python -m pytest tests/cluster -m cluster

references: $(STAMP) ## Install other projects' operators, which some tests compare ours with
	$(PIP_INSTALL) --no-deps mergekit deap pymoo moocore POT

check: $(STAMP) ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP) ## Measure one generation
	$(BIN)/python scripts/benchmark_generation.py
	$(BIN)/python scripts/benchmark_operators.py

reproduce: $(STAMP) ## Measure the tables of the documented pipeline again
	$(BIN)/python scripts/reproduce_pipeline.py

compare-operators: $(STAMP) ## Compare all crossover operators: 20 minutes of two cores
	$(PIP_INSTALL) -e ".[box2d,plots]"
	$(BIN)/python scripts/compare_operators.py --page docs/operator-comparison.md

docs: $(STAMP) ## Write the pages that are generated from the code
	$(BIN)/python scripts/document_settings.py
	$(BIN)/python scripts/document_flags.py
	$(BIN)/python scripts/document_operators.py

clean: ## Remove the environment and all caches, but no runs
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml setup.py constraints.txt
	@echo "installing into .venv, which takes some minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP_INSTALL) -e ".[dev]"
	touch $@
