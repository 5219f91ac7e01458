# Everything works in .venv, made from the lock file.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?= ../shared/data
export DATA

.PHONY: setup bench-setup demo audit sbom release-fixture docs-check test test-all test-prometheus prometheus test-browser chromium charts check bench bench-dashboard bench-delay bench-options bench-drift bench-judging bench-gate bench-replay bench-plasticity bench-ids bench-next-item bench-recommend bench-quality bench-restart bench-throughput faults fuzz lock clean soak bench-snapshots bench-publishing bench-freshness bench-growth

KILLS ?= 20
SEED ?= 7
MINUTES ?= 60
INPUTS ?= 1000000
SEEDS ?= 4
OPTION_SEEDS ?= 11 12

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

# Two processes, each with a broker of its own; a file's tests stay together.
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test: setup
	$(PYTEST) -m "not long"

test-all: setup
	$(PYTEST)

# A real Prometheus (Debian's package, installed where it is missing) scrapes a real worker.
test-prometheus: setup prometheus
	$(BIN)/python -m pytest tests/deploy

# The dashboard in a real browser (Debian's Chromium, installed where it is missing); screenshots in build/screenshots.
test-browser: setup chromium
	$(BIN)/python -m pytest tests/browser

# Known vulnerabilities of what the lock file names; asks a live database, from an environment of its own.
audit:
	@test -x build/audit/bin/pip-audit || { $(PYTHON) -m venv build/audit && build/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit; }
	build/audit/bin/pip-audit --strict --require-hashes --disable-pip -r requirements.lock

# The bill of materials of the image, CycloneDX.
sbom: setup
	@mkdir -p build
	$(BIN)/python deploy/sbom.py > build/sbom.json

# A small state as this release leaves it, kept for the tests of all later ones; once for each release, just before it.
release-fixture: setup
	$(BIN)/python tests/fixtures/releases/make.py

# Each line of the README's shell blocks is run; exit codes, keys and metrics in the docs are the code's.
docs-check: setup
	$(BIN)/python -m pytest tests/docs tests/test_readme.py

chromium:
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; }

# The charting library of the dashboard: the parts of Apache ECharts that it uses, in one file.
charts:
	npm install --silent --no-audit --no-fund --prefix build/charts echarts@6.1.0 esbuild@0.28.2
	NODE_PATH=build/charts/node_modules build/charts/node_modules/.bin/esbuild stream_learner/observing/dashboard/charts.entry.js \
	  --bundle --minify --format=esm --legal-comments=none | gzip -9n > stream_learner/observing/dashboard/charts.js.gz

prometheus:
	@command -v prometheus >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus; }

bench: setup
	$(BIN)/python -m benchmarks.datasets --data $(DATA)

# Protocols P1 and P2 with the peers beside: bench-quality [OUT=q.json] [DATA=DIR] [METHODS=a,b]
bench-quality: bench-setup
	$(BIN)/python -m benchmarks.quality --data $(DATA) $(if $(OUT),--out $(OUT)) $(if $(METHODS),--methods $(METHODS))

# Protocol P3, next item: bench-next-item [OUT=n.json] [DATA=DIR] [METHODS=a,b or all]; all takes hours
bench-next-item: setup
	$(BIN)/python -m benchmarks.next_item --events $(DATA)/ader_diginetica/events.parquet $(if $(OUT),--report $(OUT)) $(if $(METHODS),--methods $(METHODS))

# One answer of `recommend` at a million items on one core, brute force in numpy beside it: bench-recommend [OUT=r.json]
bench-recommend: setup
	nice -n 10 $(BIN)/python -m benchmarks.recommend $(if $(OUT),--out $(OUT))

# Learner options and a race of challengers on a shop whose tastes change at once: bench-options [OUT=o.json] [OPTION_SEEDS="11 12"]
bench-options: setup
	$(BIN)/python -m benchmarks.options --seeds $(OPTION_SEEDS) $(if $(OUT),--out $(OUT))

# What each label mode is worth on a shop whose conversions are known: bench-delay [OUT=d.json]
bench-delay: setup
	$(BIN)/python -m benchmarks.delay $(if $(OUT),--out $(OUT))

# False publishing under continuous looks, and what it takes to find a real gain.
bench-gate: setup
	$(BIN)/python -m benchmarks.gate $(if $(OUT),--out $(OUT))

# CPU-seconds per million events from Kafka to learned, stage by stage, the usual ways beside: [QUICK=1] [OUT=t.json]
bench-throughput: bench-setup
	nice -n 10 $(BIN)/python -m benchmarks.throughput $(if $(QUICK),--quick) $(if $(OUT),--out $(OUT))

# From an event's append to a version that has learned from it, published and served: [QUICK=1] [CLIENT=confluent] [OUT=f.json]
bench-freshness: setup
	nice -n 10 $(BIN)/python -m benchmarks.freshness $(if $(QUICK),--quick) $(if $(CLIENT),--client $(CLIENT)) $(if $(OUT),--out $(OUT))

# What an event costs as tables, keys, windows and backlogs grow, and the bytes of an id, a pending example, a replay row.
bench-growth: setup
	nice -n 10 $(BIN)/python -m benchmarks.growth $(if $(QUICK),--quick) $(if $(OUT),--out $(OUT))

# Replay policies against none: a season that comes back, Tmall, the cost of a draw.
bench-replay: setup
	$(BIN)/python -m benchmarks.replay --data $(DATA) --seeds $(SEEDS) $(if $(OUT),--out $(OUT))

# 500 changes of the task: plain fine-tuning against renewals of the network.
bench-plasticity: setup
	$(BIN)/python -m benchmarks.plasticity $(if $(OUT),--out $(OUT))

# Exact and hashed id tables of many sizes; admission and expiry.
bench-ids: setup
	$(BIN)/python -m benchmarks.ids --seeds $(SEEDS) $(if $(OUT),--out $(OUT))

# From SIGKILL to learning again, against the size of an embedding table.
bench-restart: setup
	$(BIN)/python -m benchmarks.restart $(if $(OUT),--out $(OUT))

# Which drifts are found, how soon, at what price in false alarms: [SHOPS=6] [OUT=d.json]; and what judging costs.
bench-drift: setup bench-setup
	nice -n 10 $(BIN)/python -m benchmarks.drift $(if $(OUT),--out $(OUT)) $(if $(SHOPS),--shops $(SHOPS))

bench-judging: setup
	$(BIN)/python -m benchmarks.judging $(if $(OUT),--out $(OUT))

# The share of the worker's CPU time that three open dashboards take, and their bytes; needs Chromium.
bench-dashboard: setup chromium
	$(BIN)/python -m benchmarks.dashboard $(if $(OUT),--out $(OUT))

# The pause, the bytes and the way back of snapshots of 1 GB of tables and slots.
bench-snapshots: setup
	$(BIN)/python -m benchmarks.snapshots

# What publishing every minute costs at 5 M rows, and what following costs a server: [QUICK=1] [OUT=p.json]
bench-publishing: setup
	nice -n 10 $(BIN)/python -m benchmarks.publishing $(if $(QUICK),--quick) $(if $(OUT),--out $(OUT))

# Kills and hurts the worker at every step of its commit protocol, on real Kafka, and compares what comes of it.
faults: setup
	$(BIN)/python -m tests.faults --kills $(KILLS) --seed $(SEED)

# A live worker and its standby under mixed faults for so long; then a replay of all of it.
soak: setup
	$(BIN)/python -m tests.faults.soak --minutes $(MINUTES) --seed $(SEED)

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
