"""dbt within this process does what the dbt command does, and ends when it is told to."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest

from stock_assets.errors import LakeError
from stock_assets.lake.dbt_command import build
from stock_assets.lake.dbt_project import BUILD_ARGUMENTS, DBT_PROJECT_DIR, dbt_executable
from stock_assets.lake.dbt_request import REQUEST_VARIABLE, DbtRequest, build_request, requested
from stock_assets.slices import Slice

from .conftest import CELLS_FROM, LAST, Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import polars as pl

pytestmark = pytest.mark.slow

TABLES = ("bars", "features")

BROKEN = "select error('a broken model') as day, 'A' as ticker"
ENDLESS = (
    "{{ config(materialized='table') }}"
    " select count(*) as n from range(1000000000) as a, range(1000000000) as b"
)


@pytest.fixture(scope="module")
def names(whole: Warehouse) -> tuple[str, ...]:
    """All models and tests that a run selects."""
    found = json.loads((whole.project / "target" / "manifest.json").read_text())["nodes"].values()
    return tuple(
        node["name"] for node in found if node["resource_type"] == "test" or node["name"] in TABLES
    )


@pytest.fixture(scope="module")
def bad_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with a model that fails, a test that fails, and a query without end."""
    project = tmp_path_factory.mktemp("bad") / "dbt"
    shutil.copytree(DBT_PROJECT_DIR, project, ignore=shutil.ignore_patterns("target", "logs"))
    (project / "models" / "broken.sql").write_text(BROKEN)
    (project / "models" / "endless.sql").write_text(ENDLESS)
    (project / "models" / "broken.yml").write_text(
        "models: [{name: broken, config: {materialized: table}}]\n"
    )
    (project / "tests" / "no_bar_at_all.sql").write_text("select day from {{ ref('bars') }}")
    return project


def request_of(warehouse: Warehouse, first: object = None) -> DbtRequest:
    area = Slice(first, LAST, warehouse.tickers)
    return build_request(warehouse.settings, area, run_id="a-run")


@pytest.fixture
def new(new_warehouse, market: pl.DataFrame) -> Callable[[], Warehouse]:
    def make() -> Warehouse:
        warehouse = new_warehouse()
        warehouse.put(market)
        return warehouse

    return make


def test_within_the_process_equals_the_command(new, names: tuple[str, ...]) -> None:
    ours, theirs = new(), new()
    with requested(request_of(theirs)) as file:
        target = file.parent / "target"
        target.mkdir()
        shutil.copy(DBT_PROJECT_DIR / "target" / "partial_parse.msgpack", target)
        folders = {"--project-dir": DBT_PROJECT_DIR, "--profiles-dir": DBT_PROJECT_DIR}
        folders |= {"--target-path": target, "--log-path": target}
        options = [str(part) for pair in folders.items() for part in pair]
        environment = {**os.environ, REQUEST_VARIABLE: str(file)}
        command = [str(dbt_executable()), *BUILD_ARGUMENTS, *options]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        told = json.loads((target / "run_results.json").read_text())["results"]

    outcome = build(request_of(ours), names)

    assert outcome.error is None
    assert {item.unique_id: (item.status, item.failures) for item in outcome.results} == {
        item["unique_id"]: (item["status"], item["failures"]) for item in told
    }
    assert len(outcome.results) == len(names)
    for name in TABLES:
        assert ours.table(name).height
        assert ours.table(name).equals(theirs.table(name))


def test_only_what_is_named_is_built_and_tested(new) -> None:
    warehouse = new()
    outcome = build(request_of(warehouse), ["bars", "bars_one_per_day_and_ticker"])
    assert [item.name for item in outcome.results] == ["bars", "bars_one_per_day_and_ticker"]
    assert warehouse.lake.version("bars") == 0
    assert warehouse.lake.version("features") is None


def test_an_invocation_knows_nothing_of_those_before_it(
    new, whole: Warehouse, names: tuple[str, ...]
) -> None:
    """Other slices, another lake: dbt-duckdb's memory is let go each time."""
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager  # noqa: PLC0415

    one, other = new(), new()
    head = Slice(None, CELLS_FROM, one.tickers)
    build(build_request(one.settings, head), names)
    build(request_of(other, CELLS_FROM), ["bars"])
    build(request_of(one), names)
    assert DuckDBConnectionManager._ENV is None
    for name in TABLES:
        assert one.table(name).equals(whole.table(name))
    assert other.table("bars")["day"].min() >= CELLS_FROM


def test_threads_take_turns_each_with_its_own_request(new, names: tuple[str, ...]) -> None:
    warehouses = [new(), new()]
    outcomes = {}

    def run(place: int) -> None:
        first = None if place else CELLS_FROM
        outcomes[place] = build(request_of(warehouses[place], first), ["bars"])

    threads = [threading.Thread(target=run, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcomes[place].error for place in range(2)] == [None, None]
    days = [warehouse.table("bars")["day"].min() for warehouse in warehouses]
    assert days[0] >= CELLS_FROM > days[1]


def test_the_process_is_left_as_it_was(new, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    environment = dict(os.environ)
    build(request_of(new(), CELLS_FROM), ["bars"])
    assert os.getcwd() == str(tmp_path)  # noqa: PTH109
    assert dict(os.environ) == environment
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert not list(tmp_path.iterdir()), "dbt leaves no log and no target"


def test_a_model_that_fails_says_what_dbt_says(new, bad_project: Path) -> None:
    warehouse = new()
    outcome = build(request_of(warehouse, CELLS_FROM), ["bars", "broken"], bad_project)
    assert {item.name: item.status for item in outcome.results} == {
        "bars": "success",
        "broken": "error",
    }
    assert isinstance(outcome.error, LakeError)
    assert "broken" in str(outcome.error)
    assert "a broken model" in str(outcome.error)
    assert warehouse.lake.version("bars") == 0, "what ended before it stays"


def test_a_test_that_fails_is_told_with_its_rows(new, bad_project: Path) -> None:
    warehouse = new()
    request = request_of(warehouse, CELLS_FROM)
    outcome = build(request, ["bars", "no_bar_at_all", "features"], bad_project)
    found = {item.name: item for item in outcome.results}
    assert found["no_bar_at_all"].status == "fail"
    assert found["no_bar_at_all"].failures == warehouse.table("bars").height
    assert found["features"].status == "skipped"
    assert "no_bar_at_all: Got" in str(outcome.error)


def test_an_unknown_lake_is_an_error_not_an_empty_table(new, bad_project: Path) -> None:
    """What our plugin refuses comes out of dbt in words."""
    request = request_of(new()).model_copy(update={"lake": bad_project / "dbt_project.yml"})
    outcome = build(request, ["bars"])
    assert outcome.error is not None
    assert "dbt_project.yml" in str(outcome.error)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_query_at_work(new, bad_project: Path, number: signal.Signals) -> None:
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager  # noqa: PLC0415

    def interrupt() -> None:
        while DuckDBConnectionManager._ENV is None:
            time.sleep(0.05)
        time.sleep(1)
        os.kill(os.getpid(), number)

    interrupter = threading.Thread(target=interrupt)
    request = request_of(new(), CELLS_FROM)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        build(request, ["endless"], bad_project)
    interrupter.join()
    assert not [item for item in threading.enumerate() if "ThreadPool" in item.name]
    assert build(request, ["bars"]).error is None, "the next invocation is none the worse"
