"""The baseline: what anyone gets without a model, and what a model must beat.

The last price, an EWMA (0.94) volatility scaled by the root of the horizon, and the empirical
quantiles of the exchange's recent residuals. Pure: it has no state, is not trained, and a day's
answer depends on the 500 sessions before it and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stock_assets.calendars import get_calendar
from stock_assets.forecasting.calibration import distributions, residual_pools
from stock_assets.forecasting.labels import HORIZONS
from stock_assets.forecasting.volatility import guarded_volatility, is_measured

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

BASELINE = "baseline"
"""The baseline's name in the `model` columns."""

LOOKBACK_SESSIONS = 500
"""Sessions of the exchange before a day whose residuals its quantiles come from."""


def lookback_start(exchanges: Sequence[str], day: dt.date) -> dt.date:
    """The first day of features and bars that the baseline of `day` needs."""
    return min(get_calendar(name).back(day, LOOKBACK_SESSIONS) for name in exchanges)


def baseline_forecasts(
    cells: pl.DataFrame,
    features: pl.DataFrame,
    labelled: pl.DataFrame,
    horizons: Sequence[int] = HORIZONS,
) -> pl.DataFrame:
    """The baseline of each row of `cells` (day, ticker, exchange), for each horizon.

    Gives day, ticker, horizon, sigma and return_q05 ... return_q95 of the log return, sorted.
    `features` (day, ticker, vol_ewma, market_vol_ewma) and `labelled` (see `labels`) hold all
    tickers of the exchanges from `lookback_start` on; more of either, earlier or later, changes
    nothing. A cell without features gets the guarded volatility: there is always an answer.
    """
    own = features.select("day", "ticker", "vol_ewma", "market_vol_ewma")
    measured = scaled_to_horizons(own.filter(is_measured()), pl.col("vol_ewma"), horizons)
    pools = residual_pools(cells, measured, labelled, horizons, sessions=LOOKBACK_SESSIONS)
    return distributions(cells, ewma_sigmas(cells, features, horizons), pools)


def ewma_sigmas(
    cells: pl.DataFrame, features: pl.DataFrame, horizons: Sequence[int]
) -> pl.DataFrame:
    """day, ticker, horizon, sigma of each row of `cells`: the guarded volatility, always there."""
    known = features.select("day", "ticker", "vol_ewma", "market_vol_ewma")
    rows = cells.select("day", "ticker").join(known, on=["day", "ticker"], how="left")
    return scaled_to_horizons(rows, guarded_volatility(), horizons)


def scaled_to_horizons(
    rows: pl.DataFrame, volatility: pl.Expr, horizons: Sequence[int]
) -> pl.DataFrame:
    """day, ticker, horizon, sigma: a daily volatility by the root of the horizon."""
    ahead = pl.DataFrame({"horizon": horizons}, schema={"horizon": pl.Int32})
    return (
        rows.select("day", "ticker", volatility.alias("volatility"))
        .join(ahead, how="cross")
        .select(
            "day",
            "ticker",
            "horizon",
            (pl.col("volatility") * pl.col("horizon").cast(pl.Float64).sqrt()).alias("sigma"),
        )
    )
