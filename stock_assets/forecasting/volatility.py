"""The volatility that everything is measured by: RiskMetrics EWMA, guarded where it is missing.

Baseline, model and calibration divide by this one number; what the model makes of it is in
`model.py`.
"""

from __future__ import annotations

import math

import polars as pl

MIN_VOLATILITY = 1e-4
"""Daily volatility below which a price counts as stuck (one basis point)."""

USUAL_VOLATILITY = 0.01
"""What is assumed of a ticker of which nothing is known, not even its market."""


MIN_SESSION_VARIANCE = MIN_VOLATILITY**2
"""A session's variance at least: zero has no logarithm."""


MAX_LOG_RATIO = 3.0
"""Log ratios of variances are clipped here: a stuck or exploded week is not a level."""


def session_variance(previous_close: pl.Expr) -> pl.Expr:
    """The variance of one session's bar, from the previous close on; null without one.

    The gap's square, and within the session the realised variance of intraday candles where there
    are any, else Garman and Klass's (1980) practical estimate, a tenth of Parkinson's (1980) at
    least. A price without a range has its return's square. `session_variance` of
    dbt/macros/session_variance.sql is the same in SQL; a test compares them.
    """
    gap = (pl.col("open") / previous_close).log() ** 2
    reach = (pl.col("high") / pl.col("low")).log() ** 2
    inner = (pl.col("close") / pl.col("open")).log() ** 2
    garman_klass = 0.5 * reach - (2 * math.log(2) - 1) * inner
    estimate = pl.max_horizontal(garman_klass, reach / (40 * math.log(2)))
    found = (
        pl.when(pl.col("realised_variance").is_not_null())
        .then(gap + pl.col("realised_variance"))
        .when(pl.col("high") > pl.col("low"))
        .then(gap + estimate)
        .otherwise((pl.col("close") / previous_close).log() ** 2)
    )
    return pl.when(previous_close.is_not_null()).then(found.clip(lower_bound=MIN_SESSION_VARIANCE))


def is_measured() -> pl.Expr:
    """Whether the ticker's own EWMA volatility says something: there, and not a stuck price's."""
    return (pl.col("vol_ewma") >= MIN_VOLATILITY).fill_null(value=False)


def guarded_volatility() -> pl.Expr:
    """Daily volatility of every row, never null or zero.

    The ticker's `vol_ewma`; for one too new to have any its market's (`market_vol_ewma`); 1 %
    where there is neither; one basis point at least. A function of the row alone, so that it is
    the same however many tickers are asked for.
    """
    return (
        pl.coalesce("vol_ewma", "market_vol_ewma", pl.lit(USUAL_VOLATILITY))
        .clip(lower_bound=MIN_VOLATILITY)
        .alias("volatility")
    )
