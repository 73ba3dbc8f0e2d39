"""What a process pays before it works: no heavy package is loaded by one that does not use it."""

from __future__ import annotations

import functools
import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

# Seconds of import each, and used by some runs only.
ONE_RUN_S_OWN = (
    "evidently", "mlflow", "catboost", "matplotlib", "scipy", "sklearn", "plotly", "arch",
    "prophet", "statsforecast",
)  # fmt: skip
CALENDARS = ("exchange_calendars", "pandas")
DBT = ("dbt.cli", "dbt.adapters.duckdb")


@functools.cache
def loaded_by(code: str) -> set[str]:
    """The modules that a process has loaded after `code`."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=120
    )
    return set(json.loads(done.stdout))


DEFINITIONS = """
from stock_assets.graph import build_definitions
from stock_assets.settings import load_settings
load_settings()
build_definitions(load_settings()).resolve_implicit_global_asset_job_def()
"""


@pytest.fixture(scope="module")
def by_definitions() -> set[str]:
    # The calendars' files and dbt's manifest are there from the first process on.
    loaded_by(f"{DEFINITIONS}# first")
    return loaded_by(DEFINITIONS)


@pytest.mark.parametrize("name", [*ONE_RUN_S_OWN, *CALENDARS, *DBT])
def test_definitions_load_no_package_of_a_step(by_definitions: set[str], name: str) -> None:
    assert name not in by_definitions


@pytest.mark.parametrize("name", ["dagster", "dbt", *ONE_RUN_S_OWN, *CALENDARS])
def test_light_commands_load_neither_dagster_nor_a_model(name: str) -> None:
    assert name not in loaded_by("import stock_assets.cli")
