"""Quantiles of standardised residuals: how far from the last price, in sigmas.

Shared by the baseline and the model's calibration, so that the two differ in sigma and nothing
else. The median is the last price: weekly returns do not beat the random walk, so the residuals'
own median is taken out.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from stock_assets.lake.schemas import QUANTILES

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_RESIDUALS = 500
"""Residuals below which a normal distribution is assumed instead of their own."""

GAUSSIAN: tuple[float, ...] = tuple(NormalDist().inv_cdf(level) for level in QUANTILES)
_MEDIAN = QUANTILES.index(0.5)


def residual_quantiles(residuals: NDArray[np.float64]) -> tuple[float, ...]:
    """The seven quantiles of `residuals` (no NaN) around their median, in rising order.

    Gaussian where there are fewer than 500. Depends on the values only, not on their order.
    """
    if len(residuals) < MIN_RESIDUALS:
        return GAUSSIAN
    found = np.quantile(residuals, QUANTILES)
    return tuple(float(value) for value in np.maximum.accumulate(found - found[_MEDIAN]))
