"""Two series of a central bank: one price a day, no volume, pegs, and the storm of 2022.

Too few tickers to learn much from; what must hold is that each day has its forecast, and that the
baseline's intervals are what they say.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from stock_assets.forecasting.scoring import score
from stock_assets.lake.schemas import QUANTILE_NAMES, Candles, Forecasts
from tests.forecasting.conftest import MemoryRegistry, settings_for

from .chain import forecast, in_force

if TYPE_CHECKING:
    from pathlib import Path

FILES = ("gold_cbr_daily.parquet", "fx_cbr_usdrub_daily.parquet")
GOLD, DOLLAR = "XAU_RUB_G_CBR", "USD_RUB_CBR"
REDENOMINATION = f"{DOLLAR},1998-01-01,1,1000"
FIRST, LAST = dt.date(2015, 1, 1), dt.date(2023, 11, 1)


@pytest.fixture(scope="module")
def lake(shared_data: Path, new_warehouse, tmp_path_factory: pytest.TempPathFactory):
    """Features and bars of both series, made by dbt from all there is."""
    raw = pl.concat([pl.read_parquet(shared_data / name) for name in FILES])
    candles = raw.select(
        pl.col("timestamp").dt.date().alias("day"),
        "ticker",
        pl.lit("1d").alias("interval"),
        pl.col("timestamp").alias("start"),
        "open",
        "high",
        "low",
        "close",
        pl.col("volume").cast(pl.Float64),
        pl.lit("real").alias("source"),
    )
    splits = tmp_path_factory.mktemp("splits") / "splits.csv"
    splits.write_text(f"ticker,date,before,after\n{REDENOMINATION}\n")
    warehouse = new_warehouse({GOLD: "CBR", DOLLAR: "CBR"}, splits)
    warehouse.put(Candles.validate(candles, cast=True))
    warehouse.build(None, LAST, None, "--select", "bars features")
    return warehouse.table("features", None, LAST), warehouse.table("bars", None, LAST)


@pytest.fixture(scope="module")
def made(lake) -> pl.DataFrame:
    """Nine years of forecasts, by models trained once a year and the baseline beside them."""
    features, bars = lake
    settings = settings_for([GOLD, DOLLAR], cadence=250, window=1500, cooldown=249)
    cells = bars.filter(pl.col("day") >= FIRST).select("day", "ticker")
    registry = MemoryRegistry()
    models = in_force(cells, features, bars, registry, settings)
    assert models["challenger"].drop_nulls().n_unique() >= 8
    return forecast(cells, features, bars, models, registry)


def test_every_day_has_its_forecast(made, lake) -> None:
    _, bars = lake
    Forecasts.validate(made)
    assert made.height == 5 * bars.filter(pl.col("day") >= FIRST).height
    for prefix in ("price_", "return_", "baseline_return_"):
        values = made.select(prefix + name for name in QUANTILE_NAMES).to_numpy()
        assert np.isfinite(values).all()
        assert (np.diff(values, axis=1) >= 0).all()
    assert (made.select("sigma", "baseline_sigma").to_numpy() > 0).all()


def test_the_intervals_hold_what_they_say(made, lake) -> None:
    """The baseline's by series and by year; the model's, of two series only, by and large."""
    _, bars = lake
    scores = score(made, bars)
    assert scores.height > 20_000
    for interval, stated in (("in_80", 0.8), ("in_90", 0.9)):
        assert scores[f"baseline_{interval}"].mean() == pytest.approx(stated, abs=0.015)
        assert scores[interval].mean() == pytest.approx(stated, abs=0.03)
        for by, most in (("ticker", 0.02), (pl.col("day").dt.year(), 0.05)):
            held = scores.group_by(by).agg(pl.col(f"baseline_{interval}").mean().alias("held"))
            assert (held["held"] - stated).abs().max() < most


def test_the_redenomination_is_no_move(lake) -> None:
    _, bars = lake
    dollar = bars.filter(pl.col("ticker") == DOLLAR).sort("day")
    moves = dollar["close"].log().diff().abs().drop_nulls()
    assert moves.max() < 0.5
    assert dollar["raw_close"].log().diff().abs().max() > 6
