# Everything a newcomer needs: Python 3.11 or newer and make. Each target makes the environment it needs in .venv.
.DEFAULT_GOAL := help
.NOTPARALLEL:
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# The first Python that is new enough; `make PYTHON=/path/to/python test` chooses another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

INPUT ?=
WORKERS ?= 2
OUT ?= demo-output
SEEDS ?= 100000
ARGS ?=
# Tests mostly wait, for processes and for the times they are about: two for each core, and no machine drowned.
TESTS_AT_ONCE ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$((n < 4 ? 2 * n : 8)))
IMAGE ?= blockyard
TAG ?= dev

.PHONY: help
help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
	@echo
	@echo 'make demo INPUT=volume.tif WORKERS=4 runs the demo on a volume of your own (.npz, .npy, .tif, zarr).'
	@echo 'make test ARGS="tests/core -x" passes ARGS to pytest; ARGS=-n0 runs one test after the other.'

# ----- environments: a stamp each, made again when pyproject.toml changes ---------------------------------------------

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo 'No Python 3.11 or newer found; install one, or run make PYTHON=/path/to/python.' >&2; exit 2; }
	@test ! -e $(VENV) -o -e $(VENV)/.made-by-make || { \
	  echo '$(VENV) is there and is no environment that this makes; move it away, or choose another with VENV=' >&2; exit 2; }
	@mkdir -p $(VENV) && touch $(VENV)/.made-by-make
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo 'Making $(VENV) failed; on Debian and Ubuntu: apt install python3-venv.' >&2; exit 2; }

# pip 25.1 is the first to read dependency groups.
$(VENV)/.pip: | $(VENV)/bin/python
	@$(PIP) install --quiet --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.demo: pyproject.toml $(VENV)/.pip
	@echo 'Installing blockyard and what the demo needs into $(VENV) (once) ...'
	@$(PIP) install --quiet --editable '.[arrays,demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.pip
	@echo 'Installing blockyard and its development tools into $(VENV) (once) ...'
	@$(PIP) install --quiet --editable '.[arrays,demo,scheduler]' --group dev
	@touch $@ $(VENV)/.demo

# ----- using it -------------------------------------------------------------------------------------------------------

.PHONY: demo
demo: $(VENV)/.demo  ## a pipeline of chained tasks on a real volume, checked against the same without blocks
	$(BIN)/python examples/demo/demo.py $(if $(INPUT),--input $(INPUT)) --workers $(WORKERS) --out $(OUT) $(ARGS)

# ----- checking it ----------------------------------------------------------------------------------------------------

.PHONY: test
test: $(VENV)/.dev  ## all tests (ARGS for pytest)
	@# Tests start a thousand processes; where Python may not write what it compiled, each would compile all of it.
	@$(BIN)/python -m compileall -q src services
	$(BIN)/python -m pytest --numprocesses=$(TESTS_AT_ONCE) $(ARGS)

.PHONY: lint
lint: $(VENV)/.dev  ## style, formatting, import contracts, dependencies
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/deptry src services

.PHONY: types
types: $(VENV)/.dev  ## mypy, strict
	$(BIN)/mypy

.PHONY: check
check: lint types test  ## what CI runs: lint, types, then all tests

.PHONY: simulate
simulate: $(VENV)/.dev  ## faulty histories of a whole cluster in virtual time (SEEDS=100000)
	$(BIN)/blockyard simulate --seeds $(SEEDS)

.PHONY: mutants
mutants: $(VENV)/.dev  ## small faults put into plan and core: the tests must catch each (some minutes)
	$(BIN)/python tests/mutants.py $(ARGS)

.PHONY: bench
bench: $(VENV)/.dev  ## blocks a second, start-up, memory (ARGS for the benchmark)
	$(BIN)/python benchmarks/run.py $(ARGS)

.PHONY: bench-eta
bench-eta: $(VENV)/.dev  ## how wrong the time left is that a run shows, on simulated runs (2 minutes)
	$(BIN)/python benchmarks/eta.py $(ARGS)

# ----- deploying it ---------------------------------------------------------------------------------------------------

.PHONY: manifests
manifests: $(VENV)/.dev  ## what is made from the chart: its schema, README and dashboard, k8s/, compose's alerts
	$(BIN)/python helm/generate

.PHONY: images
images:  ## container images of scheduler and worker
	docker build --file services/scheduler/Dockerfile --tag $(IMAGE)-scheduler:$(TAG) .
	docker build --file services/worker/Dockerfile --tag $(IMAGE)-worker:$(TAG) .

.PHONY: up
up:  ## scheduler, workers, Redis, Prometheus and Grafana by docker compose
	docker compose up --build --detach

.PHONY: down
down:  ## end them
	docker compose down

.PHONY: clean
clean:  ## remove the environment that this made and what its tools left; what the demo wrote stays
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .cache
	find src services tests examples benchmarks helm -name __pycache__ -type d -prune -exec rm -rf {} +
	@if [ -e $(VENV)/.made-by-make ]; then echo 'rm -rf $(VENV)'; rm -rf $(VENV); \
	  elif [ -e $(VENV) ]; then echo '$(VENV) stays: this did not make it'; fi
	@if [ -e $(OUT) ]; then echo '$(OUT) stays: it may hold more than the demo wrote; remove it by hand'; fi
