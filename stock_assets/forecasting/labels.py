"""What came after each bar: returns to the next sessions and the variances on the way.

The only place that looks ahead. Who trains on its rows keeps those whose `label_end` has passed
(`known_by`); how rows are divided into training and validation is in `splitting.py`.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from stock_assets.calendars import get_calendar
from stock_assets.forecasting.volatility import session_variance

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

HORIZONS: tuple[int, ...] = (1, 2, 3, 4, 5)
"""Sessions ahead that can be forecast."""

VARIANCES_AHEAD = (1, HORIZONS[-1])
"""Sessions that the variances ahead are means of."""

LABEL_SESSIONS = HORIZONS[-1]
"""Length of a label's window, in sessions of the ticker's exchange."""


def labels(bars: pl.DataFrame, horizons: Sequence[int] = HORIZONS) -> pl.DataFrame:
    """One row a bar: day, ticker, exchange, y1 ... y5, the variances that came, label_end.

    `bars` needs day, ticker, exchange, open, high, low, close (adjusted), realised_variance and
    suspected_split. What leads across a suspected split is null, like a bar that is missing.
    `y<h>` is the natural-log return to the h-th next session of the ticker's exchange, null when
    that session has no bar (yet). `realised_variance` is the sum of the five squared one-session
    log returns that follow, null unless all five bars are there; `variance_ahead_1` and
    `variance_ahead_5` are, on the same condition, the next session's variance and the mean of the
    next five's from their ranges (`volatility.session_variance`), which know more of five sessions
    than five closes do. `label_end` is the date of the fifth session ahead: whoever stands on that
    day's close may know the whole row. Sorted by day, ticker.
    """
    steps = range(1, LABEL_SESSIONS + 1)
    variance = session_variance(pl.col("close").shift(1).over("ticker"))
    ordered = bars.sort("ticker", "day").select(
        *("ticker", "day", "exchange", "close"),
        variance.alias("variance"),
        splits_so_far().alias("splits"),
    )
    came = ordered.drop("exchange")
    dated = ordered.drop("variance").join(target_days(bars), on=["exchange", "day"], how="left")
    for step in steps:
        names = {name: f"{name}{step}" for name in ("close", "variance", "splits")}
        target = {"day": f"target{step}"}
        dated = dated.join(
            came.rename(names | target), on=["ticker", f"target{step}"], how="left"
        ).with_columns(pl.when(pl.col(f"splits{step}") == pl.col("splits")).then(f"close{step}"))
    chain = ["close", *(f"close{step}" for step in steps)]
    squares = [
        (pl.col(after) / pl.col(before)).log() ** 2 for before, after in itertools.pairwise(chain)
    ]
    realised = _sum(squares)
    return dated.select(
        "day",
        "ticker",
        "exchange",
        *((pl.col(f"close{h}") / pl.col("close")).log().alias(f"y{h}") for h in horizons),
        realised.alias("realised_variance"),
        # A session's variance counts from the bar before it: with all five there, the session's.
        *(
            pl.when(realised.is_not_null())
            .then(_sum([pl.col(f"variance{step}") for step in range(1, count + 1)]) / count)
            .alias(f"variance_ahead_{count}")
            for count in VARIANCES_AHEAD
        ),
        pl.col(f"target{LABEL_SESSIONS}").alias("label_end"),
    ).sort("day", "ticker")


def splits_so_far() -> pl.Expr:
    """Suspected splits of each ticker up to each row, of bars sorted by ticker and day.

    The same number on two days: no return between them is a split that nobody declared.
    """
    return pl.col("suspected_split").is_not_null().cum_sum().over("ticker")


def _sum(terms: Sequence[pl.Expr]) -> pl.Expr:
    """Added one by one: the order of the terms, and so the last bit, is the same everywhere."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def returns_ahead(labelled: pl.DataFrame) -> pl.DataFrame:
    """The returns of `labels`, long: day, ticker, horizon, actual_return; no nulls."""
    columns = [f"y{horizon}" for horizon in HORIZONS]
    long = labelled.unpivot(
        columns, index=["day", "ticker"], variable_name="horizon", value_name="actual_return"
    )
    return long.with_columns(pl.col("horizon").str.strip_prefix("y").cast(pl.Int32)).drop_nulls(
        "actual_return"
    )


def target_days(cells: pl.DataFrame) -> pl.DataFrame:
    """For each distinct (exchange, day) of `cells`: the next five sessions, target1 ... target5.

    Null beyond the end of the calendar. A day that is no session looks ahead from where it stands.
    """
    found = []
    for exchange, days in (
        cells.select("exchange", "day")
        .unique()
        .sort("exchange", "day")
        .group_by("exchange", maintain_order=True)
    ):
        sessions = get_calendar(str(exchange[0])).session_days
        asked = days["day"].to_numpy().astype("datetime64[D]")
        following = np.searchsorted(sessions, asked, side="right")
        padded = np.concatenate([sessions, np.full(LABEL_SESSIONS, np.datetime64("NaT"))])
        targets = {
            f"target{step}": padded[np.minimum(following + step - 1, len(padded) - 1)]
            for step in range(1, LABEL_SESSIONS + 1)
        }
        found.append(days.with_columns(pl.Series(k, v, pl.Date) for k, v in targets.items()))
    if not found:
        empty = {f"target{step}": pl.Date for step in range(1, LABEL_SESSIONS + 1)}
        return (
            cells.select("exchange", "day")
            .clear()
            .cast({"day": pl.Date})
            .with_columns(pl.lit(None, dtype).alias(name) for name, dtype in empty.items())
        )
    return pl.concat(found)


def known_by(day: dt.date) -> pl.Expr:
    """Rows of `labels` whose whole window has passed at the close of `day`."""
    return pl.col("label_end") <= day
