"""Pooled log-range HAR: next week's variance from the day's, the week's and the month's ranges.

Corsi (2009) on the range instead of intraday returns, in logs, one regression for all tickers. A
series of single prices has no range and gets the same regression on its closes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from stock_assets.forecasting.baseline import scaled_to_horizons
from stock_assets.forecasting.baselines.scale import (
    MIN_FIT_ROWS,
    NothingFitted,
    ScaleForecaster,
    daily_variance_ahead,
    fit_rows,
    retransformation,
)
from stock_assets.forecasting.volatility import MAX_LOG_RATIO

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stock_assets.forecasting.forecaster import Known

_PARKINSON = 4 * math.log(2)
"""A day's squared log range is this many times its variance (Parkinson 1980)."""


@dataclass(frozen=True)
class _Inputs:
    """Variances of the last day, week and month: the columns that they are made from."""

    day: pl.Expr
    week: pl.Expr
    month: pl.Expr

    def usable(self) -> pl.Expr:
        """Rows that have them: one that did not move all week says nothing of the next."""
        return ((self.week > 0) & (self.month > 0) & (self.day >= 0)).fill_null(value=False)

    def logs(self) -> tuple[pl.Expr, ...]:
        """Their logs; the shorter ones are clipped around the month's, a still day's too."""
        month = self.month.log()
        short = (
            (month + (item / self.month).log().clip(-MAX_LOG_RATIO, MAX_LOG_RATIO))
            for item in (self.day, self.week)
        )
        return (*short, month)


RANGES = _Inputs(
    pl.col("range_1d") ** 2 / _PARKINSON,
    pl.col("vol_parkinson_5") ** 2,
    pl.col("vol_parkinson_21") ** 2,
)
CLOSES = _Inputs(pl.col("ret_1d") ** 2, pl.col("vol_close_5") ** 2, pl.col("vol_close_21") ** 2)


@dataclass(frozen=True)
class Regression:
    """log(daily variance ahead) = intercept + coefficients . logs; its exp is times `factor`."""

    inputs: _Inputs
    intercept: float
    coefficients: tuple[float, ...]
    factor: float

    def volatility(self) -> pl.Expr:
        """Daily volatility over the next week, of rows whose inputs are usable."""
        # Added term by term: a row's last bit does not depend on how many rows there are.
        log_variance = pl.lit(self.intercept)
        for coefficient, column in zip(self.coefficients, self.inputs.logs(), strict=True):
            log_variance = log_variance + coefficient * column
        return (self.factor * log_variance.exp()).sqrt()


@dataclass(frozen=True)
class HarScale:
    """The regression on ranges, and that on closes for rows without; either may be missing."""

    ranges: Regression | None
    closes: Regression | None

    def sigmas(self, features: pl.DataFrame, horizons: Sequence[int]) -> pl.DataFrame:
        """See `Scale.sigmas`. A function of the row alone."""
        volatility = pl.coalesce(
            *(
                pl.when(fitted.inputs.usable()).then(fitted.volatility())
                for fitted in (self.ranges, self.closes)
                if fitted is not None
            ),
            pl.lit(None, pl.Float64),
        )
        return scaled_to_horizons(features, volatility, horizons).drop_nulls("sigma")


class Har:
    """The method."""

    name = "har"
    title = "pooled HAR of log range variances, empirical quantiles"

    def fit(self, known: Known, day: dt.date) -> ScaleForecaster:
        """Least squares on all tickers' rows, on ranges and on closes."""
        rows = fit_rows(known, day)
        ranges, closes = (_regression(rows, inputs) for inputs in (RANGES, CLOSES))
        if ranges is None and closes is None:
            return ScaleForecaster(NothingFitted())
        return ScaleForecaster(HarScale(ranges, closes))


def _regression(rows: pl.DataFrame, inputs: _Inputs) -> Regression | None:
    """The fitted regression; None on too few rows."""
    from sklearn.linear_model import LinearRegression

    there = rows.filter(inputs.usable())
    if there.height < MIN_FIT_ROWS:
        return None
    logs = there.select(column.alias(str(n)) for n, column in enumerate(inputs.logs())).to_numpy()
    realised = there.select(daily_variance_ahead()).to_series().to_numpy()
    level: NDArray[np.float64] = logs[:, -1]
    target = level + np.clip(np.log(realised) - level, -MAX_LOG_RATIO, MAX_LOG_RATIO)
    fitted = LinearRegression().fit(logs, target)
    factor = retransformation(realised, fitted.predict(logs))
    coefficients = tuple(float(value) for value in fitted.coef_)
    return Regression(inputs, float(fitted.intercept_), coefficients, factor)
