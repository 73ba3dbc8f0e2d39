"""A backtest says, bit by bit, what evening runs said; and it leaves the lake as it was."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from stock_assets import backtest_inputs
from stock_assets.forecasting.backtest import Replay, ReplayRegistry, replay_product
from stock_assets.forecasting.registry import Registry
from stock_assets.lake.schemas import Drift, lineage_columns
from stock_assets.lake.schemas import Forecasts as ForecastRows
from stock_assets.lake.schemas import Models as ModelRows
from stock_assets.lake.store import Lake
from stock_assets.lake.views import connect

from .conftest import FIRST, LAST, Market

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("graph"),
    pytest.mark.timeout(900),
]


@pytest.fixture(autouse=True)
def _few_days_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """The market's cells are six days: nothing to test skill on, all to compare."""
    monkeypatch.setattr(backtest_inputs, "MIN_DAYS", 1)


def replayed(market: Market, first: dt.date, last: dt.date, registry: Path) -> Replay:
    history = backtest_inputs.load_history(market.settings, market.settings.tickers, first, last)
    return replay_product(
        history,
        market.settings,
        market.settings.tickers,
        first,
        last,
        registry=ReplayRegistry(Registry(registry)),
        say=lambda _: None,
    )


def files(folder: Path) -> dict[Path, tuple[int, int]]:
    return {
        file: (file.stat().st_size, file.stat().st_mtime_ns)
        for file in folder.rglob("*")
        if file.is_file()
    }


# A model carried on from before the first day is in the lake's registry only.
@pytest.mark.parametrize(
    ("first", "registry"),
    [(FIRST, "its own"), (FIRST, "the lake's"), (dt.date(2025, 6, 5), "the lake's")],
)
def test_a_backtest_equals_the_evenings(
    lived: Market, first: dt.date, registry: str, tmp_path: Path
) -> None:
    before = files(lived.folder)
    folder = tmp_path if registry == "its own" else lived.settings.mlflow_dir
    found = replayed(lived, first, LAST, folder)
    for name, schema, made in (
        ("models", ModelRows, found.decisions),
        ("forecasts", ForecastRows, found.forecasts),
    ):
        said = lived.tables()[name].filter(pl.col("day") >= first)
        assert said.height > 0
        assert made.drop(lineage_columns(schema)).equals(said, null_equal=True), name
    assert files(lived.folder) == before
    assert not list(tmp_path.iterdir())


def test_drift_that_the_lake_does_not_hold_is_measured_as_the_lake_would_have(
    lived: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shares() -> object:
        asked = (lived.settings, lived.settings.tickers, FIRST, LAST)
        return backtest_inputs.load_history(*asked).drift

    held = shares()
    assert held
    asked = backtest_inputs.rows

    def without_drift(connection: object, table: str, *more: object, **named: Any) -> pl.DataFrame:
        none = table == "drift"
        return Drift.create_empty() if none else asked(connection, table, *more, **named)

    monkeypatch.setattr(backtest_inputs, "rows", without_drift)
    assert shares() == held


def test_a_backtest_begins_long_before_the_first_partition(lived: Market, tmp_path: Path) -> None:
    first = dt.date(2025, 5, 5)
    found = replayed(lived, first, LAST, tmp_path)
    assert found.forecasts["day"].min() == first
    assert found.decisions["challenger"].n_unique() > 2
    with connect(Lake(lived.settings.lake_dir)) as connection:
        ((bars,),) = connection.sql(
            f"select count(*) from bars where day between '{first}' and '{LAST}'"
        ).fetchall()
    assert found.forecasts.height == 5 * bars
