"""The volatility that everything is measured by: RiskMetrics EWMA, guarded where it is missing.

Baseline, model and calibration divide by this one number; what the model makes of it is in
`model.py`.
"""

from __future__ import annotations

import polars as pl

MIN_VOLATILITY = 1e-4
"""Daily volatility below which a price counts as stuck (one basis point)."""

USUAL_VOLATILITY = 0.01
"""What is assumed of a ticker of which nothing is known, not even its market."""


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
