"""A lake whose models another version registered goes on, and says who answers and why."""

from __future__ import annotations

import datetime as dt
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import polars as pl
import pytest

from .conftest import BEGUN, LAST, Market, assert_same

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("graph_later"), pytest.mark.timeout(1200)]

UPGRADED = BEGUN + dt.timedelta(1)
EVENING = ("candles", "quarantine", "bars", "features", "drift", "forecasts")


def test_models_of_an_older_version_give_way_in_a_range_as_day_by_day(
    tmp_path: Path, begun: Market
) -> None:
    market = begun.copied(tmp_path / "upgraded")
    decided = market.lake.read("models")
    (old,) = decided.filter(day=decided["day"].max())["model"].unique().to_list()
    assert old != "baseline"
    with closing(sqlite3.connect(market.settings.mlflow_dir / "mlflow.db")) as database, database:
        database.execute("delete from model_version_tags where key = 'sha256'")
    # The first evening, as it is where `model` does not run every day.
    market.run(UPGRADED, UPGRADED, *EVENING)
    served = market.lake.read("forecasts")
    assert served.filter(day=UPGRADED)["model"].unique().to_list() == ["baseline"]
    assert old in served.filter(pl.col("day") < UPGRADED)["model"]
    other = market.copied(tmp_path / "evenings")
    market.run(UPGRADED, LAST)
    row = market.lake.read("models").filter(day=UPGRADED).row(0, named=True)
    assert f"{old} was registered by an older version of stock-assets; no model" in row["reason"]
    assert row["challenger"] is not None
    day = UPGRADED
    while day <= LAST:
        if day.weekday() < 5:
            other.run(day, day)
        day += dt.timedelta(1)
    assert_same(market.tables(), other.tables())
    assert old not in market.lake.read("forecasts").filter(pl.col("day") >= UPGRADED)["model"]
