"""The drawing process begins with a short run and ends with any run."""

from __future__ import annotations

import datetime as dt

import dagster as dg
import pytest

from stock_assets.assets.drawer_resource import DRAWER, build_drawer
from stock_assets.drift.drawing import Drawer
from stock_assets.errors import StockAssetsError
from stock_assets.partitions import Grid
from stock_assets.settings import Settings

FIRST = dt.date(2024, 1, 3)


@pytest.fixture
def grid() -> Grid:
    return Grid.of(
        Settings(
            partitions={"first_day": FIRST},
            universe=[{"tickers": ["A", "B"], "source": "s"}],
            sources={"s": {"kind": "simulated"}},
        )
    )


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(Drawer, "start", lambda _: found.append("start"))
    monkeypatch.setattr(Drawer, "close", lambda _: found.append("close"))
    return found


def run(grid: Grid, calls: list[str], days: int | None, *, fails: bool = False) -> bool:
    @dg.op(required_resource_keys={DRAWER})
    def step() -> None:
        calls.append("step")
        if fails:
            raise ValueError("no")

    @dg.job(resource_defs={DRAWER: build_drawer(grid)}, executor_def=dg.in_process_executor)
    def job() -> None:
        step()

    tags = {}
    if days is not None:
        tags = grid.tags(grid.slice(FIRST, FIRST + dt.timedelta(days - 1), ["A", "B"]))
    return job.execute_in_process(tags=tags, raise_on_error=False).success


@pytest.mark.parametrize("days", [1, 31])
def test_in_a_short_run_it_begins_before_the_first_step(grid, calls, days):
    assert run(grid, calls, days)
    assert calls == ["start", "step", "close"]


@pytest.mark.parametrize("days", [60, None])
def test_in_other_runs_it_waits_until_it_is_asked(grid, calls, days):
    assert run(grid, calls, days)
    assert calls == ["step", "close"]


def test_it_ends_with_a_run_that_fails(grid, calls):
    assert not run(grid, calls, 1, fails=True)
    assert calls == ["start", "step", "close"]


def test_a_run_whose_process_cannot_be_started_goes_on(grid, calls, monkeypatch):
    """The step that draws tries again, and says so where it cannot."""

    def refused(_):
        raise StockAssetsError("cannot be started (Cannot allocate memory)")

    monkeypatch.setattr(Drawer, "start", refused)
    assert run(grid, calls, 1)
    assert calls == ["step", "close"]
