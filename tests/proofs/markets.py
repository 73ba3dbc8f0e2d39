"""Simulated markets whose truth is known: what the next days' variance is, to the last digit.

Tickers share a factor, so that the days are what is independent, not the rows.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from stock_assets.calendars import WEEKDAYS, get_calendar
from stock_assets.lake.schemas import Bars

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIRST = dt.date(2020, 1, 6)
STEPS = 24
"""Steps of the price within a session, from which come its high and low."""

FACTOR_SHARE = 0.3
"""Of a return's variance."""


@dataclass(frozen=True)
class Garch:
    """Conditional variance: v' = (1 - a - b) level^2 + a r^2 + b v (Bollerslev 1986)."""

    reaction: float
    memory: float
    level: float = 0.015

    @property
    def persistence(self) -> float:
        return self.reaction + self.memory

    def after(self, variance: NDArray[np.float64], ret: NDArray[np.float64]) -> NDArray[np.float64]:
        """The next session's variance."""
        constant = (1 - self.persistence) * self.level**2
        return constant + self.reaction * ret**2 + self.memory * variance

    def over(self, following: pl.Expr, horizon: int) -> pl.Expr:
        """Variance of the return over `horizon` sessions, given that of the first of them."""
        decay = math.fsum(self.persistence**step for step in range(horizon))
        return horizon * self.level**2 + decay * (following - self.level**2)


CONSTANT = Garch(0.0, 0.0)
"""A pure random walk: independent returns of one and the same variance."""

RISK_METRICS = Garch(0.06, 0.94)
"""The market of which RiskMetrics' EWMA of 0.94 is the truth."""

MEAN_REVERTING = Garch(0.12, 0.85)
"""Storms that pass: an EWMA overstates them, and understates the calm before the next."""


def simulate(
    law: Garch, tickers: int, sessions: int, *, seed: int, factor_share: float = FACTOR_SHARE
) -> pl.DataFrame:
    """Rows of `Bars`, with `following`: the true variance of the next session's log return."""
    days = get_calendar(WEEKDAYS).after(FIRST - dt.timedelta(1), sessions)
    rng = np.random.default_rng(seed)
    names = [f"T{number:02}" for number in range(tickers)]
    price, variance = np.full(tickers, math.log(100)), np.full(tickers, law.level**2)
    columns: dict[str, list[NDArray[np.float64]]] = {
        name: [] for name in ("open", "high", "low", "close", "volume", "following")
    }
    for _ in range(sessions):
        common = math.sqrt(factor_share) * rng.standard_normal((STEPS, 1))
        own = math.sqrt(1 - factor_share) * rng.standard_normal((STEPS, tickers))
        path = np.cumsum((common + own) * np.sqrt(variance / STEPS), axis=0)
        columns["open"].append(np.exp(price))
        columns["high"].append(np.exp(price + path.max(axis=0, initial=0)))
        columns["low"].append(np.exp(price + path.min(axis=0, initial=0)))
        price, variance = price + path[-1], law.after(variance, path[-1])
        columns["close"].append(np.exp(price))
        columns["volume"].append(np.exp(10 + rng.standard_normal(tickers)))
        columns["following"].append(variance)
    raw = ("open", "high", "low", "close", "volume")
    return (
        pl.DataFrame({name: np.concatenate(values) for name, values in columns.items()})
        .with_columns(
            pl.Series("day", [day for day in days for _ in names], pl.Date),
            pl.Series("ticker", names * sessions),
            *(pl.col(name).alias(f"raw_{name}") for name in raw),
            pl.lit(WEEKDAYS).alias("exchange"),
            pl.lit("RUB").alias("currency"),
            pl.lit(None, pl.Float64).alias("realised_variance"),
            pl.lit(1.0).alias("split_factor"),
            pl.lit(None, pl.Float64).alias("dividend_factor"),
            pl.lit(None, pl.Float64).alias("suspected_split"),
            pl.lit("1d").alias("interval"),
            pl.lit(1, pl.Int32).alias("candles"),
        )
        .select(*Bars.column_names(), "following")
        .sort("day", "ticker")
    )
