# Two commands are enough: `make run` and `make test`. Both set everything up first, in .venv, once.

TORCH := 2.13.0
VENV := .venv
STAMP := $(VENV)/.installed
BIN := $(VENV)/bin
# Any Python from 3.11 to 3.13; choose another one with: make setup PYTHON=/path/to/python
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name) 2>/dev/null)))
ARGS ?=
# Test files at once; what they share is a file's own business
JOBS ?= 2

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup run test test-cluster lint check docs wheel test-wheel test-docs study-improvement study-faults study-space study-halving study-sweep study-calibration study-grokking study-meta-alignment study-recursion study-search study-controller study-samplers clean distclean

help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo '  make run ARGS="experiment=tiny seed=3"     any override of: $(BIN)/selfimprove run --help'

setup: $(STAMP) ## Install into .venv; does nothing when it is up to date

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: no Python found; install Python 3.11, 3.12 or 3.13" >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "make: $(PYTHON) is not Python 3.11 to 3.13; choose one: make setup PYTHON=..." >&2; exit 2; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV) || \
		{ echo "make: $(PYTHON) cannot make a virtual environment; install its venv module" >&2; exit 2; }
	@echo "Installing into $(VENV): 2 to 5 minutes, once."
	$(BIN)/python -m pip install --quiet -c constraints.txt "torch==$(TORCH)"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $@

run: setup ## Run the default experiment, a few minutes on two cores (ARGS="key=value ...")
	$(BIN)/selfimprove run $(ARGS)

test: setup ## All tests but test-cluster's and test-docs' (ARGS="-k name ...")
	$(BIN)/python -m pytest --numprocesses=$(JOBS) --dist=loadfile --no-loadscope-reorder $(ARGS)

test-cluster: setup ## Runs on a real Slurm and a real Ray of this machine; killed jobs, too (Debian, as root: 15 minutes)
	@PATH="$$PATH:/usr/sbin" && command -v slurmctld >/dev/null || \
		{ apt-get update && apt-get install --yes --no-install-recommends slurmctld slurmd slurm-client munge; } || \
		{ echo "make: no Slurm; install slurmctld, slurmd, slurm-client and munge" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[slurm,ray]"
	SELFIMPROVE_TEST_CLUSTER=1 $(BIN)/python -m pytest -n0 -m cluster tests/executors $(ARGS)

lint: setup ## ruff and mypy
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

check: lint test ## Everything that CI checks

docs: setup ## The documentation as a site of files in site/, warnings as errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "Open site/index.html"

wheel: setup ## A wheel in dist/
	rm -rf dist
	$(BIN)/python -m hatchling build --target wheel --directory dist

test-wheel: wheel ## Install the wheel into an empty environment and run it from an empty folder: minutes, needs an index
	$(BIN)/python tests/packaging/install_wheel.py dist/*.whl $(TORCH)

test-docs: setup ## Every command of README and docs, as a new user runs it on a clone: half an hour, needs an index
	SELFIMPROVE_TEST_DOCS=1 $(BIN)/python -m pytest -n0 -m docs tests/docs $(ARGS)

study-improvement: setup ## Does the loop improve its successor? Five root seeds and the random baseline
	$(BIN)/selfimprove study improvement $(ARGS)

study-faults: setup ## Kill and resume 200 times; each lineage must equal the uninterrupted one
	$(BIN)/selfimprove study faults $(ARGS)

study-halving: setup ## What successive halving saves and misses, over 40 generations by default
	$(BIN)/selfimprove study halving $(ARGS)

study-space: setup ## 5,000 random genomes: paths agree, quotes are counted, edits lead back
	$(BIN)/selfimprove study space $(ARGS)

study-sweep: setup ## Tune the seed genome's learning rate and batch
	$(BIN)/selfimprove study sweep $(ARGS)

study-calibration: setup ## Is each level of each task family learnable? (ARGS="--families recall --seeds 2 ...")
	$(BIN)/selfimprove study calibration $(ARGS)

study-grokking: setup ## Modular addition after Nanda et al. 2023, on a CPU at p = 59 (ARGS="--device cuda": p = 113)
	$(BIN)/selfimprove study grokking $(ARGS)

study-meta-alignment: setup ## Does selection erode the constraint, does the gate stop it? (ARGS="--processes 16 ...", then "--pressure")
	$(BIN)/selfimprove study meta-alignment $(ARGS)

study-recursion: setup ## Does a controller built from a promoted genome propose better? Seven arms, twelve root seeds
	$(BIN)/selfimprove study recursion climb_seeds=4 $(ARGS)  # as the committed runs: their levels could rise

study-controller: setup ## Meta-train the forecaster that ControllerSampler comes with, on synthetic objectives
	$(BIN)/selfimprove study controller $(ARGS)

study-search: setup ## Which controller finds better designs for the same charged compute? Ten controllers, ten root seeds
	$(BIN)/selfimprove study search $(ARGS)

study-samplers: setup ## The controller as an Optuna sampler beside others (ARGS="--seeds 6 --samplers random tpe controller ...")
	$(BIN)/selfimprove study samplers $(ARGS)

clean: ## Remove caches and build output; runs and .venv stay
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv
	rm -rf $(VENV)
