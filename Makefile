# Everything runs in .venv, which `make env` fills; the other targets call it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(CURDIR)/.venv/bin
STAMP := .venv/.installed-$(shell cksum < pyproject.toml | cut -d' ' -f1)

# One thread is as fast for small models, and training repeats bit for bit.
export OMP_NUM_THREADS ?= 1

# The Dagster instance lies in the storage root, so that history and tables go together.
dagster_home = $(if $(findstring ://,$(MKAILIN_STORAGE)),$(CURDIR)/data/dagster,$(abspath $(MKAILIN_STORAGE))/dagster)
with_home = mkdir -p "$(dagster_home)" && ln -sf "$(CURDIR)/dagster.yaml" "$(dagster_home)/dagster.yaml" && DAGSTER_HOME="$(dagster_home)"

.PHONY: help env demo distill dev test lint clean
help: ## show the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

env: $(STAMP) ## make .venv with everything the other targets need
$(STAMP):
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))" || { echo "m-KAILIN needs Python 3.11 or 3.12: set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@rm -f .venv/.installed-* && touch $@

demo: export MKAILIN_NLM_URL = sample
demo: export MKAILIN_MESH_YEAR = 2026
demo: export MKAILIN_PUBMED_FILES =
demo: export MKAILIN_BRANCHES ?= C04 C10 C14 D12 F03
demo: export MKAILIN_STORAGE ?= $(CURDIR)/data/demo
demo: env ## the whole lineage over the sample that ships with the project
	@$(with_home) $(BIN)/python -m mkailin_assets.distill

distill: export MKAILIN_NLM_URL ?= nlm
distill: export MKAILIN_STORAGE ?= $(CURDIR)/data/pubmed
distill: env ## the whole lineage over your PubMed files and MeSH branches
	@$(with_home) $(BIN)/python -m mkailin_assets.distill

dev: export MKAILIN_STORAGE ?= $(CURDIR)/data/$(if $(filter-out sample,$(MKAILIN_NLM_URL)),pubmed,demo)
dev: export MKAILIN_NLM_URL ?= sample
dev: env ## the Dagster UI with its daemon on http://127.0.0.1:3000
	@$(with_home) $(BIN)/python -m mkailin_assets.distill --register-files
	@export PATH="$(BIN):$$PATH"; $(with_home) exec dagster dev -w workspace.yaml -h 127.0.0.1 -p $(or $(PORT),3000)

test: env ## the whole suite
	$(BIN)/python -m pytest

lint: env ## style and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

clean: ## remove the environment; data/ stays
	rm -rf .venv
