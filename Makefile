# `make demo` and `make test` set everything up in .venv by themselves.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
JOBS ?= 2

.PHONY: demo test test-long lint setup setup-dev clean

demo: $(VENV)/.installed
	$(BIN)/evaluate

test: lint
	$(BIN)/pytest -n $(JOBS) -m "not long and not gpu and not alone"
	$(BIN)/pytest -m "alone and not long and not gpu"

test-long: setup-dev
	$(BIN)/pytest -n $(JOBS) --timeout 3600 -m "not alone"
	$(BIN)/pytest --timeout 3600 -m alone

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(VENV)/.installed
setup-dev: $(VENV)/.installed-dev tests/node/node_modules/.installed

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "python3 -m venv failed; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 2; }

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.installed

# What tests take from npm; without npm those tests are skipped and say so.
tests/node/node_modules/.installed: tests/node/package-lock.json
	@mkdir -p $(@D)
	if command -v npm >/dev/null; then npm ci --silent --no-audit --no-fund --prefix tests/node; fi
	@mkdir -p $(@D) && touch $@

clean:
	rm -rf $(VENV) tests/node/node_modules build *.egg-info .mypy_cache .pytest_cache .ruff_cache
