# `make demo` and `make test` work as the first command typed in a fresh clone: they need Python 3.11 or newer and
# make, and build .venv themselves (a few minutes; several gigabytes, nearly all of it PyTorch).
.DEFAULT_GOAL := help
SHELL := /bin/sh
BIN := .venv/bin
BUILD_DOCS = NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
PIP := $(BIN)/python -m pip --disable-pip-version-check

# The first of these that really runs and is new enough; set PYTHON=... to choose another.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then echo $$p; break; fi; done)

.PHONY: help demo test test-newest test-oldest kill fuzz stranger lint docs format wheel clean distclean

help:
	@echo "make demo    judge the pictures in examples/pictures with the built-in detector, and draw a sheet of them"
	@echo "make test    run the test suite; DEEPFAKE_DATA=folder adds the tests on real pictures"
	@echo "make test-newest, make test-oldest: all but the slow tests, with the newest or oldest libraries allowed"
	@echo "make kill N=30: kill each command that writes N times at random, and compare what its rerun writes"
	@echo "make fuzz N=10000    change good files N times and decode them; counts what must not happen"
	@echo "make stranger FOLDER=new    type the README in a fresh environment, from installation to a dry run; gigabytes"
	@echo "make lint    ruff, formatting, types, imports and the documentation; changes nothing"
	@echo "make docs    build the documentation into build/site"
	@echo "make format  let ruff fix and format the sources"
	@echo "make wheel   build sdist and wheel into dist/"
	@echo "make clean   remove what builds and checks leave behind; make distclean also removes .venv"

demo: .venv/.core
	@echo "Pictures of this repository: real_* are photographs, fake_* are forgeries (see examples/pictures/README.md)."
	HF_HUB_OFFLINE=1 $(BIN)/python examples/demo.py
	@echo "One forgery in the words of the small explaining detector; they follow the verdict and are no evidence."
	HF_HUB_OFFLINE=1 $(BIN)/deepfake-detectors detect --model m2f2-det-mini --explain --format table \
		examples/pictures/fake_astronaut_self_blended.jpg
	@if [ -z "$$DEEPFAKE_DATA" ]; then \
		echo "Set DEEPFAKE_DATA to the folder that holds demo_pictures/ and ddvqa/ to see generated pictures and more faces."; \
	fi

test: .venv/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Each builds an environment of its own; remove the folder to build it anew.
test-newest: .venv-newest/.ready
	.venv-newest/bin/python -m pytest -n 2 --dist loadfile -m "not slow"

test-oldest: .venv-oldest/.ready
	.venv-oldest/bin/python -m pytest -n 2 --dist loadfile -m "not slow"

kill: N ?= 30
kill: .venv/.dev
	KILLS=$(N) $(BIN)/python -m pytest tests/kill -q

fuzz: N ?= 2000
fuzz: .venv/.dev
	cd tests && HF_HUB_OFFLINE=1 "$(CURDIR)/$(BIN)/python" -m fuzz.driver $(N)

stranger:
	$(PYTHON) tests/packaging/strangers_path.py $(FOLDER)

lint: .venv/.dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python .ci/check_types.py
	cd build/typing && "$(CURDIR)/$(BIN)/lint-imports" --no-cache ../../pyproject.toml
	$(BUILD_DOCS)

docs: .venv/.dev
	$(BUILD_DOCS)

format: .venv/.dev
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

wheel: .venv/.dev
	$(BIN)/python -m build --no-isolation

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv .venv-newest .venv-oldest

# Stops with a message where no Python is new enough.
define new_environment
	@if [ -z "$(PYTHON)" ]; then \
		echo "No Python 3.11 or newer found on PATH. Install it, or name it: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	fi
	$(PYTHON) -m venv $(1)
endef

$(BIN)/python:
	$(call new_environment,.venv)

# Both installs are editable, so one never hides the sources from the other. The second holds the first.
.venv/.core: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

.venv/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet -c constraints.txt -e ".[dev]"
	@touch .venv/.core $@

.venv-newest/.ready: pyproject.toml
	$(call new_environment,.venv-newest)
	.venv-newest/bin/python -m pip --disable-pip-version-check install --quiet --upgrade --upgrade-strategy eager -e ".[test]"
	@touch $@

.venv-oldest/.ready: pyproject.toml constraints-oldest.txt
	$(call new_environment,.venv-oldest)
	.venv-oldest/bin/python -m pip --disable-pip-version-check install --quiet -c constraints-oldest.txt -e ".[test]"
	@touch $@
