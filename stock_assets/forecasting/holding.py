"""What stands for a day whose prices cannot be right: the forecast of the last good session.

Pure: which cells are blocked, and why, is said by `drift/quality.py`; what a forecast of the good
session is, by `forecasts.py`. Here the two are matched, and the rows get the cell's own day.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stock_assets.calendars import get_calendar
from stock_assets.forecasting.labels import LABEL_SESSIONS
from stock_assets.lake.schemas import QUANTILE_NAMES, Forecasts

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

HELD_SESSIONS = LABEL_SESSIONS - 1
"""Sessions for which a forecast can stand: it reaches five ahead, and one of them must be left."""

_PRICES = ["last_price", *(f"price_{name}" for name in QUANTILE_NAMES)]


def first_good_day(exchanges: Sequence[str], day: dt.date) -> dt.date:
    """The earliest day whose forecast can stand on `day`."""
    return min(get_calendar(name).back(day, HELD_SESSIONS) for name in exchanges)


def standing(cells: pl.DataFrame, bars: pl.DataFrame, blocked: pl.DataFrame) -> pl.DataFrame:
    """Of each blocked cell: day, ticker, why, and the good session before it.

    That is `held_from`, `ahead` sessions earlier: the last one with a bar that is not blocked, at
    most `HELD_SESSIONS` before; cells without one are left out. `factor` makes its prices those of
    the cell's shares. `blocked` has day, ticker, why; `bars` and it reach as far back.
    """
    good = bars.join(blocked, on=["day", "ticker"], how="anti").select(
        "ticker", pl.col("day").alias("held_from"), pl.col("split_factor").alias("good_factor")
    )
    found = (
        bars.select("day", "ticker", "exchange", "split_factor")
        .join(cells.select("day", "ticker").unique(), on=["day", "ticker"], how="semi")
        .join(blocked, on=["day", "ticker"])
        .sort("day")
        .join_asof(
            good.sort("held_from"),
            left_on="day",
            right_on="held_from",
            by="ticker",
            check_sortedness=False,
        )
        .drop_nulls("held_from")
    )
    ahead = [
        get_calendar(exchange).index(day) - get_calendar(exchange).index(held_from)
        for exchange, day, held_from in found.select("exchange", "day", "held_from").iter_rows()
    ]
    return (
        found.with_columns(pl.Series("ahead", ahead, pl.Int32))
        .filter(pl.col("ahead") <= HELD_SESSIONS)
        .select(
            "day",
            "ticker",
            "why",
            "held_from",
            "ahead",
            (pl.col("good_factor") / pl.col("split_factor")).alias("factor"),
        )
    )


def held(made: pl.DataFrame, stands: pl.DataFrame, horizons: Sequence[int]) -> pl.DataFrame:
    """Rows of `Forecasts` for the cells of `stands`, from those `made` at their good sessions.

    A horizon is counted from the cell's day; of `horizons`, those are there whose target day the
    standing forecast reaches.
    """
    return (
        made.drop("held_from", "note")
        .rename({"day": "held_from"})
        .join(stands, on=["held_from", "ticker"])
        .with_columns(
            pl.col("horizon") - pl.col("ahead"),
            *(pl.col(name) * pl.col("factor") for name in _PRICES),
            pl.format("{}; the forecast of {} stands", "why", "held_from").alias("note"),
        )
        .filter(pl.col("horizon").is_in(list(horizons)))
        .select(Forecasts.column_names())
        .sort(Forecasts.primary_key())
    )
