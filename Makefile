# Every target makes its own environment in .venv; versions are pinned in constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
REPORT := $(VENV)/installed.json
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt --report $(REPORT)
# What differs is uninstalled: otherwise the next call would find it installed and not compare it.
REFUSED := $(VENV)/refused.txt
CHECK_HASHES := $(BIN)/python pins.py check $(REPORT) >$(REFUSED) \
	|| { $(BIN)/python -m pip uninstall --quiet --yes --requirement $(REFUSED); exit 1; }
export PYTHONUNBUFFERED := 1
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: run run-all test test-fast lint ui bench prove world weights chromium services clean

run: $(VENV)/.run
	$(BIN)/hoi run

run-all: $(VENV)/.run
	$(BIN)/hoi run --all

ui: $(VENV)/.run
	$(BIN)/hoi ui

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks

# Tries to break what the platform promises; one table.
prove: $(VENV)/.test
	$(BIN)/python -m proofs

# For two cores: three processes, a file each at a time, as one often waits for a browser or a daemon.
# Torch would otherwise start two threads in each.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.test chromium
	$(PYTEST)

# The inner loop: what takes no more than a few seconds each.
test-fast: $(VENV)/.test
	$(PYTEST) -m "not slow"

lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Renders the stored pool of the tiny world anew, bit-equal on the same versions.
world: $(VENV)/.test
	$(BIN)/python -m hoi_assets.tinyworld.scenes.pool --out data/pool

# Renders the pretraining world and trains every tiny model; interrupted, it resumes.
# glibc otherwise gives every large tensor back to the kernel: a third of a CPU training's time.
weights: export MALLOC_MMAP_THRESHOLD_ := 2147483648
weights: export MALLOC_TRIM_THRESHOLD_ := 17179869184
weights: $(VENV)/.test
	$(BIN)/python -m hoi_assets.tinyworld.scenes.pool --out data/world --split pretrain --count 3000 --workers 2
	$(BIN)/python -m hoi_assets.tinyworld.scenes.pool --out data/world --split examiner --count 750 --workers 2
	$(BIN)/python -m hoi_assets.tinyworld.scenes.pool --out data/world --split twins --count 6000 --workers 2
	$(BIN)/python -m hoi_assets.tinyworld.scenes.pool --out data/world/interactions --split interactions --count 2750 --workers 2
	$(BIN)/python -m hoi_assets.tinyworld.scenes.pool --out data/world/interactions --split interactions_examiner --count 1750 --workers 2
	$(BIN)/python -m hoi_assets.tinyworld.weights train --world data/world --interactions data/world/interactions

# The browser tests drive Chromium; Debian's package where there is none.
chromium: $(VENV)/.test
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	     && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
	|| $(BIN)/playwright install chromium \
	|| echo "no Chromium: the browser tests will say so and be skipped"

# What the tests of several machines need: Ray, an S3 server and its client, and Debian's Postgres. Without them they say so and are skipped.
services: $(VENV)/.services
	@ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	     && apt-get update -qq && apt-get install -y -qq postgresql >/dev/null; } \
	|| echo "no Postgres: its tests will say so and be skipped"

clean:
	rm -rf data/out $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt hashes.txt | $(VENV)/bin/python
	$(INSTALL) --editable .
	$(CHECK_HASHES)
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt hashes.txt | $(VENV)/bin/python
	$(INSTALL) --editable '.[dev,scenes]'
	$(CHECK_HASHES)
	touch $@ $(VENV)/.run

$(VENV)/.services: $(VENV)/.test
	$(INSTALL) --editable '.[dev,scenes,ray,postgres,s3,services]'
	$(CHECK_HASHES)
	touch $@
