"""Simulated markets that do not change, and the changes that are planted in them.

The law of `sources/simulated.py` (a common factor, volatility that clusters, fat tails, jumps,
leverage, volume that follows), computed for all tickers and days at once: hundreds of markets are
needed, and no candle of a day by itself. Highs and lows are those of a Brownian bridge from open to
close, drawn exactly (Beghin & Orsingher 1999).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from stock_assets.calendars import get_calendar
from stock_assets.lake.schemas import Bars
from stock_assets.settings import Settings

if TYPE_CHECKING:
    import datetime as dt

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

EXCHANGE = "XNYS"
SECTORS = 6

_FACTOR, _PERSISTENCE, _NOISE, _LEVERAGE = 0.0085, 0.97, 0.13, 0.6
_OWN_PERSISTENCE, _OWN_NOISE = 0.97, 0.12
_OVERNIGHT = 0.25
_DRIFT = 0.0003
_LARGEST = 1.4
_SHOCK = 4.0


@dataclass(frozen=True)
class Change:
    """What is another one from some day on: multipliers by (ticker, session), and drift added."""

    volatility: Floats
    beta: Floats
    volume: Floats
    drift: Floats

    @staticmethod
    def none(tickers: int, sessions: int) -> Change:
        """A market that does not change."""
        ones = np.ones((tickers, sessions))
        return Change(ones, ones.copy(), ones.copy(), np.zeros((tickers, sessions)))


def market_settings(tickers: int, sessions: int, last: dt.date) -> Settings:
    """Settings of a simulated market: its tickers in sectors, cells from its last days on."""
    universe = [
        {"ticker": name, "source": "s", "exchange": EXCHANGE, "sector": f"S{number % SECTORS}"}
        for number, name in enumerate(_names(tickers))
    ]
    first = get_calendar(EXCHANGE).back(last, sessions - 1)
    return Settings(
        partitions={"first_day": first},
        universe=universe,
        sources={"s": {"kind": "simulated"}},
    )


def of_sector(tickers: int, sector: int) -> NDArray[np.int64]:
    """The numbers of a sector's tickers."""
    return np.arange(sector, tickers, SECTORS)


def simulate(seed: int, tickers: int, days: tuple[dt.date, ...], change: Change) -> pl.DataFrame:
    """Rows of `Bars` of one market on `days`. The same seed gives the same shocks."""
    random = np.random.default_rng(seed)
    count = len(days)

    def shocks(*shape: int) -> Floats:
        return np.asarray(random.standard_t(6, shape) * math.sqrt(4 / 6))

    factor_night, factor_day = shocks(count), shocks(count)
    factor_noise = random.standard_normal(count)
    beta, volatility, price, volume = random.random((4, tickers))
    night, noon = shocks(tickers, count), shocks(tickers, count)
    noise, trade, jump_size = random.standard_normal((3, tickers, count))
    jumps = (random.random((tickers, count)) < 0.008) * 4 * jump_size  # noqa: PLR2004
    up, down = random.exponential(size=(2, tickers, count))

    fall = np.clip(factor_day, -_SHOCK, _SHOCK)
    fresh = math.sqrt(1 - _LEVERAGE**2) * factor_noise - _LEVERAGE * fall
    factor_level = _autoregressive(_NOISE * fresh[None], _PERSISTENCE)[0]
    own_level = _autoregressive(_OWN_NOISE * noise, _OWN_PERSISTENCE)

    common = _FACTOR * np.exp(_bounded(factor_level))[None] * change.volatility
    own = (0.007 + 0.006 * volatility)[:, None] * np.exp(_bounded(own_level)) * change.volatility
    betas = (0.7 + 0.6 * beta)[:, None] * change.beta
    by_night, by_day = math.sqrt(_OVERNIGHT), math.sqrt(1 - _OVERNIGHT)
    gap = by_night * (betas * common * factor_night + own * night) + own * jumps
    move = _DRIFT + change.drift + by_day * (betas * common * factor_day + own * noon)
    sigma = np.sqrt((betas * common) ** 2 + own**2)
    stir = np.abs(gap + move) / sigma
    activity = _autoregressive(0.15 * trade + 0.1 * (stir - 1), 0.85, lagged=False)
    log_volume = (9 + 3 * volume)[:, None] + activity + 0.5 * _bounded(own_level)

    close = (3.5 + 2.5 * price)[:, None] + np.cumsum(gap + move, axis=1)
    opening = close - move
    width = 2 * (sigma * by_day) ** 2
    high = opening + (move + np.sqrt(move**2 + width * up)) / 2
    low = opening + (move - np.sqrt(move**2 + width * down)) / 2
    prices = {
        name: np.round(np.exp(values), 2)
        for name, values in (("open", opening), ("high", high), ("low", low), ("close", close))
    }
    prices["high"] = np.maximum.reduce([prices[name] for name in ("open", "high", "close")])
    prices["low"] = np.minimum.reduce([prices[name] for name in ("open", "low", "close")])
    return _bars(_names(tickers), days, prices, np.round(np.exp(log_volume) * change.volume))


def _names(tickers: int) -> list[str]:
    return [f"T{number:02d}" for number in range(tickers)]


def _autoregressive(shocks: Floats, persistence: float, *, lagged: bool = True) -> Floats:
    """Levels of l' = persistence l + shock from zero on, before each day's shock or after it."""
    levels = np.zeros_like(shocks)
    level = np.zeros(shocks.shape[0])
    for day in range(shocks.shape[1]):
        if lagged:
            levels[:, day] = level
        level = persistence * level + shocks[:, day]
        if not lagged:
            levels[:, day] = level
    return levels


def _bounded(level: Floats) -> Floats:
    return np.clip(level, -_LARGEST, _LARGEST)


def _bars(
    names: list[str], days: tuple[dt.date, ...], prices: dict[str, Floats], volume: Floats
) -> pl.DataFrame:
    columns = {name: values.ravel() for name, values in prices.items()} | {"volume": volume.ravel()}
    return (
        pl.DataFrame(columns)
        .with_columns(
            pl.Series("ticker", names, pl.String).gather(
                np.repeat(np.arange(len(names)), len(days))
            ),
            pl.Series("day", list(days) * len(names), pl.Date),
            pl.lit(EXCHANGE).alias("exchange"),
            pl.lit("USD").alias("currency"),
            *(pl.col(name).alias(f"raw_{name}") for name in columns),
            pl.lit(None, pl.Float64).alias("realised_variance"),
            pl.lit(1.0).alias("split_factor"),
            pl.lit(None, pl.Float64).alias("dividend_factor"),
            pl.lit(None, pl.Float64).alias("suspected_split"),
            pl.lit("1d").alias("interval"),
            pl.lit(1, pl.Int64).alias("candles"),
        )
        .select(Bars.column_names())
        .sort("day", "ticker")
    )
