"""From a volatility to a forecast: what the methods that forecast a scale share.

Each such method says how far prices will move; the rest is the same for all of them, so that they
differ in sigma and nothing else: the median is the last price, the shape is that of the recent
residuals (`calibration.py`), and where a method has nothing to say the baseline's sigma stands in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import polars as pl

from stock_assets.forecasting.baseline import LOOKBACK_SESSIONS, ewma_sigmas, scaled_to_horizons
from stock_assets.forecasting.calibration import distributions, residual_pools, within_lookback
from stock_assets.forecasting.labels import LABEL_SESSIONS
from stock_assets.forecasting.volatility import MIN_VOLATILITY, is_measured

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stock_assets.forecasting.forecaster import Known

MIN_FIT_ROWS = 250
"""Labelled rows below which nothing is fitted: the baseline's sigma stands in everywhere."""


class Scale(Protocol):
    """How far prices will move, for each row of features."""

    def sigmas(self, features: pl.DataFrame, horizons: Sequence[int]) -> pl.DataFrame:
        """day, ticker, horizon, sigma (of the return, > 0) of the rows it can say something of.

        A row's sigma depends on that row and at most the ticker's `LOOKBACK_SESSIONS` - `sessions`
        sessions before it (see `ScaleForecaster`), to the last bit.
        """
        ...


class NothingFitted:
    """The scale of who had too little to fit on."""

    def sigmas(self, features: pl.DataFrame, horizons: Sequence[int]) -> pl.DataFrame:
        """No rows."""
        return scaled_to_horizons(features.clear(), pl.lit(None, pl.Float64), horizons)


@dataclass(frozen=True)
class ScaleForecaster:
    """The forecaster of a scale: its sigmas with the quantiles of their own recent residuals."""

    scale: Scale
    sessions: int = LOOKBACK_SESSIONS
    """Sessions whose residuals the quantiles come from."""

    def forecast(self, cells: pl.DataFrame, known: Known, horizons: Sequence[int]) -> pl.DataFrame:
        """See `Forecaster.forecast`."""
        features = known.features.filter(within_lookback(cells, LOOKBACK_SESSIONS))
        features = features.sort("ticker", "day")
        measured = features.filter(is_measured())
        keys = ["day", "ticker", "horizon"]
        # A price that is stuck, or too new for an EWMA, is the baseline's affair.
        own = (
            self.scale.sigmas(features, horizons)
            .join(measured.select("day", "ticker"), on=["day", "ticker"], how="semi")
            .with_columns(pl.col("sigma").clip(lower_bound=MIN_VOLATILITY))
        )
        instead = scaled_to_horizons(measured, pl.col("vol_ewma"), horizons)
        past = pl.concat([own, instead.join(own, on=keys, how="anti")])
        pools = residual_pools(cells, past, known.labelled, horizons, sessions=self.sessions)
        return distributions(cells, self._of_cells(cells, features, own, horizons), pools)

    @staticmethod
    def _of_cells(
        cells: pl.DataFrame, features: pl.DataFrame, own: pl.DataFrame, horizons: Sequence[int]
    ) -> pl.DataFrame:
        return (
            ewma_sigmas(cells, features, horizons)
            .join(own, on=["day", "ticker", "horizon"], how="left", suffix="_own")
            .select("day", "ticker", "horizon", pl.coalesce("sigma_own", "sigma").alias("sigma"))
        )


def fit_rows(known: Known, day: dt.date) -> pl.DataFrame:
    """Features with their labels as known at the close of `day`, where there is a scale to learn.

    Sorted by day and ticker. The next week's variance is above zero, the EWMA measured.
    """
    ended = known.labelled.filter((pl.col("label_end") <= day) & (pl.col("realised_variance") > 0))
    return (
        known.features.filter(is_measured() & (pl.col("day") <= day))
        .join(ended.drop("exchange"), on=["day", "ticker"])
        .sort("day", "ticker")
    )


def daily_variance_ahead() -> pl.Expr:
    """The mean variance of the five sessions that follow, as columns of `fit_rows`."""
    return pl.col("realised_variance") / LABEL_SESSIONS


def retransformation(realised: NDArray[np.float64], log_forecast: NDArray[np.float64]) -> float:
    """What exp(a forecast of the log variance) is multiplied by to be right on average."""
    return float(np.mean(realised / np.exp(log_forecast)))
