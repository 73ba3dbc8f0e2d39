"""From a forecast's seven quantiles to the whole distribution of the price it is about.

A row of `forecasts` gives seven quantiles of the log return and its sigma. In between, the return
is linear in the log-odds of the probability, ln(p / (1 - p)): the basis of the logistic
distribution and of those parameterised by quantiles (Keelin 2016, "The Metalog Distributions",
Decision Analysis 13). Beyond 5 and 95 % the outermost segment goes on, which makes the tails
exponential: fatter than a normal's, as those of returns over days are; on ten years of Moscow and
five of US stocks they were nearer to what came than normal tails were. Where the outermost
quantiles coincide and give no slope, the tail is that of the logistic distribution with the
forecast's sigma.

The same formulas are DuckDB macros in `lake/macros.sql`; a test holds the two together. What made
the quantiles is not known here, and neither is how a probability is shown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from stock_assets.lake.schemas import QUANTILE_NAMES, QUANTILES

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

LOGISTIC_SCALE = math.sqrt(3) / math.pi
"""Scale of the logistic distribution whose standard deviation is 1."""

LEAST_SIGMA = 1e-12
"""Smaller ones count as this, so that the tail of a price that never moves has a slope."""

_LEVELS = np.array(QUANTILES)
_LOG_ODDS = np.log(_LEVELS / (1 - _LEVELS))


@dataclass(frozen=True)
class PriceDistributions:
    """The distributions of `n` forecasts; every method answers for all of them, as n numbers.

    Prices are in the currency and the shares of the forecast's day. A price or probability that is
    asked for is one number for all, or n of them.
    """

    last_price: Floats
    """(n,), at the close of the forecast's day."""
    returns: Floats
    """(n, 7): quantiles of the log return, rising along each row; equal ones are a jump."""
    sigma: Floats
    """(n,): standard deviation of the log return, for tails that have no slope of their own."""

    @classmethod
    def of(cls, forecasts: pl.DataFrame) -> PriceDistributions:
        """The distributions of rows of `Forecasts`, in their order."""
        return cls(
            forecasts["last_price"].to_numpy(),
            forecasts.select(f"return_{name}" for name in QUANTILE_NAMES).to_numpy(),
            forecasts["sigma"].to_numpy(),
        )

    def cdf(self, price: ArrayLike) -> Floats:
        """Probability that the price ends at `price` or below it; 0 for prices not above 0."""
        return self._probability(price, "right")

    def probability_above(self, price: ArrayLike) -> Floats:
        """Probability that the price ends above `price`."""
        return 1 - self.cdf(price)

    def probability_below(self, price: ArrayLike) -> Floats:
        """Probability that the price ends below `price`.

        One minus `probability_above`, unless the forecast holds that very price likely: one that
        stands still most days ends neither above nor below where it is.
        """
        return self._probability(price, "left")

    def probability_touch(self, price: ArrayLike) -> Floats:
        """Roughly the probability that trading reaches `price` on the way to the horizon.

        Twice the probability of ending beyond it, by the reflection principle, which is exact for
        continuous paths that rise and fall alike. Gaps, drift and leverage are not in it: on the
        development sets of Moscow and US stocks it was off by up to 5 points for five sessions
        (levels 0.25 to 2 sigmas away), and by up to 9 for one session.
        """
        price = np.asarray(price, dtype=np.float64)
        beyond = np.where(
            price > self.last_price, self.probability_above(price), self.probability_below(price)
        )
        here = price == self.last_price
        return np.where(here, 1.0, np.minimum(1.0, 2 * beyond))

    def quantile(self, probability: ArrayLike) -> Floats:
        """The price that is not exceeded with `probability`: the inverse of `cdf`.

        Raises `ValueError` for a probability that is not above 0 and below 1.
        """
        wanted = self._each(probability)
        if not np.all((wanted > 0) & (wanted < 1)):
            message = f"a probability of {wanted} has no price; it must be above 0 and below 1"
            raise ValueError(message)
        # As `_LOG_ODDS` are computed: a level of the table then gives its very quantile.
        odds = np.log(wanted / (1 - wanted))
        place = np.searchsorted(_LOG_ODDS, odds, side="right")
        low, low_odds, slope = self._segment(place)
        # Rounding must not carry a value over the end of its segment.
        after = np.where(place < len(QUANTILES), self._at(place), np.inf)
        found = np.minimum(low + (odds - low_odds) * slope, after)
        return self.last_price * np.exp(found)

    def interval(self, probability: float) -> tuple[Floats, Floats]:
        """The expected range: the central interval that holds the closing price so often.

        It ends below and above with equal probability. 0.5, 0.8 and 0.9 give quantiles of the
        forecast itself. Raises `ValueError` as `quantile` does.
        """
        # Rounded, since (1 - 0.9) / 2 is not quite the 0.05 of the table.
        outside = round((1 - probability) / 2, 12)
        return self.quantile(outside), self.quantile(1 - outside)

    def _probability(self, price: ArrayLike, side: Literal["left", "right"]) -> Floats:
        asked = np.maximum(self._each(price), 0)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            wanted = np.log(asked / self.last_price)
            # As np.searchsorted(returns, wanted, side), row by row.
            passes = np.less_equal if side == "right" else np.less
            place = passes(self.returns, wanted[:, None]).sum(axis=1)
            low, low_odds, slope = self._segment(place)
            odds = low_odds + (wanted - low) / slope
            return 1 / (1 + np.exp(-odds))

    def _segment(self, place: NDArray[np.intp]) -> tuple[Floats, Floats, Floats]:
        """Where a segment starts (return, log-odds) and its slope, by how many quantiles precede.

        The tails are segments too: they start at the outermost quantile.
        """
        rows = np.arange(len(self.returns))
        last = len(QUANTILES) - 1
        start = np.clip(place - 1, 0, last)
        # The tail continues the segment that it borders on.
        left = np.clip(place - 1, 0, last - 1)
        rise = self.returns[rows, left + 1] - self.returns[rows, left]
        slope = rise / (_LOG_ODDS[left + 1] - _LOG_ODDS[left])
        own = LOGISTIC_SCALE * np.maximum(self.sigma, LEAST_SIGMA)
        in_tail = (place == 0) | (place > last)
        slope = np.where(in_tail & (rise <= 0), own, slope)
        return self.returns[rows, start], _LOG_ODDS[start], slope

    def _at(self, place: NDArray[np.intp]) -> Floats:
        return self.returns[np.arange(len(self.returns)), np.minimum(place, len(QUANTILES) - 1)]

    def _each(self, asked: ArrayLike) -> Floats:
        return np.broadcast_to(np.asarray(asked, dtype=np.float64), self.last_price.shape)
