"""What a dbt invocation means to Dagster; dbt itself is in tests/dbt."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from stock_assets.assets import transform
from stock_assets.assets.lake_resource import LakeResource
from stock_assets.errors import LakeError
from stock_assets.lake.dbt_command import DbtOutcome, NodeResult
from stock_assets.launch import _interrupted
from stock_assets.partitions import Grid
from stock_assets.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DAY = dt.date(2026, 6, 10)
FAILING = "bars_one_per_day_and_ticker"


def ended(name: str, status: str, failures: int | None = None) -> NodeResult:
    return NodeResult(f"of.{name}", name, status, f"said of {name}", failures, 0.5)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run `bars` and `features` of one day, with `build` in dbt's place."""
    monkeypatch.setenv("STOCK_ASSETS_LAKE__PATH", str(tmp_path))
    settings = load_settings()
    grid = Grid.of(settings)
    definition = transform.build_transform(settings, grid)

    def materialize(build: Callable[..., DbtOutcome], selection: Any = None) -> Any:
        monkeypatch.setattr(transform, "build", build)
        lake = LakeResource(database=":memory:", root=str(settings.lake_dir))
        return dg.materialize(
            [definition],
            selection=selection,
            resources={"lake": lake},
            tags=grid.tags(grid.slice(DAY, DAY, settings.tickers)),
            instance=dg.DagsterInstance.ephemeral(),
            raise_on_error=False,
        )

    return materialize


def evaluations(result: Any) -> dict[str, dg.AssetCheckEvaluation]:
    return {item.check_name: item for item in result.get_asset_check_evaluations()}


def test_every_model_and_check_of_the_run_is_told(run) -> None:
    asked: list[str] = []

    def build(request: object, names: list[str]) -> DbtOutcome:  # noqa: ARG001
        asked.extend(names)
        tests = [ended(name, "pass", 0) for name in names if name not in ("bars", "features")]
        return DbtOutcome((ended("bars", "success"), ended("features", "success"), *tests), None)

    result = run(build)
    assert result.success
    told = {event.asset_key.path[-1] for event in result.get_asset_materialization_events()}
    assert told == {"bars", "features"}
    checks = evaluations(result)
    own = {"schema", "complete", "whole_market", "no_undeclared_split"}
    assert set(asked) - {"bars", "features"} == set(checks) - own
    assert len(result.get_asset_check_evaluations()) == len(asked) - 2 + 6
    assert checks[FAILING].passed
    assert checks[FAILING].metadata["dagster_dbt/failed_row_count"].value == 0


def test_what_ended_before_a_failure_is_recorded_and_the_step_fails(run) -> None:
    results = (ended("bars", "success"), ended(FAILING, "fail", 3), ended("features", "skipped"))
    outcome = DbtOutcome(results, LakeError("dbt build failed\nthe reason"))
    result = run(lambda *_: outcome)
    assert not result.success
    (made,) = {event.asset_key.path[-1] for event in result.get_asset_materialization_events()}
    assert made == "bars"
    found = evaluations(result)[FAILING]
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert found.description == f"said of {FAILING}"
    assert found.metadata["dagster_dbt/failed_row_count"].value == 3
    (failure,) = result.filter_events(lambda event: event.is_step_failure)
    assert "the reason" in failure.step_failure_data.error.to_string()


def test_a_test_that_warns_fails_its_check_and_not_the_run(run) -> None:
    results = (ended("bars", "success"), ended(FAILING, "warn", 2), ended("features", "success"))
    result = run(lambda *_: DbtOutcome(results, None), ["bars", "features"])
    assert result.success
    found = evaluations(result)[FAILING]
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)


def test_only_what_is_selected_is_asked_of_dbt(run) -> None:
    asked: list[list[str]] = []

    def build(request: object, names: list[str]) -> DbtOutcome:  # noqa: ARG001
        asked.append(names)
        return DbtOutcome((ended("bars", "success"),), None)

    run(build, dg.AssetSelection.assets("bars").without_checks())
    assert asked == [["bars"]]


def test_an_interrupt_in_dbt_is_dagster_s_interruption(run) -> None:
    def interrupted(*_: object) -> DbtOutcome:
        raise KeyboardInterrupt

    (failure,) = run(interrupted).filter_events(lambda event: event.is_step_failure)
    assert _interrupted(failure)
