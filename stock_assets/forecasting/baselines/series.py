"""Prophet and AutoETS, as their users know them: one model a ticker, fitted to its price alone.

Comparisons only: they are the optional extra `compare`, and each forecast is a fit of its own.
Their libraries' defaults, on log prices; median and spread are their own, not the residuals'.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from stock_assets.calendars import get_calendar
from stock_assets.errors import ModelError
from stock_assets.forecasting.baseline import baseline_forecasts
from stock_assets.forecasting.labels import LABEL_SESSIONS
from stock_assets.forecasting.volatility import MIN_VOLATILITY
from stock_assets.lake.schemas import QUANTILE_NAMES, QUANTILES

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from stock_assets.forecasting.forecaster import Known

WINDOW_SESSIONS = 450
"""Sessions before an origin that a series is fitted on."""

MIN_BARS = 60
"""Bars below which nothing is fitted: the baseline stands in."""

_SEED = 7

_NORMAL_95 = NormalDist().inv_cdf(QUANTILES[-1])


@dataclass(frozen=True)
class Ahead:
    """Log price minus the last one, over the next five sessions."""

    sigma: NDArray[np.float64]
    """(5,) standard deviations."""
    quantiles: NDArray[np.float64]
    """(5, 7) the product's quantiles, rising."""


class SeriesMethod:
    """A method that fits one series at a time, at an origin every `every` sessions.

    A day in between is served its origin's distribution of the same horizon: a comparison of years
    can then be had in minutes. An `every` of at most 50 keeps within the baseline's look-back.
    """

    name: str
    title: str
    package: str
    """What the extra must have brought."""

    def __init__(self, every: int) -> None:
        self.every = every

    def fit(self, known: Known, day: dt.date) -> SeriesMethod:  # noqa: ARG002
        """Itself: each forecast fits its own. Raises `ModelError` without the extra."""
        self.refuse_without_extra()
        return self

    def refuse_without_extra(self) -> None:
        """Raise `ModelError` where the method's library is not installed."""
        if importlib.util.find_spec(self.package) is None:
            raise ModelError(
                f"the method {self.name!r} needs {self.package}, which is not installed: it is of "
                f"the optional extra `compare`. Run `make compare`, or leave {self.name!r} out"
            )

    def ahead(
        self, log_prices: NDArray[np.float64], days: Sequence[dt.date], targets: Sequence[dt.date]
    ) -> Ahead:
        """Fit on `log_prices` of `days` (the last is 0) and forecast the five `targets`."""
        raise NotImplementedError

    def forecast(self, cells: pl.DataFrame, known: Known, horizons: Sequence[int]) -> pl.DataFrame:
        """See `Forecaster.forecast`; the baseline's where a series is short or does not move."""
        keys = ["day", "ticker", "horizon"]
        instead = baseline_forecasts(cells, known.features, known.labelled, horizons)
        placed = _with_origins(cells, self.every)
        returns = known.features.select("day", "ticker", "ret_1d").sort("ticker", "day")
        rows: list[tuple[object, ...]] = []
        for exchange, origin, ticker in (
            placed.select("exchange", "origin", "ticker").unique().sort(pl.all()).iter_rows()
        ):
            calendar = get_calendar(exchange)
            oldest = calendar.back(origin, WINDOW_SESSIONS)
            own = returns.filter(
                (pl.col("ticker") == ticker) & pl.col("day").is_between(oldest, origin)
            )
            if own.height < MIN_BARS:
                continue
            path = np.cumsum(own["ret_1d"].fill_null(0.0).to_numpy())
            targets = calendar.after(origin, LABEL_SESSIONS)
            found = self.ahead(path - path[-1], own["day"].to_list(), targets)
            rows += [
                (origin, ticker, horizon, found.sigma[horizon - 1], *found.quantiles[horizon - 1])
                for horizon in horizons
                if found.sigma[horizon - 1] >= MIN_VOLATILITY
            ]
        columns = ["sigma", *(f"return_{name}" for name in QUANTILE_NAMES)]
        made = pl.DataFrame(
            rows,
            schema={"origin": pl.Date, "ticker": pl.String, "horizon": pl.Int32}
            | dict.fromkeys(columns, pl.Float64),
            orient="row",
        )
        own_cells = placed.join(made, on=["origin", "ticker"]).select(*keys, *columns)
        return pl.concat([own_cells, instead.join(own_cells, on=keys, how="anti")]).sort(keys)


class ProphetMethod(SeriesMethod):
    """Prophet with its defaults and its simulated intervals."""

    name = "prophet"
    title = "Prophet per ticker, refitted every 25 sessions (extra `compare`)"
    package = "prophet"

    def __init__(self, every: int = 25) -> None:
        super().__init__(every)

    def ahead(
        self, log_prices: NDArray[np.float64], days: Sequence[dt.date], targets: Sequence[dt.date]
    ) -> Ahead:
        """See `SeriesMethod.ahead`."""
        from prophet import Prophet

        with _quiet("cmdstanpy"), _quiet("prophet"), _seeded():
            model = Prophet()
            history = pl.DataFrame({"ds": pl.Series(days).cast(pl.Datetime), "y": log_prices})
            model.fit(history.to_pandas(), seed=_SEED)
            future = pl.DataFrame({"ds": pl.Series(targets).cast(pl.Datetime)}).to_pandas()
            samples = np.asarray(model.predictive_samples(future)["yhat"])
        quantiles = np.quantile(samples, QUANTILES, axis=1).T
        return Ahead(samples.std(axis=1), quantiles)


class AutoEtsMethod(SeriesMethod):
    """Exponential smoothing, its form chosen by AICc, with its normal intervals."""

    name = "autoets"
    title = "AutoETS per ticker, refitted every 5 sessions (extra `compare`)"
    package = "statsforecast"

    def __init__(self, every: int = 5) -> None:
        super().__init__(every)

    def ahead(
        self,
        log_prices: NDArray[np.float64],
        days: Sequence[dt.date],  # noqa: ARG002
        targets: Sequence[dt.date],
    ) -> Ahead:
        """See `SeriesMethod.ahead`."""
        from statsforecast.models import AutoETS

        # The central intervals whose ends are the product's quantiles around the median.
        below = QUANTILES[: QUANTILES.index(0.5)]
        levels = [round(100 * (1 - 2 * level)) for level in below]
        made = AutoETS(season_length=1).forecast(y=log_prices, h=len(targets), level=levels)
        low = [made[f"lo-{level}"] for level in levels]
        high = [made[f"hi-{level}"] for level in reversed(levels)]
        quantiles = np.column_stack([*low, made["mean"], *high])
        sigma = (quantiles[:, -1] - quantiles[:, 0]) / (2 * _NORMAL_95)
        return Ahead(sigma, quantiles)


def _with_origins(cells: pl.DataFrame, every: int) -> pl.DataFrame:
    """day, ticker, exchange and the latest origin: every n-th session since the calendar began."""
    frames = [cells.select("day", "ticker", "exchange", pl.col("day").alias("origin")).clear()]
    for key, own in cells.select("day", "ticker", "exchange").group_by("exchange"):
        calendar = get_calendar(str(key[0]))
        days = own["day"].unique()
        numbers = [len(calendar.between(calendar.sessions[0], day)) - 1 for day in days]
        origins = [calendar.sessions[max(0, number // every * every)] for number in numbers]
        placed = pl.DataFrame({"day": days, "origin": pl.Series(origins, dtype=pl.Date)})
        frames.append(own.join(placed, on="day"))
    return pl.concat(frames)


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """The logger's chatter of every single fit, left out; its level is the library's to set."""
    logger = logging.getLogger(name)
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """The global generator of numpy, which Prophet draws from, seeded and then put back."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(_SEED)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
