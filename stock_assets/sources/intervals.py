"""How long one candle of a file is, guessed from how far its rows are apart."""

from __future__ import annotations

import datetime as dt
from typing import get_args

import polars as pl

from stock_assets.source_settings import Interval

_HOURS_OF_A_DAY = 20
"""Rows at least this far apart are daily ones: a day with a clock change has 23 hours."""
_USUAL_SHARE = 0.2
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def _length_of(interval: str) -> dt.timedelta:
    return dt.timedelta(**{_UNITS[interval[-1]]: int(interval[:-1])})


def usual_distance(starts: pl.DataFrame) -> dt.timedelta | None:
    """The smallest usual distance between one ticker's neighbouring rows.

    `starts` has the columns ticker and start, in any order. Usual means: at least a fifth as
    frequent as the most frequent one. None when no ticker has two rows.
    """
    apart = (
        starts.drop_nulls()
        .group_by("ticker")
        .agg(pl.col("start").sort().diff(null_behavior="drop").alias("apart"))
        .explode("apart", empty_as_null=False)
        .filter(pl.col("apart") > pl.duration())
    )
    if apart.is_empty():
        return None
    counts = apart["apart"].value_counts()
    usual = counts.filter(pl.col("count") >= _USUAL_SHARE * pl.col("count").max())
    smallest = usual["apart"].min()
    assert isinstance(smallest, dt.timedelta)
    return smallest


def interval_of(distance: dt.timedelta) -> str | None:
    """The name of the interval whose candles are `distance` apart; None when there is none."""
    if distance >= dt.timedelta(hours=_HOURS_OF_A_DAY):
        return "1d"
    names = {_length_of(name): name for name in get_args(Interval)}
    return names.get(distance)
