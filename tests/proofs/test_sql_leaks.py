"""The SQL of bars and features: no value of a day knows what came, or was revised, after it.

By dbt over a lake, as in a run. One leaky copy of the project has every leak at once, each in a
column of its own, so that the comparison must name them all and no other.
"""

from __future__ import annotations

import datetime as dt
import shutil
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from stock_assets.lake.dbt_project import DBT_PROJECT_DIR

from .markets import MEAN_REVERTING, simulate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow

SESSIONS = 330
PRICES = ("open", "high", "low", "close")
SPLIT_TICKER = "T01"

OWN = "partition by ticker order by day"
LEAKS = {
    "vol_close_5": f"lead(vol_close_5) over ({OWN})",
    "volume_ratio_5_63": (
        "(volume_ratio_5_63 - avg(volume_ratio_5_63) over (partition by ticker))"
        " / stddev(volume_ratio_5_63) over (partition by ticker)"
    ),
    "ret_21d": "percent_rank() over (partition by ticker order by ret_21d)",
    "ret_63d": f"coalesce(case when isodow(day) > 1 then ret_63d end, lead(ret_63d) over ({OWN}))",
    "market_dispersion": "max(market_dispersion) over (partition by exchange)",
    "vol_parkinson_21": (
        f"avg(vol_parkinson_21) over ({OWN} rows between 2 preceding and 2 following)"
    ),
}
"""A window that includes the target, scaling and ranks over all days, gaps filled from behind, the
market's worst day of all, and smoothing: feature -> its leaky expression."""

BACK_ADJUSTED = "coalesce(splits.factor, 1.0)"
"""Of bars: divided by the last factor of all, so that a split to come moves the prices before."""


@pytest.fixture(scope="module")
def candles() -> pl.DataFrame:
    bars = simulate(MEAN_REVERTING, 4, SESSIONS, seed=4)
    start = pl.col("day").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return bars.select(
        "day", "ticker", "interval", start.alias("start"), *PRICES, "volume",
        pl.lit("made").alias("source"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def cut(candles: pl.DataFrame) -> dt.date:
    monday = candles["day"].unique().sort()[250]
    assert monday.isoweekday() == 1
    return monday


@pytest.fixture(scope="module")
def build(
    new_warehouse, candles: pl.DataFrame, cut: dt.date, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path, pl.DataFrame, bool], dict[str, pl.DataFrame]]:
    """Bars and features of some candles by some project, with the split declared or not."""

    def built(project: Path, rows: pl.DataFrame, split_known: bool) -> dict[str, pl.DataFrame]:  # noqa: FBT001
        splits = tmp_path_factory.mktemp("splits") / "splits.csv"
        later = cut + dt.timedelta(5)
        declared = f"{SPLIT_TICKER},{later},1,10\n" if split_known else ""
        splits.write_text(f"ticker,date,before,after\n{declared}")
        exchanges = dict.fromkeys(candles["ticker"].unique().sort(), "weekdays")
        warehouse = new_warehouse(exchanges, splits, project)
        if project != DBT_PROJECT_DIR:
            warehouse.target = project.with_name("target")  # parsed once
        warehouse.put(rows)
        last = candles["day"].max()
        warehouse.build(None, last, None, "--select", "bars features")
        return {name: warehouse.table(name, None, last) for name in ("bars", "features")}

    return built


@pytest.fixture(scope="module")
def leaky_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("leaky") / "dbt"
    shutil.copytree(DBT_PROJECT_DIR, project, ignore=shutil.ignore_patterns("target", "logs"))
    features, bars = project / "models" / "features.sql", project / "models" / "bars.sql"
    head, said, tail = features.read_text().rpartition("\nselect\n")
    for column, expression in LEAKS.items():
        assert f"    {column},\n" in tail
        tail = tail.replace(f"    {column},\n", f"    {expression} as {column},\n")
    features.write_text(head + said + tail)
    honest = f"{BACK_ADJUSTED} as split_factor"
    assert honest in bars.read_text()
    every = f"{BACK_ADJUSTED} / max({BACK_ADJUSTED}) over (partition by days.ticker)"
    bars.write_text(bars.read_text().replace(honest, f"{every} as split_factor"))
    return project


def revised(candles: pl.DataFrame, later: pl.Expr) -> pl.DataFrame:
    """The same candles, but those of `later` say something else, of their range too."""
    rng = np.random.default_rng(9)
    moved, wider = np.exp(0.5 * rng.standard_normal((2, candles.height)))
    factors = {
        **dict.fromkeys(("open", "close", "volume"), moved),
        "high": moved * np.maximum(wider, 1 / wider),
        "low": moved / np.maximum(wider, 1 / wider),
    }
    return candles.with_columns(
        pl.when(later).then(pl.col(name) * factor).otherwise(pl.col(name)).alias(name)
        for name, factor in factors.items()
    )


FUTURES = {
    "none": lambda candles, day: candles.filter(pl.col("day") <= day),
    "garbage": lambda candles, day: revised(candles, pl.col("day") > day),
    "one candle of the next day revised": lambda candles, day: revised(
        candles, (pl.col("ticker") == "T02") & (pl.col("day") == day + dt.timedelta(1))
    ),
}


def differing(
    one: dict[str, pl.DataFrame], other: dict[str, pl.DataFrame], day: dt.date
) -> set[str]:
    """Columns of which some value up to `day` is not the same to the last bit."""
    found = set()
    for table, rows in one.items():
        mine, theirs = (frame.filter(pl.col("day") <= day) for frame in (rows, other[table]))
        assert mine.select("day", "ticker").equals(theirs.select("day", "ticker"))
        for name in mine.columns:
            pair = [frame[name] for frame in (mine, theirs)]
            if pair[0].dtype == pl.Float64:
                pair = [series.reinterpret(signed=True) for series in pair]
            if not pair[0].equals(pair[1], null_equal=True):
                found.add(f"{table}.{name}")
    return found


@pytest.fixture(scope="module")
def told(build, candles) -> dict[str, pl.DataFrame]:
    return build(DBT_PROJECT_DIR, candles, False)


@pytest.mark.parametrize("future", FUTURES)
def test_no_future_reaches_a_value_of_a_day(build, told, candles, cut, future) -> None:
    other = build(DBT_PROJECT_DIR, FUTURES[future](candles, cut), False)
    assert differing(told, other, cut) == set()
    later = candles["day"].max()
    assert future == "none" or differing(told, other, later), "nothing was changed"


def test_a_split_to_come_changes_nothing_before_it(build, told, candles, cut) -> None:
    other = build(DBT_PROJECT_DIR, candles, True)
    assert differing(told, other, cut) == set()
    assert "bars.close" in differing(told, other, candles["day"].max())


def test_every_planted_leak_is_named_and_nothing_else(build, leaky_project, candles, cut) -> None:
    planted = {f"features.{name}" for name in LEAKS}
    leaked = build(leaky_project, candles, False)
    found = {
        future: differing(leaked, build(leaky_project, change(candles, cut), False), cut)
        for future, change in FUTURES.items()
    }
    assert set.union(*found.values()) == planted
    assert found["garbage"] == planted
    assert "features.vol_close_5" in found["one candle of the next day revised"]


def test_prices_adjusted_backwards_are_caught(build, leaky_project, candles, cut) -> None:
    without, known = (build(leaky_project, candles, known) for known in (False, True))
    assert "bars.close" in differing(without, known, cut)
