# Everything a newcomer or a machine needs, each target in one line of `make help`.
# The environment is made once in .venv and again when pyproject.toml or constraints.txt change.

SHELL := /bin/bash
VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.made
TORCH ?= torch==2.13.0

# Otherwise each of the hundreds of processes that the tests start would compile hangtag again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test coverage data lint types format docs docs-check lowest soak bench bench-peers clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) data  ## environment, data, train, evaluate, predict, pictures, report
	@$(PYTHON) scripts/demo.py

test: $(STAMP) data  ## environment, data, whole test suite
	$(PYTHON) -m pytest --numprocesses=auto --maxprocesses=4

coverage: $(STAMP) data  ## the test suite with branch coverage: a summary here, pages in htmlcov/
	$(PYTHON) -m pytest --cov --cov-report=term --cov-report=html
	@rm -f .coverage.*

data: $(STAMP)  ## get Fashion-MNIST: its Debian package, or a download
	@$(PYTHON) scripts/get_data.py

lint: $(STAMP)  ## style
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types: $(STAMP)  ## strict types
	$(PYTHON) -m mypy

format: $(STAMP)  ## mend the style
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

docs: $(STAMP) data  ## run the tutorials' code, put its real output and pictures into docs/
	$(PYTHON) scripts/build_docs.py

lowest: data  ## the test suite with the lowest versions that pyproject.toml allows, in .venv-lowest
	scripts/lowest.sh .venv-lowest "$(TORCH)"

soak: $(STAMP) data  ## kills, full disks, damaged caches, model files and layouts at random (over an hour)
	$(PYTHON) scripts/soak.py
	$(PYTHON) scripts/soak_disks.py
	$(PYTHON) scripts/soak_layouts.py
	$(PYTHON) scripts/mutated_models.py
	$(PYTHON) scripts/soak_serving.py
	$(PYTHON) scripts/soak_ray.py
	$(PYTHON) scripts/soak_bulk.py
	$(PYTHON) scripts/soak_bulk.py --store --images 1200

bench: $(STAMP) data  ## measure everything the README claims (hours with every peer)
	$(PYTHON) -m benchmarks.run_all

bench-peers: $(STAMP)  ## make the environments of the peers measured beside us (about 6 GB)
	TORCH="$(TORCH)" scripts/peers.sh

clean:  ## remove the environment and caches; runs stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache htmlcov .coverage .coverage.*

$(STAMP): pyproject.toml constraints.txt scripts/environment.sh
	@scripts/environment.sh $(VENV) "$(TORCH)"
	@touch $(STAMP)
