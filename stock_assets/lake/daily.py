"""Daily prices as traded, straight from candles: what is asked of a day before it has a bar.

The same open, high, low, close and volume that `dbt/models/bars.sql` makes; a test compares them.
Nothing is adjusted here: that is what these prices are needed for (`dividends.py`,
`undeclared.py`).
"""

from __future__ import annotations

import polars as pl

CANDLE_COLUMNS = [
    *("day", "ticker", "interval", "start", "open", "high", "low", "close", "volume"),
]
"""Columns of `candles` that `daily` needs."""

_MINUTES = {"m": 1, "h": 60, "d": 1440}


def daily(candles: pl.DataFrame) -> pl.DataFrame:
    """day, ticker, open, high, low, close, volume of each day's coarsest candles, in any order.

    A missing volume counts for nothing; that of a day is null where all are missing.
    """
    intervals = candles["interval"].unique().to_list()
    if any(name != "1d" for name in intervals):
        minutes = {name: int(name[:-1]) * _MINUTES[name[-1]] for name in intervals}
        length = pl.col("interval").replace_strict(minutes, return_dtype=pl.Int32)
        candles = (
            candles.filter(length == length.max().over("day", "ticker"))
            .sort("start")
            .group_by("day", "ticker")
            .agg(
                pl.col("open").first(),
                pl.col("high").max(),
                pl.col("low").min(),
                pl.col("close").last(),
                pl.when(pl.col("volume").count() > 0).then(pl.col("volume").sum()),
            )
        )
    return candles.select("day", "ticker", "open", "high", "low", "close", "volume")
