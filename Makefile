# The commands of this project. `make demo` and `make test` are all that a new user needs.

PYTHON ?= python3
# Options of the bench: --quick, --only graph,backfill, --folder FOLDER (go on where it stopped).
BENCH ?=
# Options of the bars: --quick, --folder FOLDER (go on where it stopped), --again product.
BARS ?=
# Options of drift: --quick, --markets 50, --folder FOLDER (go on where it stopped), --again real.
DRIFT ?=
# Tests at once: one more than the two processors of CI, as those of the UI mostly wait.
WORKERS ?= 3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# uv from the PATH, else the one that this file installs beside the environment.
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)

.PHONY: help demo test fast lint dev bench bars drift clean install compare lock

help:
	@echo "make demo    the whole graph over the sample market, then a forecast table"
	@echo "make dev     Dagster UI and daemon on the same lake, on localhost"
	@echo "make test    all tests          make fast   the quick ones"
	@echo "make lint    ruff, mypy, sqlfluff, hadolint"
	@echo "make compare Prophet and AutoETS too, for 'stock-assets backtest' to compare with"
	@echo "make bench   what runs cost, measured: hours; BENCH=--quick is a small one in minutes"
	@echo "make bars    the forecasts against the bars, into docs/forecasting.md; BARS=--quick in a minute"
	@echo "make drift   how often drift's verdicts are wrong, into docs/drift.md; DRIFT=--quick in minutes"
	@echo "make clean   remove the environment and all that was made (the lake too)"

demo: $(INSTALLED)
	$(BIN)/stock-assets demo

test: $(INSTALLED)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder

fast: $(INSTALLED)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder -m "not slow"

dev: $(INSTALLED)
	$(BIN)/stock-assets dev

bench: $(INSTALLED)
	$(BIN)/python bench/bench.py $(BENCH)

bars: $(INSTALLED)
	$(BIN)/python bench/bars.py $(BARS)

drift: $(INSTALLED)
	$(BIN)/python bench/drift.py $(DRIFT)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/sqlfluff lint dbt
	$(BIN)/hadolint Dockerfile

install: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
	# Compiled once here: where PYTHONDONTWRITEBYTECODE is set every run would compile 7,000 modules.
	$(UV) pip install --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	$(UV) pip install --python $(BIN)/python --no-deps --editable .
	@touch $@

# Prophet and AutoETS beside the rest, for comparisons.
compare: $(INSTALLED)
	$(UV) pip install --python $(BIN)/python --require-hashes --no-deps -r requirements-compare.lock

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/pip install --quiet uv

# An uv found on the PATH needs no rule to make it.
ifneq ($(UV),.uv/bin/uv)
.PHONY: $(UV)
$(UV):
endif

lock:
	$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url \
	  --python-version 3.11 --group dev --custom-compile-command "make lock" \
	  pyproject.toml -o requirements.lock
	$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url \
	  --python-version 3.11 --extra compare --constraint requirements.lock \
	  --custom-compile-command "make lock" pyproject.toml -o requirements-compare.lock

clean:
	rm -rf $(VENV) .uv .pytest_cache .ruff_cache .mypy_cache .hypothesis dbt/target dbt/logs artifacts
	find data -mindepth 1 -maxdepth 1 ! -name inbox -exec rm -rf {} +
