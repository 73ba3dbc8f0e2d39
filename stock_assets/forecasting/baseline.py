"""The baseline: what anyone gets without a model, and what a model must beat.

The last price, an EWMA (0.94) volatility scaled by the root of the horizon, and the empirical
quantiles of the exchange's recent residuals. Pure: it has no state, is not trained, and a day's
answer depends on the 500 sessions before it and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from stock_assets.calendars import get_calendar
from stock_assets.forecasting.labels import HORIZONS
from stock_assets.forecasting.quantiles import residual_quantiles
from stock_assets.forecasting.volatility import guarded_volatility, is_measured
from stock_assets.lake.schemas import QUANTILE_NAMES

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from numpy.typing import NDArray

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
    scaled = _scaled_quantiles(cells, features, labelled, horizons)
    known = features.select("day", "ticker", "vol_ewma", "market_vol_ewma")
    return (
        cells.select("day", "ticker", "exchange")
        .join(known, on=["day", "ticker"], how="left")
        .with_columns(guarded_volatility())
        .join(scaled, on=["exchange", "day"])
        .with_columns(
            (pl.col("volatility") * pl.col("horizon").cast(pl.Float64).sqrt()).alias("sigma")
        )
        .select(
            "day",
            "ticker",
            "horizon",
            "sigma",
            *((pl.col("sigma") * pl.col(name)).alias(f"return_{name}") for name in QUANTILE_NAMES),
        )
        .sort("day", "ticker", "horizon")
    )


def _scaled_quantiles(
    cells: pl.DataFrame, features: pl.DataFrame, labelled: pl.DataFrame, horizons: Sequence[int]
) -> pl.DataFrame:
    """Quantiles in sigmas for each (exchange, day) of `cells` and horizon."""
    measured = features.select("day", "ticker", "vol_ewma").filter(is_measured())
    residuals = labelled.join(measured, on=["day", "ticker"]).sort("day")
    rows: list[tuple[object, ...]] = []
    for key, days in (
        cells.select("exchange", "day")
        .unique()
        .sort("exchange", "day")
        .group_by("exchange", maintain_order=True)
    ):
        exchange = str(key[0])
        own = residuals.filter(pl.col("exchange") == exchange)
        asked: list[dt.date] = days["day"].to_list()
        for horizon in horizons:
            pools = _pools(own, exchange, asked, horizon)
            rows += [
                (exchange, day, horizon, *residual_quantiles(pool))
                for day, pool in zip(asked, pools, strict=True)
            ]
    schema = {"exchange": pl.String, "day": pl.Date, "horizon": pl.Int32}
    return pl.DataFrame(
        rows, schema={**schema, **dict.fromkeys(QUANTILE_NAMES, pl.Float64)}, orient="row"
    )


def _pools(
    residuals: pl.DataFrame, exchange: str, days: Sequence[dt.date], horizon: int
) -> list[NDArray[np.float64]]:
    """For each day: residuals of the last 500 sessions whose labels are known at its close."""
    calendar = get_calendar(exchange)
    there = residuals.filter(
        pl.col(f"y{horizon}").is_not_null() & pl.col("label_end").is_not_null()
    )
    made = there["day"].to_numpy().astype("datetime64[D]")
    ended = there["label_end"].to_numpy().astype("datetime64[D]")
    values = there[f"y{horizon}"].to_numpy() / (there["vol_ewma"].to_numpy() * np.sqrt(horizon))
    oldest = np.array([calendar.back(day, LOOKBACK_SESSIONS) for day in days], "datetime64[D]")
    # Both columns rise along the rows, so that each day's pool is one run of rows.
    first = np.searchsorted(made, oldest, side="left")
    last = np.searchsorted(ended, np.array(days, "datetime64[D]"), side="right")
    return [values[start:stop] for start, stop in zip(first, last, strict=True)]
