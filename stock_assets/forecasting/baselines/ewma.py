"""RiskMetrics' EWMA (0.94), with a normal distribution and with the residuals' own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stock_assets.forecasting.baseline import baseline_forecasts, ewma_sigmas
from stock_assets.forecasting.calibration import distributions, gaussian_pools

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    import polars as pl

    from stock_assets.forecasting.forecaster import Known


class EwmaGaussian:
    """The band that a spreadsheet gives: nothing in it is fitted."""

    name = "ewma-gaussian"
    title = "last price, EWMA (0.94) volatility, normal quantiles"

    def fit(self, known: Known, day: dt.date) -> EwmaGaussian:  # noqa: ARG002
        """Itself: there is nothing to fit."""
        return self

    def forecast(self, cells: pl.DataFrame, known: Known, horizons: Sequence[int]) -> pl.DataFrame:
        """See `Forecaster.forecast`."""
        sigmas = ewma_sigmas(cells, known.features, horizons)
        return distributions(cells, sigmas, gaussian_pools(cells, horizons))


class Ewma:
    """The product's baseline (`baseline.py`), under the interface of the methods."""

    name = "ewma"
    title = "last price, EWMA (0.94) volatility, empirical quantiles: the baseline"

    def fit(self, known: Known, day: dt.date) -> Ewma:  # noqa: ARG002
        """Itself: there is nothing to fit."""
        return self

    def forecast(self, cells: pl.DataFrame, known: Known, horizons: Sequence[int]) -> pl.DataFrame:
        """See `Forecaster.forecast`."""
        return baseline_forecasts(cells, known.features, known.labelled, horizons)
