"""Bars from real candles: the exchange's declared splits, and five-minute against daily files."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import polars as pl
import pytest

from stock_assets.lake.schemas import Candles

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

LAST = dt.date(2026, 6, 30)


def _candles(file: Path, interval: str, day: pl.Expr) -> pl.DataFrame:
    frame = pl.read_parquet(file).select(
        day.alias("day"),
        "ticker",
        pl.lit(interval).alias("interval"),
        pl.col("timestamp").alias("start"),
        "open",
        "high",
        "low",
        "close",
        pl.col("volume").cast(pl.Float64),
        pl.lit("real").alias("source"),
    )
    return Candles.filter(frame, cast=True)[0]


@pytest.fixture(scope="module")
def daily(shared_data: Path) -> pl.DataFrame:
    return _candles(
        shared_data / "moex_daily_dev_tqbr.parquet", "1d", pl.col("timestamp").dt.date()
    )


def test_declared_splits_are_the_first_days_at_the_new_price(
    new_warehouse, shared_data: Path, daily: pl.DataFrame
) -> None:
    splits = {
        "GMKN": dt.date(2024, 4, 8),
        "PLZL": dt.date(2025, 3, 27),
        "TRNFP": dt.date(2024, 2, 21),
        "VTBR": dt.date(2024, 7, 15),
    }
    warehouse = new_warehouse(dict.fromkeys(splits, "XMOS"), shared_data / "splits")
    warehouse.put(daily.filter(pl.col("ticker").is_in(list(splits))))
    warehouse.build(None, LAST, None, "--select", "bars")
    moves = (
        warehouse.table("bars", last=LAST)
        .sort("ticker", "day")
        .with_columns(
            adjusted=pl.col("close").log().diff().over("ticker"),
            raw=pl.col("raw_close").log().diff().over("ticker"),
        )
    )
    for ticker, day in splits.items():
        around = moves.filter(
            pl.col("ticker") == ticker,
            pl.col("day").is_between(day - dt.timedelta(30), day + dt.timedelta(30)),
        )
        assert around["adjusted"].abs().max() < 0.5
        assert around.filter(pl.col("raw").abs() > 2)["day"].to_list() == [day]


def test_five_minute_bars_agree_with_the_daily_file(
    new_warehouse, shared_data: Path, daily: pl.DataFrame
) -> None:
    session = pl.col("timestamp").dt.convert_time_zone("Europe/Moscow").dt.date()
    minutes = _candles(shared_data / "moex_5min_finam.parquet", "5m", session)
    tickers = minutes["ticker"].unique().sort().to_list()
    warehouse = new_warehouse(dict.fromkeys(tickers, "XMOS"), shared_data / "splits")
    warehouse.put(minutes)
    last = minutes["day"].max()
    warehouse.build(None, last, None, "--select", "bars")
    bars = warehouse.table("bars", last=last)
    assert bars["candles"].median() > 90

    # YNDX left the exchange: the daily file, of today's listings, does not have it.
    common = bars.join(daily, on=["day", "ticker"], suffix="_daily")
    assert common.height > 0.7 * bars.height
    same = (common["raw_high"] - common["high_daily"]).abs() < 1e-6 * common["high_daily"]
    assert same.mean() >= 0.98
