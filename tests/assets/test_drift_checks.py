"""The checks on `drift`: of the slice's exchanges, of whole markets, of faults since they began."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl
import pytest

from stock_assets.assets.drifting import (
    DRIFT_CHECK,
    EPISODES,
    QUALITY_CHECK,
    TICKER_CHECK,
    WAITING,
    drift_checks,
)
from stock_assets.assets.lake_resource import LakeResource
from stock_assets.drift.verdict import signals
from stock_assets.lake.schemas import Drift
from stock_assets.lake.store import Lake
from stock_assets.lake.views import connect, rows
from stock_assets.settings import Settings
from stock_assets.slices import Slice

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MONDAY, TUESDAY, WEDNESDAY = (dt.date(2026, 6, day) for day in (1, 2, 3))
MOSCOW, NEW_YORK = ("AAA", "BBB", "CCC"), ("MMM", "NNN")
Checked = dict[str, dg.AssetCheckResult]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        lake={"path": str(tmp_path / "data")},
        partitions={"first_day": dt.date(2026, 1, 5)},
        universe=[
            {"tickers": list(MOSCOW), "source": "s", "exchange": "XMOS"},
            {"tickers": list(NEW_YORK), "source": "s", "exchange": "XNYS"},
        ],
        sources={"s": {"kind": "simulated"}},
    )


def row(day: dt.date, ticker: str, **values: Any) -> dict[str, Any]:
    return {
        **dict.fromkeys(Drift.column_names()),
        "day": day, "ticker": ticker, "kind": "data", "feature": "ret_1d", "threshold": 1.0,
        "reference_rows": 250, "current_rows": 20, "ticker_alarm": 0.5, "market_alarm": 0.5,
        "market_tickers": 3 if ticker in MOSCOW else 2, **values,
    }  # fmt: skip


def data(day: dt.date, tickers: tuple[str, ...], *, moved: bool) -> list[dict[str, Any]]:
    return [row(day, name, distance=2.0 if moved else 0.5, drifted=moved) for name in tickers]


def fault(day: dt.date, ticker: str, name: str = "unchanged", *, found: bool = True) -> Any:
    own = {"kind": "quality", "feature": name, "ticker_alarm": None, "market_alarm": None}
    return row(day, ticker, **own, distance=3.0 if found else 0.0, drifted=found)


@pytest.fixture
def check(settings: Settings) -> Callable[..., Checked]:
    """The checks of a slice's run; `found` are the rows that it writes first."""

    def check(
        tickers: tuple[str, ...],
        found: list[dict[str, Any]],
        first: dt.date = MONDAY,
        last: dt.date | None = None,
    ) -> Checked:
        area = Slice(first, last or first, tickers)
        written = pl.DataFrame(found, schema=Drift.create_empty().schema)
        Lake(settings.lake_dir).write("drift", written, area)
        lake = LakeResource(database=":memory:", root=str(settings.lake_dir))
        results = drift_checks(lake, settings, area, area.last_date)
        return {str(result.check_name): result for result in results}

    return check


def test_a_market_that_moved_fails_the_check_of_its_own_runs_alone(settings, check):
    moscow = check(MOSCOW, data(MONDAY, MOSCOW, moved=True))
    assert not moscow[DRIFT_CHECK].passed

    # One ticker's run speaks of its whole exchange, and of no other.
    american = check(NEW_YORK[:1], data(MONDAY, NEW_YORK[:1], moved=False))
    american = check(NEW_YORK, data(MONDAY, NEW_YORK, moved=False))
    assert american[DRIFT_CHECK].passed
    assert "XMOS" not in (american[DRIFT_CHECK].description or "")
    assert american[TICKER_CHECK].passed
    again = check(MOSCOW[:1], data(MONDAY, MOSCOW[:1], moved=True))
    assert "3 ticker(s)" in (again[DRIFT_CHECK].description or "")

    # Whoever asks for trainings reads the table, and hears all.
    with connect(Lake(settings.lake_dir)) as connection:
        drift = rows(connection, "drift", MONDAY, MONDAY)
    assert (signals(drift, settings)[MONDAY].alarm or "").startswith("XMOS: ")


def test_a_market_that_waits_passes_says_so_and_is_judged_when_the_rest_comes(check):
    early = check(MOSCOW[:1], data(MONDAY, MOSCOW[:1], moved=True))[DRIFT_CHECK]
    assert early.passed
    assert "XMOS is not judged yet: 1 of 3 tickers have come" in (early.description or "")
    assert WAITING in early.metadata
    rest = check(MOSCOW[1:], data(MONDAY, MOSCOW[1:], moved=True))[DRIFT_CHECK]
    assert not rest.passed
    assert WAITING not in rest.metadata


@pytest.mark.slow
def test_a_fault_is_listed_since_it_began_by_any_run_that_meets_it(check):
    days = (MONDAY, TUESDAY, WEDNESDAY)
    late = fault(WEDNESDAY, "BBB", "late")
    other = fault(MONDAY, "CCC", "price_level")
    for day in days:
        others = [item for item in (other, late) if item["day"] == day]
        check(MOSCOW, [fault(day, "AAA"), *others], day)

    def listed(first: dt.date, last: dt.date, *more: Any) -> list[tuple[str, ...]]:
        held = [fault(day, "AAA") for day in days if first <= day <= last]
        result = check(MOSCOW, [*held, *more], first, last)[QUALITY_CHECK]
        assert result.severity == dg.AssetCheckSeverity.ERROR
        found = result.metadata[EPISODES].value
        assert all(item["words"].startswith("the same price on 3") for item in found[:1])
        return [(item["ticker"], item["fault"], item["first"], item["last"]) for item in found]

    stuck = ("AAA", "unchanged", str(MONDAY))
    assert listed(WEDNESDAY, WEDNESDAY, late) == [(*stuck, str(WEDNESDAY))]
    level = ("CCC", "price_level", str(MONDAY), str(MONDAY))
    assert listed(MONDAY, WEDNESDAY, other, late) == [(*stuck, str(WEDNESDAY)), level]
    assert listed(TUESDAY, TUESDAY) == [(*stuck, str(TUESDAY))]
