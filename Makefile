# Everything works in .venv, made from the lock file.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?= ../shared/data
export DATA

.PHONY: setup bench-setup demo test test-all check bench bench-snapshots faults fuzz lock clean

KILLS ?= 20
SEED ?= 7
INPUTS ?= 1000000

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; say make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup
	$(BIN)/stream-learner demo

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: setup
	$(BIN)/python -m pytest -m "not long"

test-all: setup
	$(BIN)/python -m pytest

bench: setup
	$(BIN)/python -m benchmarks.datasets --data $(DATA)

# The pause, the bytes and the way back of snapshots of 1 GB of tables and slots.
bench-snapshots: setup
	$(BIN)/python -m benchmarks.snapshots

# Kills the worker at every step of its commit protocol, on real Kafka, and compares what comes of it.
faults: setup
	$(BIN)/python -m tests.faults --kills $(KILLS) --seed $(SEED)

fuzz: setup
	$(BIN)/python -m tests.fuzz --inputs $(INPUTS)

# The peers and the pictures of the benchmarks; nothing else needs them.
bench-setup: $(VENV)/.bench-ready

$(VENV)/.bench-ready: $(VENV)/.ready requirements-bench.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-bench.lock
	@touch $@

lock:
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --group dev --generate-hashes --no-header --no-annotate pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --group bench --constraint requirements.lock --generate-hashes --no-header --no-annotate -o requirements-bench.lock

clean:
	rm -rf build
