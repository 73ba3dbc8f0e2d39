"""When a statistic is too large: thresholds from blocks of a market's own earlier history.

Neighbouring days are alike and tickers move together, so that textbook thresholds alarm nearly
always. Here a statistic is compared with what it was on earlier, unremarkable days of the same
market: its largest values of blocks of a month, volatility clusters and market-wide moves included.
A young market has few blocks. Its history is therefore begun with two years of a simulated market
that never changes (`stationary.json`, made by `bench/drift.py --stationary`), which its own past
soon outweighs.

Pure functions of numbers; what the numbers are is in `distances.py`.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

GRID = 5
"""Every how many sessions of history a distance is measured: a fourth of its window."""

USUAL = 0.9
"""The share of its history below which a feature's distance is usual: above, it has drifted."""

_BREAK, _BLOCKS_PER_BREAK = 1.5, 24

_STATIONARY = Path(__file__).with_name("stationary.json")


@dataclass(frozen=True)
class Stationary:
    """What the statistics are in simulated markets that do not change."""

    distances: dict[str, tuple[float, ...]]
    """By feature: evenly spaced quantiles of its distance, as many as count as own history."""
    blocks: dict[str, dict[int, tuple[float, ...]]]
    """By statistic and number of tickers: evenly spaced quantiles of a block's largest value."""

    def distances_of(self, feature: str) -> Floats:
        """Distances with which a history of `feature` begins; none for one that is not known."""
        return np.array(self.distances.get(feature, ()))

    def blocks_of(self, statistic: str, tickers: int) -> Floats:
        """Largest values of blocks for the simulated market whose size is nearest."""
        sizes = self.blocks.get(statistic, {})
        if not sizes:
            return np.array([])
        nearest = min(sizes, key=lambda size: abs(np.log(size / max(tickers, 1))))
        return np.array(sizes[nearest])


@functools.cache
def stationary() -> Stationary:
    """The simulated markets that the package comes with."""
    if not _STATIONARY.exists():
        return Stationary({}, {})
    held = json.loads(_STATIONARY.read_text(encoding="utf-8"))
    return Stationary(
        {name: tuple(values) for name, values in held["distances"].items()},
        {
            name: {int(size): tuple(values) for size, values in sizes.items()}
            for name, sizes in held["blocks"].items()
        },
    )


def upper_quantile(values: Floats, share: float) -> Floats:
    """The value that a new one exceeds in at most `share` of cases, along the last axis.

    Weibull's plotting position: of n exchangeable values and a new one, each is the largest with
    chance 1 / (n + 1). Never more than the largest of them: a `share` below 1 / (n + 1) cannot be
    kept. NaN are no values; NaN where there is none.
    """
    ordered = np.sort(values, axis=-1)  # NaN sorts last
    count = (~np.isnan(ordered)).sum(axis=-1)
    place = np.clip((1 - share) * (count + 1) - 1, 0, np.maximum(count - 1, 0))
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, np.maximum(count - 1, 0))
    low, high = (
        np.take_along_axis(ordered, index[..., None], axis=-1)[..., 0] for index in (below, above)
    )
    return np.asarray(low + (place - below) * (high - low))


def alarm_level(prior: Floats, own: Floats, share: float) -> Floats:
    """The value that a block's largest exceeds in at most `share` of blocks: (series,).

    `prior` (values,) begins the history of `own` (series, blocks), NaN for no value. The largest
    blocks of it, one and another for every two years, are not counted while they are more than
    half again above the level of the rest: a crash is not what is usual, and would else hide the
    next one for years.
    """
    count = (~np.isnan(own)).sum(axis=-1)
    spared = 1 + count // _BLOCKS_PER_BREAK
    # Places from the top, NaN below all values.
    rank = np.argsort(np.argsort(-np.where(np.isnan(own), -np.inf, own), axis=-1), axis=-1)
    largest = (rank < spared[..., None]) & ~np.isnan(own)
    rest = upper_quantile(begun_with(prior, np.where(largest, np.nan, own)), share)
    broken = largest & (own > _BREAK * rest[..., None])
    return upper_quantile(begun_with(prior, np.where(broken, np.nan, own)), share)


def block_maxima(series: Floats, length: int) -> Floats:
    """Largest value of each whole block of `length` along the last axis, the newest block last.

    Blocks are counted from the end. NaN are no values; a block of nothing else is NaN.
    """
    count = series.shape[-1] // length
    blocks = series[..., series.shape[-1] - count * length :]
    shaped = blocks.reshape(*series.shape[:-1], count, length)
    largest = np.where(np.isnan(shaped), -np.inf, shaped).max(axis=-1, initial=-np.inf)
    return np.where(np.isneginf(largest), np.nan, largest)


def begun_with(prior: Floats, own: Floats) -> Floats:
    """`own` history along its last axis, begun with the values of `prior`."""
    shape = (*own.shape[:-1], prior.shape[-1])
    return np.concatenate([np.broadcast_to(prior, shape), own], axis=-1)
