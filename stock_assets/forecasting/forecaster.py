"""The interface of whatever forecasts: the model, the baseline, and all that they are compared to.

What they share beyond it (residual pools, quantiles) is in `calibration.py`; each method is a
module of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    import polars as pl


@dataclass(frozen=True)
class Known:
    """What the lake holds of the tickers of some exchanges, from some first day on.

    It may reach beyond the day that is forecast or fitted on: who uses it looks at no row of
    `features` dated later, and at no row of `labelled` whose `label_end` is later.
    """

    features: pl.DataFrame
    """Rows of `Features`."""
    labelled: pl.DataFrame
    """Rows of `labels.labels`: day, ticker, exchange, y1 ... y5, realised_variance, label_end."""


class Forecaster(Protocol):
    """Something fitted, or in no need of it, that forecasts."""

    def forecast(self, cells: pl.DataFrame, known: Known, horizons: Sequence[int]) -> pl.DataFrame:
        """The distribution of the log return of each row of `cells` (day, ticker, exchange).

        Gives day, ticker, horizon, sigma and return_q05 ... return_q95, sorted by the first three.
        `known` begins no later than `baseline.lookback_start` of the first day. An answer depends
        on its own cell and on what is known at that day's close, whatever else is asked.
        """
        ...


class Method(Protocol):
    """A way of forecasting, as it is named in tables and on the command line."""

    name: str
    title: str
    """One line for people: what it is."""

    def fit(self, known: Known, day: dt.date) -> Forecaster:
        """Fit on the rows whose labels are known at the close of `day`: the same give the same."""
        ...
