"""GARCH(1,1) per ticker (Bollerslev 1986, 1987): fitted by `arch`, filtered forward to each day.

Student's t innovations, since a normal likelihood takes a crash for the end of clustering.

A day's variance is the recursion run over the ticker's last 250 sessions with the parameters of the
fit: what came before has long decayed, and the answer does not depend on where history begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from stock_assets.calendars import get_calendar
from stock_assets.forecasting.baselines.scale import ScaleForecaster
from stock_assets.forecasting.volatility import MIN_VOLATILITY

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stock_assets.forecasting.forecaster import Known

MIN_RETURNS = 250
"""Returns below which a ticker is not fitted."""

MAX_RETURNS = 2500
"""Latest returns that a ticker is fitted on: ten years, older ones are of another market."""

MIN_ALPHA, MIN_PERSISTENCE = 0.01, 0.8
"""Below these a fit found no clustering of volatility, as happens on short calm histories: it
would sleep through the next storm, and the EWMA is the better guess."""

FILTER_SESSIONS = 250
"""Sessions of a ticker's exchange over which its variance is filtered."""

RESIDUAL_SESSIONS = 250
"""Sessions of residuals behind the quantiles: with the filter's, no more than the baseline's."""

_PERCENT = 100.0
"""`arch` asks for returns of about this scale: its optimiser fails on small numbers."""


@dataclass(frozen=True)
class Parameters:
    """One ticker's: the next variance is omega + alpha * return^2 + beta * variance, a session."""

    omega: float
    alpha: float
    beta: float
    start: float
    """The variance from which filtering begins: the mean squared return of the fit."""


@dataclass(frozen=True)
class GarchScale:
    """Fitted parameters by ticker; tickers that could not be fitted, and why."""

    parameters: dict[str, Parameters]
    not_fitted: dict[str, str]

    def sigmas(self, features: pl.DataFrame, horizons: Sequence[int]) -> pl.DataFrame:
        """See `Scale.sigmas`. A row depends on the ticker's 250 sessions up to it."""
        fitted = pl.DataFrame(
            [
                (ticker, own.omega, own.alpha, own.beta, own.start)
                for ticker, own in self.parameters.items()
            ],
            schema={"ticker": pl.String}
            | dict.fromkeys(("omega", "alpha", "beta", "start"), pl.Float64),
            orient="row",
        )
        rows = features.join(fitted, on="ticker").sort("ticker", "day")
        omega, persistence = rows["omega"], rows["alpha"] + rows["beta"]
        ahead = pl.Series(filtered(rows))
        total, parts = ahead, []
        for step in range(1, max(horizons, default=0) + 1):
            if step > 1:
                ahead = omega + persistence * ahead
                total = total + ahead
            if step in horizons:
                parts.append(
                    rows.select(
                        "day",
                        "ticker",
                        pl.lit(step, pl.Int32).alias("horizon"),
                        total.sqrt().alias("sigma"),
                    )
                )
        return pl.concat(parts)


class Garch:
    """The method."""

    name = "garch"
    title = "GARCH(1,1) with t innovations per ticker, empirical quantiles"

    def fit(self, known: Known, day: dt.date) -> ScaleForecaster:
        """Maximum likelihood on each ticker's returns up to `day`.

        Tickers that cannot be fitted get the baseline's sigma: `scale.not_fitted` says why.
        """
        parameters, not_fitted = {}, {}
        returns = known.features.filter(pl.col("day") <= day).sort("ticker", "day")
        for key, own in returns.group_by("ticker", maintain_order=True):
            ticker = str(key[0])
            found = _fitted(own["ret_1d"].drop_nulls().tail(MAX_RETURNS).to_numpy())
            if isinstance(found, Parameters):
                parameters[ticker] = found
            else:
                not_fitted[ticker] = found
        return ScaleForecaster(GarchScale(parameters, not_fitted), RESIDUAL_SESSIONS)


def _fitted(returns: NDArray[np.float64]) -> Parameters | str:
    """The parameters, or why there are none."""
    from arch import arch_model

    if len(returns) < MIN_RETURNS:
        return f"{len(returns)} returns, {MIN_RETURNS} are needed"
    start = float(np.mean(returns**2))
    if start < MIN_VOLATILITY**2:
        return "the price hardly ever moves"
    model = arch_model(
        _PERCENT * returns, mean="Zero", vol="GARCH", p=1, q=1, dist="t", rescale=False
    )
    result = model.fit(disp="off", show_warning=False)
    omega, alpha, beta = (float(result.params[name]) for name in ("omega", "alpha[1]", "beta[1]"))
    if result.convergence_flag != 0 or not np.isfinite([omega, alpha, beta]).all():
        return f"the likelihood's maximum was not found ({result.optimization_result.message})"
    if alpha < MIN_ALPHA or alpha + beta < MIN_PERSISTENCE:
        return f"no clustering of volatility was found (alpha {alpha:.3f}, beta {beta:.3f})"
    return Parameters(omega / _PERCENT**2, alpha, beta, start)


def filtered(rows: pl.DataFrame) -> NDArray[np.float64]:
    """The variance of the session after each row, given the ticker's returns up to it.

    `rows` has ticker, day, exchange, ret_1d and the parameters (omega, alpha, beta, start), sorted
    by ticker and day. A missing return counts as what was expected of it.
    """
    place = _session_numbers(rows)
    nth = rows.select(pl.int_range(pl.len()).over("ticker")).to_series().to_numpy()
    squares = rows["ret_1d"].to_numpy() ** 2
    omega, alpha, beta = (rows[name].to_numpy() for name in ("omega", "alpha", "beta"))
    variance = rows["start"].to_numpy().copy()
    # All rows at once, each from the oldest return of its own window to its latest.
    for age in reversed(range(min(FILTER_SESSIONS, rows.height))):
        later = slice(age, None)
        before = slice(0, rows.height - age)
        inside = (nth[later] >= age) & (place[later] - place[before] < FILTER_SESSIONS)
        came = squares[before]
        square = np.where(np.isnan(came), variance[later], came)
        updated = omega[later] + alpha[later] * square + beta[later] * variance[later]
        variance[later] = np.where(inside, updated, variance[later])
    return variance


def _session_numbers(rows: pl.DataFrame) -> NDArray[np.int64]:
    """The number of each row's day among its exchange's sessions."""
    numbers = np.zeros(rows.height, dtype=np.int64)
    days = rows["day"].to_numpy().astype("datetime64[D]")
    for exchange in rows["exchange"].unique():
        own = (rows["exchange"] == exchange).to_numpy()
        sessions = get_calendar(exchange).session_days
        numbers[own] = np.searchsorted(sessions, days[own])
    return numbers
