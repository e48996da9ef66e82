# `make demo` and `make test` set everything up in .venv by themselves.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
JOBS ?= 2
WALKS = .walks

.PHONY: demo test test-long walks walk-newest walk-lowest lint setup setup-dev clean

demo: $(VENV)/.installed
	$(BIN)/evaluate

test: lint
	$(BIN)/pytest -n $(JOBS) -m "not long and not gpu and not alone and not walk"
	$(BIN)/pytest -m "alone and not long and not gpu"

# Whole paths as users take them, in environments of the wheel alone: with the newest versions that pip finds, and
# with the lowest of pyproject.toml.
walks: setup-dev
	$(MAKE) --no-print-directory -j$(JOBS) --output-sync=target walk-newest walk-lowest

walk-newest: $(WALKS)/newest/.installed
	QINCODEC_WALK_BIN=$(<D)/bin $(BIN)/pytest --timeout 3600 -m walk tests/walks

# The commands of the pages are the same with any versions.
walk-lowest: $(WALKS)/lowest/.installed
	PIP_CONSTRAINT=$(abspath $(WALKS)/lowest.txt) QINCODEC_WALK_BIN=$(<D)/bin \
	  $(BIN)/pytest --timeout 3600 -m walk tests/walks --ignore tests/walks/test_pages.py

test-long: setup-dev
	$(BIN)/pytest -n $(JOBS) --timeout 3600 -m "not alone and not walk"
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

# Made anew each time, for what users get is what is in it; setuptools adds to a `build` that is there.
.PHONY: $(WALKS)/wheel
$(WALKS)/wheel:
	rm -rf build $@
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir $@ .
	$(PYTHON) tests/walks/lowest.py pyproject.toml >$(WALKS)/lowest.txt

$(WALKS)/newest/.installed: $(WALKS)/wheel
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --only-binary :all: $(WALKS)/wheel/*.whl
	touch $@

$(WALKS)/lowest/.installed: $(WALKS)/wheel
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --only-binary :all: --constraint $(WALKS)/lowest.txt $(WALKS)/wheel/*.whl
	touch $@

# What tests take from npm; without npm those tests are skipped and say so.
tests/node/node_modules/.installed: tests/node/package-lock.json
	@mkdir -p $(@D)
	if command -v npm >/dev/null; then npm ci --silent --no-audit --no-fund --prefix tests/node; fi
	@mkdir -p $(@D) && touch $@

clean:
	rm -rf $(VENV) $(WALKS) tests/node/node_modules build *.egg-info .mypy_cache .pytest_cache .ruff_cache
