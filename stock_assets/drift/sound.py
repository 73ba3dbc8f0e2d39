"""What a training may learn from: all but prices that cannot be right, and what has seen them.

Which prices those are is decided in `quality.py`. A pure function of features and bars.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.calendars import get_calendar
from stock_assets.drift.quality import (
    BLOCKING,
    LEVEL,
    LEVEL_LEAST,
    MONTH,
    faults,
    first_bar_needed,
    stands_still,
)
from stock_assets.lake.dbt_request import LOOKBACK_SESSIONS
from stock_assets.slices import Slice

if TYPE_CHECKING:
    from stock_assets.settings import Settings


def first_bar_to_judge(first: dt.date, settings: Settings) -> dt.date:
    """The earliest date whose bars decide which rows from `first` on are sound."""
    return first_bar_needed(_first_seen(first, settings), settings)


def sound_rows(
    features: pl.DataFrame, bars: pl.DataFrame, first: dt.date, settings: Settings
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The `features` and `bars` from `first` on that a training may use.

    `bars` are rows of `schemas.Bars` from `first_bar_to_judge` on. A bar at fault is left out, so
    that no label begins at it or ends in it. Its jump, unless it is a suspected split, of which
    features make nothing (docs/adr/0023), is in the ticker's features for as long as their windows
    reach: those rows are left out too. Where nothing is at fault, nothing is changed.
    """
    own = bars.filter(pl.col("day") >= first)
    tickers = tuple(name for name in _suspects(bars) if name in settings.instruments)
    last = bars["day"].max()
    if not tickers or not isinstance(last, dt.date):
        return features, own
    found = faults(bars, Slice(_first_seen(first, settings), last, tickers), settings).filter(
        pl.col("drifted") & pl.col("feature").is_in(list(BLOCKING))
    )
    seen = _seen_by_features(bars, found, settings)
    return _not_seen(features, seen), own.join(found, on=["day", "ticker"], how="anti")


def _first_seen(first: dt.date, settings: Settings) -> dt.date:
    return min(get_calendar(name).back(first, LOOKBACK_SESSIONS) for name in settings.exchanges)


def _suspects(bars: pl.DataFrame) -> list[str]:
    """Tickers with a bar that may be at fault: few of them, found in a fraction of the time.

    A price is further from a median of closes than from the nearest of them; a price that stands
    still does so on two bars in a row at least.
    """
    closes = pl.col("close").shift(1)
    lowest, highest = (
        getattr(closes, name)(MONTH, min_samples=1) for name in ("rolling_min", "rolling_max")
    )
    still = stands_still()
    found = (
        bars.sort("ticker", "day")
        .select(
            "ticker",
            off=((pl.col("high") / lowest).log() > LEVEL_LEAST).over("ticker")
            | ((highest / pl.col("low")).log() > LEVEL_LEAST).over("ticker"),
            still=(still & still.shift(1)).over("ticker"),
        )
        .filter(pl.col("off") | pl.col("still"))
    )
    return found["ticker"].unique().sort().to_list()


def _seen_by_features(bars: pl.DataFrame, found: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """ticker, day, until: the faults that stay in windows of features, and for how long."""
    previous = pl.col("close").shift(1).over("ticker")
    furthest = pl.max_horizontal(
        (pl.col("close") / previous).log().abs(),
        (pl.col("open") / previous).log().abs(),
        (pl.col("high") / pl.col("low")).log(),
    )
    off = found.filter(pl.col("feature") == LEVEL).select("day", "ticker", "drifted")
    jumps = (
        bars.sort("ticker", "day")
        .with_columns(furthest.alias("furthest"))
        .join(off, on=["day", "ticker"], how="left", maintain_order="left")
        # The way back is a jump as well.
        .filter(pl.col("drifted") | pl.col("drifted").shift(1).over("ticker"))
        .filter((pl.col("furthest") > LEVEL_LEAST) & pl.col("suspected_split").is_null())
        .select("ticker", "day")
    )
    until = [
        get_calendar(settings.instrument(ticker).exchange).after(day, LOOKBACK_SESSIONS)[-1]
        for ticker, day in jumps.iter_rows()
    ]
    return jumps.with_columns(pl.Series("until", until, pl.Date))


def _not_seen(features: pl.DataFrame, seen: pl.DataFrame) -> pl.DataFrame:
    if seen.is_empty():
        return features
    latest = seen.sort("day").rename({"day": "seen"})
    marked = features.sort("day").join_asof(
        latest, left_on="day", right_on="seen", by="ticker", check_sortedness=False
    )
    clean = marked.filter((pl.col("day") > pl.col("until")).fill_null(value=True))
    return features.join(clean, on=["day", "ticker"], how="semi", maintain_order="left")
