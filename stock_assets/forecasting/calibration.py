"""What past forecasts got wrong, in sigmas: residual pools, shared by whatever forecasts a scale.

A sigma becomes a distribution by the quantiles of y_h / sigma_h over the recent past, pooled over
an exchange's tickers. Which sigma, how far back and with what weights is the caller's; what is
done with too few residuals, or none, is decided here for all of them.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from stock_assets.calendars import get_calendar
from stock_assets.forecasting.quantiles import GAUSSIAN, MIN_RESIDUALS
from stock_assets.lake.schemas import QUANTILE_NAMES, QUANTILES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_MEDIAN = QUANTILES.index(0.5)
_LEVELS = np.array(QUANTILES)

MAX_RESIDUAL = 10.0
"""Sigmas that a residual counts as at most in the variance factor."""

_BATCH_DAYS = 250
"""Days whose pools are sorted together: a day costs its batch's pool, not all of history."""


def residual_pools(  # noqa: PLR0913  # three frames, and what makes a pool
    cells: pl.DataFrame,
    sigmas: pl.DataFrame,
    labelled: pl.DataFrame,
    horizons: Sequence[int],
    *,
    sessions: int,
    half_life: float | None = None,
    median_kept: float = 0.0,
    min_for_factor: int = MIN_RESIDUALS,
) -> pl.DataFrame:
    """Variance factor and quantiles of y_h / sigma_h for each (exchange, day) of `cells`.

    A day's pool is the rows of `labelled` (see `labels`) of its exchange's last `sessions`
    sessions whose `label_end` is no later than the day, where `sigmas` (day, ticker, horizon,
    sigma) has a sigma above zero. A row weighs 0.5 ** (age in sessions / `half_life`), or all the
    same without one.

    Gives exchange, day, horizon, variance_factor, q05 ... q95, sorted by the first three.
    `variance_factor` is the weighted mean of the squared residuals: sigma^2 times it is right on
    average; a residual beyond 10 sigmas counts as 10 there, as it is a unit error more likely than
    a return. The quantiles are in sigmas as they came (before the factor), rising, around
    `median_kept` (0 to 1) times the pool's own median. Where the pool is worth fewer than 500 equal
    residuals (Kish's count) they are a normal's, whose variance is the factor; that is 1 below
    `min_for_factor` such residuals, and where no price moved at all.

    A day's answer depends on its own pool only, to the last bit: not on the order of rows, on
    what else is asked, nor on rows outside the pool. With equal weights the quantiles are
    numpy's default ones (Hyndman and Fan's type 7); weights generalise its positions.
    """
    window = _Window(sessions, half_life, median_kept, min_for_factor)
    rows: list[tuple[object, ...]] = []
    asked = cells.select("exchange", "day").unique().sort("exchange", "day")
    for key, days in asked.group_by("exchange", maintain_order=True):
        exchange = str(key[0])
        sessions_of = get_calendar(exchange).session_days
        when = days["day"].to_numpy().astype("datetime64[D]")
        own = labelled.filter(pl.col("exchange") == exchange)
        for horizon in horizons:
            standardised = _standardised(own, sigmas, horizon)
            for start in range(0, len(when), _BATCH_DAYS):
                batch = when[start : start + _BATCH_DAYS]
                oldest = _oldest(sessions_of, batch[0], sessions)
                near = pl.col("day").is_between(oldest.item(), batch[-1].item())
                pool = _Residuals(standardised.filter(near), sessions_of)
                for day in batch:
                    factor, quantiles = pool.of(day, window)
                    rows.append((exchange, day.item(), horizon, factor, *quantiles))
    schema = {"exchange": pl.String, "day": pl.Date, "horizon": pl.Int32}
    numbers = dict.fromkeys(["variance_factor", *QUANTILE_NAMES], pl.Float64)
    return pl.DataFrame(rows, schema={**schema, **numbers}, orient="row")


def within_lookback(cells: pl.DataFrame, sessions: int) -> pl.Expr:
    """The rows (day, exchange) that `residual_pools` of `cells` depends on, and those of `cells`.

    Of each exchange, from `sessions` sessions before its first day asked to its last.
    """
    near = pl.lit(value=False)
    for (exchange,), own in cells.group_by("exchange"):
        first, last = own["day"].min(), own["day"].max()
        assert isinstance(first, dt.date)
        oldest = get_calendar(str(exchange)).back(first, sessions)
        near |= (pl.col("exchange") == exchange) & pl.col("day").is_between(oldest, last)
    return near


def gaussian_pools(cells: pl.DataFrame, horizons: Sequence[int]) -> pl.DataFrame:
    """What `residual_pools` gives where nothing is known: a standard normal's quantiles."""
    numbers = zip(["variance_factor", *QUANTILE_NAMES], [1.0, *GAUSSIAN], strict=True)
    return (
        cells.select("exchange", "day")
        .unique()
        .join(pl.DataFrame({"horizon": horizons}, schema={"horizon": pl.Int32}), how="cross")
        .with_columns(pl.lit(value).alias(name) for name, value in numbers)
        .sort("exchange", "day", "horizon")
    )


def distributions(cells: pl.DataFrame, sigmas: pl.DataFrame, pools: pl.DataFrame) -> pl.DataFrame:
    """Sigmas with the quantiles of their day's pool: what a `Forecaster` gives.

    `cells` has day, ticker, exchange; `sigmas` day, ticker, horizon, sigma; `pools` is of
    `residual_pools` (its variance factor is not applied: who wants it multiplies both).
    """
    returns = ((pl.col("sigma") * pl.col(q)).alias(f"return_{q}") for q in QUANTILE_NAMES)
    return (
        cells.select("day", "ticker", "exchange")
        .join(sigmas, on=["day", "ticker"])
        .join(pools, on=["exchange", "day", "horizon"])
        .select("day", "ticker", "horizon", "sigma", *returns)
        .sort("day", "ticker", "horizon")
    )


def _standardised(labelled: pl.DataFrame, sigmas: pl.DataFrame, horizon: int) -> pl.DataFrame:
    """day, label_end, residual of one horizon, sorted by day and ticker; no nulls."""
    own = sigmas.filter((pl.col("horizon") == horizon) & pl.col("sigma").is_not_nan())
    return (
        labelled.select("day", "ticker", "label_end", pl.col(f"y{horizon}").alias("y"))
        .drop_nulls()
        .join(own.filter(pl.col("sigma") > 0), on=["day", "ticker"])
        .sort("day", "ticker")
        .select("day", "label_end", (pl.col("y") / pl.col("sigma")).alias("residual"))
    )


def _oldest(sessions: NDArray[np.datetime64], day: np.datetime64, count: int) -> np.datetime64:
    """The session `count` sessions before `day` (the first one when there are fewer)."""
    return sessions[max(0, int(np.searchsorted(sessions, day)) - count)]  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Window:
    """What makes a pool: see `residual_pools`."""

    sessions: int
    half_life: float | None
    median_kept: float
    min_for_factor: int


class _Residuals:
    """The residuals of one exchange and horizon, sorted once for all days that are asked."""

    def __init__(self, rows: pl.DataFrame, sessions: NDArray[np.datetime64]) -> None:
        residuals = rows["residual"].to_numpy()
        days, ends = (
            rows[name].to_numpy().astype("datetime64[D]") for name in ("day", "label_end")
        )
        # Sums are kept by day: a pool is a run of days, and each day's sum is of its own rows.
        self._days, first, numbers = np.unique(days, return_index=True, return_inverse=True)
        self._ends = ends[first]
        self._count = np.bincount(numbers, minlength=len(first)).astype(np.float64)
        squares = np.minimum(residuals**2, MAX_RESIDUAL**2)
        self._squares = np.bincount(numbers, squares, minlength=len(first))
        # Equal residuals stay in order of day and ticker, so that weights add up in one order.
        order = np.argsort(residuals, kind="stable")
        self._values = residuals[order]
        self._numbers = numbers[order]
        self._sessions = sessions
        self._places = np.searchsorted(sessions, self._days)

    def of(
        self,
        day: np.datetime64,
        window: _Window,
    ) -> tuple[float, tuple[float, ...]]:
        """Variance factor and quantiles of the pool of `day`."""
        place = int(np.searchsorted(self._sessions, day))
        start = int(np.searchsorted(self._days, _oldest(self._sessions, day, window.sessions)))
        stop = int(np.searchsorted(self._ends, day, side="right"))
        if stop <= start:
            return 1.0, GAUSSIAN
        weights = np.ones(stop - start)
        if window.half_life is not None:
            weights = 0.5 ** ((place - self._places[start:stop]) / window.half_life)
        counts = self._count[start:stop]
        total = float(np.sum(counts * weights))
        worth = total**2 / float(np.sum(counts * weights**2))
        if worth < window.min_for_factor:
            return 1.0, GAUSSIAN
        factor = float(np.sum(self._squares[start:stop] * weights)) / total or 1.0
        if worth < MIN_RESIDUALS:
            return factor, tuple(math.sqrt(factor) * quantile for quantile in GAUSSIAN)
        inside = np.flatnonzero((self._numbers >= start) & (self._numbers < stop))
        found = _weighted_quantiles(
            self._values[inside], weights[self._numbers[inside] - start], _LEVELS
        )
        around = np.maximum.accumulate(found - (1 - window.median_kept) * found[_MEDIAN])
        return factor, tuple(around.tolist())


def _weighted_quantiles(
    values: NDArray[np.float64], weights: NDArray[np.float64], levels: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Quantiles of sorted `values` (two or more), linear between neighbours.

    Neighbours are as far apart as the mean of their weights; equal weights give type 7.
    """
    gaps = (weights[:-1] + weights[1:]) / 2
    positions = np.concatenate([[0.0], np.cumsum(gaps)])
    targets = levels * positions[-1]
    above = np.clip(np.searchsorted(positions, targets, side="right"), 1, len(values) - 1)
    below = above - 1
    share = (targets - positions[below]) / (positions[above] - positions[below])
    return values[below] + share * (values[above] - values[below])  # type: ignore[no-any-return]
