# `make demo` and `make test` set everything up in .venv by themselves.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# One more than the two cores of a small machine: tests that wait for a browser or a server leave theirs idle.
JOBS ?= 3
# Installing without bytecode is quick only if programs may keep what they compile.
unexport PYTHONDONTWRITEBYTECODE
WALKS = .walks
# Each process begins with a half of the files, so that fixtures of modules are made once, and helps when it is done.
SHARED = -n $(JOBS) --dist worksteal

.PHONY: demo docs test test-shared test-slow test-long test-webmushra walks walk-environments walk-newest walk-lowest lint style types release setup setup-dev clean

demo: $(VENV)/.installed
	$(BIN)/evaluate

# The type checker has one process: tests keep the other cores busy.
test: style
	$(MAKE) --no-print-directory -j2 types test-shared

# The site while its pages are edited; a test builds it, strictly.
docs: setup-dev
	$(BIN)/mkdocs serve

test-shared: setup-dev
	$(BIN)/pytest $(SHARED) --durations=10 -m "not slow and not long and not gpu and not walk"

# The slowest tests, which take a third of the time of all: CI runs them after `make test`. Only their files are read.
test-slow: setup-dev
	$(BIN)/pytest $(SHARED) --durations=10 -m "slow and not long and not gpu and not walk" \
	  $$(grep -rl --include='test_*.py' 'mark\.slow' tests)

# Whole paths as users take them, in environments of the wheel alone: with the newest versions that pip finds, and
# with the lowest of pyproject.toml.
walks: setup-dev
	$(MAKE) --no-print-directory -j$(JOBS) --output-sync=target walk-newest walk-lowest

walk-environments: $(WALKS)/newest/.installed $(WALKS)/lowest/.installed

walk-newest: $(WALKS)/newest/.installed
	QINCODEC_WALK_BIN=$(<D)/bin $(WALK) $(INSTALLING)
	QINCODEC_WALK_BIN=$(<D)/bin $(WALK) -n $(JOBS) tests/walks $(INSTALLING:%=--ignore %)

# The commands of the pages are the same with any versions; the whole listening test is walked on both data bases with
# the newest versions, on PostgreSQL and in Firefox with the lowest, and on SQLite by the experimenter's walk.
walk-lowest: $(WALKS)/lowest/.installed
	PIP_CONSTRAINT=$(abspath $(WALKS)/lowest.txt) QINCODEC_WALK_BIN=$(<D)/bin \
	  $(WALK) tests/walks --ignore tests/walks/test_pages.py -k 'not sqlite'

WALK = $(BIN)/pytest --timeout 3600 -m walk
# They install plug-ins, of which every command asks: no other walk may be in the environment.
INSTALLING = tests/walks/test_plugins.py tests/walks/test_training.py

test-long: setup-dev
	$(BIN)/pytest $(SHARED) --timeout 3600 -m "not alone and not walk"
	$(BIN)/pytest --timeout 3600 -m alone

# webMUSHRA's licence forbids to ship it: PATH is a checkout of yours.
test-webmushra: setup-dev
	@test -f "$(WEBMUSHRA)/index.html" || \
	  { echo "give a checkout of webMUSHRA: make test-webmushra WEBMUSHRA=PATH" >&2; exit 2; }
	WEBMUSHRA="$(abspath $(WEBMUSHRA))" $(BIN)/pytest -m webmushra tests/webmushra

lint: style types

style: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/python tools/language.py
	$(BIN)/hadolint Dockerfile docs/hosting/Dockerfile
	$(SCHEMA)citation-file-format CITATION.cff
	$(SCHEMA)compose-spec docs/hosting/compose.yaml
	$(SCHEMA)dependabot .github/dependabot.yml
	$(SCHEMA)github-workflows .github/workflows/*.yml
	$(SCHEMA)github-issue-forms $(filter-out %/config.yml, $(wildcard .github/ISSUE_TEMPLATE/*.yml))

SCHEMA = $(BIN)/check-jsonschema --quiet --builtin-schema vendor.

types: setup-dev
	$(BIN)/mypy

setup: $(VENV)/.installed
setup-dev: $(VENV)/.installed-dev tests/node/node_modules/.installed

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "python3 -m venv failed; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 2; }

# Python compiles what is imported; to compile all at once takes most of a minute.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --no-compile --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --no-compile --editable '.[dev]'
	touch $@ $(VENV)/.installed

# Made anew each time, for what users get is what is in it; setuptools adds to a `build` that is there, and reads and
# writes the folder that the checkout's own installation does.
.PHONY: $(WALKS)/wheel
$(WALKS)/wheel: | $(VENV)/.installed
	rm -rf build $@
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir $@ .
	$(PYTHON) tests/walks/lowest.py pyproject.toml >$(WALKS)/lowest.txt

INSTALL = pip install --quiet --only-binary :all: --no-compile

$(WALKS)/newest/.installed: $(WALKS)/wheel
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/$(INSTALL) $(WALKS)/wheel/*.whl
	touch $@

$(WALKS)/lowest/.installed: $(WALKS)/wheel
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/$(INSTALL) --constraint $(WALKS)/lowest.txt $(WALKS)/wheel/*.whl
	touch $@

# Version, changelog and citation agree, with the tag where one is given: `make release TAG=v0.2.0`.
release: setup-dev
	@mkdir -p dist
	$(BIN)/python tools/release.py $(TAG) >dist/notes.md
	rm -rf build dist/*.whl dist/*.tar.gz
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .
	git archive --format=tar.gz --prefix=qincodec/ --output=dist/qincodec.tar.gz HEAD

# What tests take from npm; without npm those tests are skipped and say so.
tests/node/node_modules/.installed: tests/node/package-lock.json
	@mkdir -p $(@D)
	if command -v npm >/dev/null; then npm ci --silent --no-audit --no-fund --prefix tests/node; fi
	@mkdir -p $(@D) && touch $@

clean:
	rm -rf $(VENV) $(WALKS) .site tests/node/node_modules build *.egg-info .mypy_cache .pytest_cache .ruff_cache
